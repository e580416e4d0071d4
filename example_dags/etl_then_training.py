"""### Spark prepares, Horovod trains

Two frameworks in one DAG, each on a cluster of its own that lives as long as its task. Spark joins a month of flights
with the weather and writes CSV; two workers of Horovod learn from it how many minutes a plane loses on its way; the
last task measures them by the forecast that it loses none. What travels between the tasks is a path.

The two need different software, and the connection says where it is: on Kubernetes its extra `images`, such as
`{"spark": "registry/spark:4", "horovod": "registry/training:1"}`; with the local backend `pythons`, likewise.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.horovod import PracticusHorovodOperator
from practicus_provider.operators.spark import PracticusSparkOperator
from practicus_provider.spec import Resources

with DAG(
    "practicus_etl_then_training",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "spark", "horovod", "machine-learning"],
    params={
        "month": Param(1, type="integer", minimum=1, maximum=12, title="Month"),
        "epochs": Param(10, type="integer", minimum=1, maximum=1000, title="Epochs"),
        "learning_rate": Param(0.003, type="number", exclusiveMinimum=0, maximum=1, title="Learning rate"),
    },
):

    @task
    def prepare() -> str:
        """The folder with the flights; made once."""
        from data import make_data

        return str(make_data())

    etl = PracticusSparkOperator(
        task_id="etl",
        application="jobs/flights_to_csv.py",
        application_args=["--data", prepare(), "--month", "{{ params.month }}"],
        workers=1,
        worker_resources=Resources(cpu=1, memory="1Gi"),
        conf={"spark.sql.shuffle.partitions": "2"},
        multiple_outputs=True,  # so that etl.output["path"] is one of them
    )
    train = PracticusHorovodOperator(
        task_id="train",
        application="jobs/lost_minutes.py",
        application_args=[
            *("--input", etl.output["path"]),
            *("--epochs", "{{ params.epochs }}"),
            *("--learning-rate", "{{ params.learning_rate }}"),
        ],
        workers=2,
        worker_resources=Resources(cpu=1, memory="2Gi"),
    )

    @task
    def evaluate(etl: dict, train: dict) -> dict:
        """How far off the network is, and the naive forecast; fails where the network is no better."""
        if etl["rows"] != train["flights"]:
            raise ValueError(f"Spark wrote {etl['rows']} flights, but Horovod read {train['flights']}")
        if train["mae"] >= train["naive_mae"]:
            raise ValueError(f"the network is no better than the naive forecast: {train}")
        return {name: train[name] for name in ("tested", "mae", "naive_mae")}

    evaluate(etl.output, train.output)
