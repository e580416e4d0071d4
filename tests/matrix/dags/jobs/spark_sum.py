"""A sum, by Spark's executors."""

import practicus_runtime
from pyspark.sql import SparkSession

session = SparkSession.builder.getOrCreate()
practicus_runtime.set_result(session.sparkContext.parallelize(range(100)).map(abs).sum())
