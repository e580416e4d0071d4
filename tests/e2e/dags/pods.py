"""DAGs whose job takes ``params.seconds``, where it and its test share no folder."""

from datetime import timedelta

from airflow.sdk import DAG

from practicus_provider.operators.job import PracticusRunJobOperator
from practicus_provider.operators.retry_policy import VerdictRetryPolicy
from practicus_provider.spec import Resources

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

for name, factor in (("grows", 4), ("does_not_grow", None)):
    with DAG(f"pods_memory_{name}"):
        PracticusRunJobOperator(
            task_id="job",
            adapter="single.SingleAdapter",
            application="memory.py",
            coordinator_resources=Resources(cpu=1, memory="64Mi"),
            oom_memory_factor=factor,
            deferrable=True,
            retries=1,
            retry_delay=timedelta(seconds=1),
            retry_policy=VerdictRetryPolicy(),
        )
