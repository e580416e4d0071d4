"""### Training over several processes: handwritten digits

Two workers train one network on scikit-learn's digits by PyTorch's DistributedDataParallel, then test it together. Each
epoch's loss is in the task's log; the metrics are the task's XCom. The workers' Python needs PyTorch and scikit-learn:
with the local backend, that of the connection's extra `python`.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.torch import PracticusTorchOperator
from practicus_provider.spec import Resources

with DAG(
    "practicus_training_digits",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "torch", "machine-learning"],
    params={
        "epochs": Param(8, type="integer", minimum=1, maximum=1000, title="Epochs"),
        "learning_rate": Param(0.01, type="number", exclusiveMinimum=0, maximum=1, title="Learning rate"),
    },
):
    train = PracticusTorchOperator(
        task_id="train",
        application="jobs/digits.py",
        application_args=["--epochs", "{{ params.epochs }}", "--learning-rate", "{{ params.learning_rate }}"],
        workers=2,
        worker_resources=Resources(cpu=1, memory="2Gi"),
    )

    @task
    def judge(metrics: dict) -> str:
        """Fail unless most digits are told right."""
        if metrics["accuracy"] < 0.9:
            raise ValueError(f"the network tells too few digits: {metrics}")
        return f"{metrics['accuracy']:.1%} of {metrics['tested']} digits, by {metrics['ranks']} ranks"

    judge(train.output)
