"""### Scripts that know nothing of us

Spark's own example and a plain Dask script, unchanged: `SparkSession.builder.getOrCreate()` and `Client()` find the
task's cluster by themselves. What they print is in the task's log.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param

from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.operators.spark import PracticusSparkOperator
from practicus_provider.spec import Resources

with DAG(
    "practicus_plain_scripts",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "spark", "dask"],
    params={"partitions": Param(4, type="integer", minimum=1, maximum=1000, title="Partitions")},
):
    small = Resources(cpu=1, memory="1Gi")
    spark = PracticusSparkOperator(
        task_id="spark",
        application="jobs/plain_spark_pi.py",
        application_args=["{{ params.partitions }}"],
        worker_resources=small,
    )
    dask = PracticusDaskOperator(task_id="dask", application="jobs/plain_dask_pi.py", workers=2, worker_resources=small)
