"""### Dask: train a model on all flights

How late will a plane arrive, given how late it left? A Dask cluster sums up the flights, fits one scikit-learn model
for each combination of hyper-parameters, all at once, chooses the best on one month and tests it on the next three.
The metrics are the task's XCom.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.spec import Elastic, Resources

with DAG(
    "practicus_dask_training",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "dask", "machine-learning"],
    params={
        "grid": Param(
            {"learning_rate": [0.1, 0.3], "max_leaf_nodes": [31]},
            type="object",
            title="Hyper-parameters to try",
            description="of scikit-learn's HistGradientBoostingRegressor; each combination is one fit",
        ),
    },
):

    @task
    def prepare() -> str:
        """The folder with the flights; made once."""
        from data import make_data

        return str(make_data() / "flights")

    train = PracticusDaskOperator(
        task_id="train",
        application="jobs/train.py",
        application_args=[
            *("--input", prepare()),
            *("--features", "dep_delay,carrier,origin,dest,distance,hour"),
            *("--grid", "{{ params.grid | tojson }}"),
        ],
        env={"OMP_NUM_THREADS": "1"},  # the fits share the cores already
        workers=Elastic(min=1, max=2),
        worker_resources=Resources(cpu=1, memory="1Gi"),
    )

    @task
    def judge(metrics: dict) -> str:
        """Fail unless the model beats the naive forecast, that a plane arrives as late as it left."""
        if metrics["mae"] >= metrics["naive_mae"]:
            raise ValueError(f"the model is no better than the naive forecast: {metrics}")
        return f"{metrics['mae']:.2f} instead of {metrics['naive_mae']:.2f} minutes off"

    judge(train.output)
