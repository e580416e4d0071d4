"""### FairScale: an optimizer in shards

Two workers train one network on scikit-learn's digits. FairScale's OSS gives each rank the optimizer's state of some of
the parameters, and ShardedDataParallel sends each gradient to the rank that has it, so what a rank keeps shrinks with
their number. Each epoch's loss is in the task's log; the metrics are the task's XCom. The workers' Python needs
FairScale and scikit-learn.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.fairscale import PracticusFairScaleOperator
from practicus_provider.spec import Resources

with DAG(
    "practicus_training_fairscale",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "fairscale", "machine-learning"],
    params={
        "epochs": Param(8, type="integer", minimum=1, maximum=1000, title="Epochs"),
        "learning_rate": Param(0.01, type="number", exclusiveMinimum=0, maximum=1, title="Learning rate"),
    },
):
    train = PracticusFairScaleOperator(
        task_id="train",
        application="jobs/sharded_digits.py",
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
