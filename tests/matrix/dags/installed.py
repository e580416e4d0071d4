"""One job of each framework that an extra brings, followed by the task itself and by the triggerer."""

from airflow.sdk import DAG, task

from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.operators.spark import PracticusSparkOperator
from practicus_provider.spec import Resources

SMALL = Resources(cpu=1, memory="1Gi")

with DAG("installed", schedule=None):
    jobs = [
        operator(
            task_id=f"{framework}_{'deferred' if deferrable else 'followed'}",
            application=f"jobs/{framework}_sum.py",
            worker_resources=SMALL,
            coordinator_resources=SMALL,
            deferrable=deferrable,
        )
        for framework, operator in {"dask": PracticusDaskOperator, "spark": PracticusSparkOperator}.items()
        for deferrable in (False, True)
    ]

    @task
    def sums(found: list[int]):
        print("the sums are", found)

    sums([job.output for job in jobs])
