"""DAGs whose job takes ``params.seconds``, where it and its test share no folder."""

from datetime import timedelta

from airflow.sdk import DAG

from practicus_provider.operators.job import PracticusRunJobOperator

for name, deferrable, retries in (("deferred", True, 0), ("last_try", False, 0), ("retried", False, 1)):
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
