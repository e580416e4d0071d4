"""A Spark job that computes a little and stays."""

import time

import practicus_runtime

spark = practicus_runtime.get_client()
print(spark.range(1000).selectExpr("sum(id)").collect(), flush=True)
print("look now", flush=True)
time.sleep(600)
