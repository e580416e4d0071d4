"""MapReduce: how many flights each route had. What ``mapreduce.py`` asks of an application: these three functions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq


def split(folder: str) -> list[str]:
    return [str(path) for path in sorted(Path(folder, "flights").glob("*.parquet"))]


def map(path: str) -> list[tuple[str, int]]:
    table = pq.read_table(path, columns=["origin", "dest"]).to_pydict()
    pairs = zip(table["origin"], table["dest"], strict=True)
    return list(Counter(f"{origin}-{dest}" for origin, dest in pairs).items())


def reduce(route: str, counts: list[int]) -> int:
    return sum(counts)
