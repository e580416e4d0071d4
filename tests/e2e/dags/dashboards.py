"""DAGs whose job does a little work, and then lives for as long as it is looked at."""

from airflow.sdk import DAG

from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.operators.job import PracticusRunJobOperator
from practicus_provider.operators.spark import PracticusSparkOperator
from practicus_provider.spec import Resources

EVENT_LOG = {"spark.eventLog.enabled": "true", "spark.eventLog.dir": "."}
for kind, name, cpu, conf in (
    (PracticusDaskOperator, "dask", "200m", {}),
    (PracticusSparkOperator, "spark", "500m", EVENT_LOG),
):
    with DAG(f"dashboard_{name}", params={"image": ""}):
        kind(
            task_id="job",
            application=f"work_{name}.py",
            image="{{ params.image }}",
            conf=conf,
            worker_resources=Resources(cpu, "1Gi"),
            coordinator_resources=Resources(cpu, "1Gi"),
            deferrable=True,
        )
with DAG("dashboard_of_an_attacker", params={"image": ""}):
    PracticusRunJobOperator(
        task_id="job",
        adapter="attacker.AttackerAdapter",
        application="attack.py",
        image="{{ params.image }}",
        deferrable=True,
    )
