"""Dask: sums up flights and fits models of their arrival delay, one task for each set of hyper-parameters.

A model tells how many minutes a plane loses on its way; those it left late by are added. Models learn from January to
August, the best is chosen on September, and tested on the rest of the year.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json

import dask.dataframe as dd
import pandas as pd
import practicus_runtime as pr
from dask.distributed import as_completed
from sklearn.ensemble import HistGradientBoostingRegressor

VALIDATE_FROM, TEST_FROM = datetime.date(2013, 9, 1), datetime.date(2013, 10, 1)
TARGET = "arr_delay"


def load(folder: str, features: list[str]) -> pd.DataFrame:
    columns = list({"date", "carrier", "dep_delay", TARGET, *features})
    flights = pd.read_parquet(folder, columns=columns).dropna(subset=[TARGET])
    texts = flights.select_dtypes("str").columns
    return flights.astype(dict.fromkeys(texts, "category"))


def fit(flights: pd.DataFrame, features: list[str], params: dict) -> HistGradientBoostingRegressor:
    known = flights[flights["date"] < VALIDATE_FROM]
    model = HistGradientBoostingRegressor(random_state=0, max_iter=60, categorical_features="from_dtype", **params)
    return model.fit(known[features], known[TARGET] - known["dep_delay"])


def errors(flights: pd.DataFrame, features: list[str], model, first: datetime.date, last: datetime.date):
    """Of each flight from first until last: the model's error and the naive forecast's, in minutes."""
    some = flights[(flights["date"] >= first) & (flights["date"] < last)]
    return pd.DataFrame(
        {
            "carrier": some["carrier"].astype("str"),
            "mae": (some["dep_delay"] + model.predict(some[features]) - some[TARGET]).abs(),
            "naive_mae": (some["dep_delay"] - some[TARGET]).abs(),
        }
    )


def validate(flights: pd.DataFrame, features: list[str], model) -> float:
    return float(errors(flights, features, model, VALIDATE_FROM, TEST_FROM)["mae"].mean())


def test(flights: pd.DataFrame, features: list[str], model) -> pd.DataFrame:
    return errors(flights, features, model, TEST_FROM, datetime.date.max)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--input", required=True, help="folder of Parquet that every worker can read")
    parser.add_argument("--features", required=True, type=lambda text: text.split(","))
    parser.add_argument("--grid", required=True, type=json.loads, help="hyper-parameter -> values, as JSON")
    args = parser.parse_args()
    grid = [dict(zip(args.grid, values, strict=True)) for values in itertools.product(*args.grid.values())]

    client = pr.get_client()
    flown = dd.read_parquet(args.input, columns=["carrier", TARGET]).dropna()
    by_carrier = flown.groupby("carrier")[TARGET].agg(["count", "mean"]).compute()
    pr.progress(0.1, f"{by_carrier['count'].sum():,} flights; fitting {len(grid)} models")

    flights = client.submit(load, args.input, args.features)
    models = [client.submit(fit, flights, args.features, params) for params in grid]
    scores = [client.submit(validate, flights, args.features, model) for model in models]
    for done, (future, mae) in enumerate(as_completed(scores, with_results=True), start=1):
        pr.progress(0.1 + 0.8 * done / len(grid), f"{grid[scores.index(future)]}: {mae:.2f} minutes off")
    best = min(range(len(grid)), key=lambda i: scores[i].result())
    tested = client.submit(test, flights, args.features, models[best]).result()

    carriers = by_carrier.join(tested.groupby("carrier").mean()).reset_index()
    pr.set_result(
        {
            "flights": int(by_carrier["count"].sum()),
            "tested": len(tested),
            "params": grid[best],
            "mae": round(float(tested["mae"].mean()), 3),
            "naive_mae": round(float(tested["naive_mae"].mean()), 3),
            "carriers": json.loads(carriers.round(3).to_json(orient="records")),
        }
    )


if __name__ == "__main__":
    main()
