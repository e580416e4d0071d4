"""### A training for each learning rate

Dynamic task mapping: `expand` makes one task, and so one cluster, for each learning rate; Airflow runs as many at a
time as the DAG allows. Each trains a network of its own on scikit-learn's digits by PyTorch, and the last task chooses
the best. The workers' Python needs PyTorch and scikit-learn.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.torch import PracticusTorchOperator
from practicus_provider.spec import Resources

with DAG(
    "practicus_training_search",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "torch", "machine-learning"],
    params={
        "learning_rates": Param(
            [0.0001, 0.001, 0.01],
            type="array",
            items={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            minItems=1,
            title="Learning rates to try",
        ),
        "epochs": Param(8, type="integer", minimum=1, maximum=1000, title="Epochs"),
        "workers": Param(1, type="integer", minimum=1, maximum=2, title="Workers of each training"),
    },
):

    @task
    def arguments(params: dict) -> list[list[str]]:
        """The arguments of each training's job."""
        epochs = str(params["epochs"])
        return [["--epochs", epochs, "--learning-rate", str(rate)] for rate in params["learning_rates"]]

    train = PracticusTorchOperator.partial(
        task_id="train",
        application="jobs/digits.py",
        workers="{{ params.workers }}",
        worker_resources=Resources(cpu=1, memory="2Gi"),
        max_active_tis_per_dagrun=2,
    ).expand(application_args=arguments())

    @task
    def best(trained: list[dict], params: dict) -> dict:
        """The learning rate whose network tells most digits right, or loses least where several do; and its metrics."""
        tried = zip(params["learning_rates"], trained, strict=True)
        rate, metrics = max(tried, key=lambda one: (one[1]["accuracy"], -one[1]["losses"][-1]))
        return {"learning_rate": rate, **metrics}

    best(train.output)
