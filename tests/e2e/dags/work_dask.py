"""A Dask job that computes a little and stays."""

import time

import practicus_runtime

client = practicus_runtime.get_client()
print(sum(client.gather(client.map(lambda number: number * number, range(100)))), flush=True)
practicus_runtime.progress(0.5, "half of it")
print("look now", flush=True)
time.sleep(600)
