"""Spark: one day's flights by carrier, written as Parquet below the data's folder."""

from __future__ import annotations

import argparse

import practicus_runtime as pr
from pyspark.sql import functions as F

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--date", required=True, help="YYYY-MM-DD")
parser.add_argument("--origin", default="all")
parser.add_argument("--late", type=int, default=15, help="minutes")
args = parser.parse_args()

spark = pr.get_client()
flights = spark.read.parquet(f"{args.data}/flights").where(F.col("date") == F.lit(args.date).cast("date"))
if args.origin != "all":
    flights = flights.where(F.col("origin") == args.origin)
summary = (
    flights.join(spark.read.parquet(f"{args.data}/airlines.parquet"), "carrier")
    .groupBy("carrier", "name")
    .agg(
        F.count("*").alias("flights"),
        F.count_if(F.col("dep_time").isNull()).alias("cancelled"),
        F.count_if(F.col("arr_delay") >= args.late).alias("late"),
        F.round(F.avg("arr_delay"), 2).alias("mean_delay"),
    )
    .coalesce(1)
    .orderBy("carrier")
)
pr.progress(0.5, f"reading the flights of {args.date}")
out = f"{args.data}/out/spark_etl/origin={args.origin}/date={args.date}"
summary.write.mode("overwrite").parquet(out)
carriers = [row.asDict() for row in spark.read.parquet(out).collect()]
for carrier in carriers:
    print(f"{carrier['name']:30} {carrier['flights']:4} flights, {carrier['late']:3} late")
pr.set_result({"date": args.date, "path": out, "carriers": carriers})
