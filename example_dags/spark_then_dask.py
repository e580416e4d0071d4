"""### Spark prepares, Dask trains

Two frameworks in one DAG, each on a cluster of its own that lives as long as its task. Spark joins the flights with
the weather and the planes and writes Parquet; Dask trains on that very Parquet; the last task puts both results side by
side. What travels between the tasks is a path.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.operators.spark import PracticusSparkOperator
from practicus_provider.spec import Resources

with DAG(
    "practicus_spark_then_dask",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "spark", "dask", "machine-learning"],
    params={
        "features": Param(
            ["dep_delay", "carrier", "origin", "dest", "distance", "hour", "age", "wind_speed", "precip"],
            type="array",
            items={"type": "string"},
            title="What the model may know when the plane leaves",
        ),
        "learning_rate": Param([0.1, 0.3], type="array", items={"type": "number"}, title="Learning rates to try"),
    },
):

    @task
    def prepare() -> str:
        """The folder with the flights; made once."""
        from data import make_data

        return str(make_data())

    small = Resources(cpu=1, memory="1Gi")
    etl = PracticusSparkOperator(
        task_id="etl",
        application="jobs/features.py",
        application_args=["--data", prepare()],
        workers=1,
        worker_resources=small,
        conf={"spark.sql.shuffle.partitions": "2"},
        multiple_outputs=True,  # so that etl.output["path"] is one of them
    )
    train = PracticusDaskOperator(
        task_id="train",
        application="jobs/train.py",
        application_args=[
            *("--input", etl.output["path"]),
            *("--features", "{{ params.features | join(',') }}"),
            *("--grid", '{"learning_rate": {{ params.learning_rate | tojson }}}'),
        ],
        env={"OMP_NUM_THREADS": "1"},  # the fits share the cores already
        workers=2,
        worker_resources=small,
    )

    @task
    def report(etl: dict, train: dict) -> list[dict]:
        """One row for each carrier, also written as JSON beside the features; fails where the two disagree."""
        import json
        from pathlib import Path

        if etl["rows"] != train["flights"]:
            raise ValueError(f"Spark wrote {etl['rows']} flights, but Dask read {train['flights']}")
        models = {carrier["carrier"]: carrier for carrier in train["carriers"]}
        rows = [
            {
                "carrier": name,
                "flights": flights,
                "mean_delay": mean_delay,
                "naive_error": models[code]["naive_mae"],
                "model_error": models[code]["mae"],
            }
            for code, name, flights, mean_delay in etl["carriers"]
        ]
        everyone = {
            "carrier": "all",
            "flights": etl["rows"],
            "mean_delay": etl["mean_delay"],
            "naive_error": train["naive_mae"],
            "model_error": train["mae"],
        }
        Path(etl["path"]).with_suffix(".json").write_text(json.dumps([*rows, everyone], indent=1))
        return [*rows, everyone]

    report(etl.output, train.output)
