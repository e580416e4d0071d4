"""Spark: what is known of each flight of a month when it leaves, and the minutes that it then lost on its way, as CSV.

Plain numbers, since who reads them next may have neither pandas nor pyarrow: the day of the month, the features, the
minutes. Always in the same order, so that who learns from them learns the same.
"""

from __future__ import annotations

import argparse

import practicus_runtime as pr
from pyspark.sql import functions as F

WEATHER = ["wind_speed", "precip", "visib"]
FEATURES = ["dep_delay", "distance", "hour", *WEATHER]

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--month", type=int, required=True)
args = parser.parse_args()

spark = pr.get_client()
out = f"{args.data}/out/csv/{pr.context().run_id.replace(':', '-')}"
weather = (
    spark.read.parquet(f"{args.data}/weather.parquet")
    .groupBy("origin", "time_hour")  # the end of summer time repeats an hour
    .agg(*(F.avg(column).alias(column) for column in WEATHER))
)
pr.progress(0.2, "joining flights and weather")
(
    spark.read.parquet(f"{args.data}/flights")
    .where(F.col("month") == args.month)
    .join(F.broadcast(weather), ["origin", "time_hour"])
    .withColumn("lost", F.col("arr_delay") - F.col("dep_delay"))
    .dropna(subset=[*FEATURES, "lost"])
    .repartition(1)  # a month is small
    .sortWithinPartitions("date", "sched_dep_time", "carrier", "flight", "origin")
    .select("day", *FEATURES, "lost")
    .write.mode("overwrite")
    .csv(out, header=True)
)

written = spark.read.csv(out, header=True, inferSchema=True)
pr.progress(0.8, "summing up")
[summary] = written.agg(F.count("*").alias("rows"), F.avg("lost").alias("mean_lost")).collect()
pr.set_result({"path": out, **summary.asDict()})
