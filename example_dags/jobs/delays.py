"""Dask: number of flights and mean delay of departure by some column."""

from __future__ import annotations

import argparse
import json

import dask.dataframe as dd
import practicus_runtime as pr


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--by", default="carrier", choices=["origin", "carrier", "dest", "hour", "month"])
    parser.add_argument("--month", type=int)
    args = parser.parse_args()

    pr.get_client()
    flights = dd.read_parquet(f"{args.data}/flights", filters=[("month", "==", args.month)] if args.month else None)
    by = flights.groupby(args.by).agg({"flight": "count", "dep_delay": "mean"}).compute().sort_index()
    print(by.to_string())
    delays = by["dep_delay"].round(3)  # none where every flight was cancelled
    pr.set_result({"flights": json.loads(by["flight"].to_json()), "mean_delay": json.loads(delays.to_json())})


if __name__ == "__main__":
    main()
