"""Spark: each flight that arrived, with the weather when it left and the age of its plane, as Parquet."""

from __future__ import annotations

import argparse

import practicus_runtime as pr
from pyspark.sql import functions as F

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
args = parser.parse_args()

spark = pr.get_client()
out = f"{args.data}/out/features/{pr.context().run_id.replace(':', '-')}"
planes = spark.read.parquet(f"{args.data}/planes.parquet").select("tailnum", F.col("year").alias("built"))
weather = (
    spark.read.parquet(f"{args.data}/weather.parquet")
    .select("origin", "time_hour", "wind_speed", "precip", "visib")
    .dropDuplicates(["origin", "time_hour"])  # the hour that the end of summer time repeats
)
flights = spark.read.parquet(f"{args.data}/flights").where("arr_delay IS NOT NULL")
features = (
    flights.join(F.broadcast(planes), "tailnum", "left")
    .join(F.broadcast(weather), ["origin", "time_hour"], "left")
    .withColumn("age", F.col("year") - F.col("built"))
    .select(
        *("date", "carrier", "origin", "dest", "distance", "month", "hour", "dep_delay", "arr_delay"),
        *("age", "wind_speed", "precip", "visib"),
    )
)
pr.progress(0.2, "joining flights, planes and weather")
features.write.mode("overwrite").parquet(out)

written = spark.read.parquet(out)
pr.progress(0.8, "summing up")
airlines = spark.read.parquet(f"{args.data}/airlines.parquet")
carriers = (
    written.groupBy("carrier")
    .agg(F.count("*").alias("flights"), F.avg("arr_delay").alias("mean_delay"))
    .join(F.broadcast(airlines), "carrier")
    .select("carrier", "name", "flights", "mean_delay")
    .collect()
)
carriers.sort(key=lambda row: -row["flights"])
rows = sum(row["flights"] for row in carriers)
pr.set_result(
    {
        "path": out,
        "rows": rows,
        "mean_delay": sum(row["flights"] * row["mean_delay"] for row in carriers) / rows,
        "carriers": [list(row) for row in carriers],
    }
)
