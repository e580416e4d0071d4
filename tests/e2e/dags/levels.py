"""A job that says lines of several levels, and then fails; its task waits in the triggerer, or on a worker."""

from airflow.sdk import DAG

from practicus_provider.operators.job import PracticusRunJobOperator

with DAG("levels"):
    for task_id, deferrable in (("deferred", True), ("worker", False)):
        PracticusRunJobOperator(
            task_id=task_id,
            deferrable=deferrable,
            adapter="single.SingleAdapter",
            application="say.py",
        )
