"""Estimates pi with dask.array on whatever cluster ``Client()`` finds."""

import dask.array as da
from dask.distributed import Client

if __name__ == "__main__":
    with Client() as client:
        print(f"Connected to {client.scheduler.address}")
        x, y = da.random.default_rng(0).uniform(-1, 1, size=(2, 4_000_000), chunks=(2, 500_000))
        print(f"Pi is roughly {4 * (x**2 + y**2 <= 1).mean().compute():f}")
