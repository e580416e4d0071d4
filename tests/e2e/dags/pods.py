"""DAGs whose job takes ``params.seconds``, where it and its test share no folder."""

from datetime import timedelta

from airflow.sdk import DAG

from practicus_provider.operators.job import PracticusRunJobOperator

JOBS = (("deferred", True, 0), ("deleted", True, 0), ("last_try", False, 0), ("retried", False, 1))
for name, deferrable, retries in JOBS:
    with DAG(f"pods_{name}", params={"seconds": 0}):
        PracticusRunJobOperator(
            task_id="job",
            adapter="single.SingleAdapter",
            application="last.py",
            application_args=["{{ params.seconds }}"],
            deferrable=deferrable,
            retries=retries,
            retry_delay=timedelta(seconds=1),
        )

# As long as files of logs may be named, whose folders have these names after "dag_id=" and "task_id=".
with DAG("Über_" + "DAG" * 80, params={"seconds": 0}):
    PracticusRunJobOperator(
        task_id="Größe." + "T" * 230,
        adapter="single.SingleAdapter",
        application="last.py",
        application_args=["{{ params.seconds }}"],
        deferrable=True,
    )
