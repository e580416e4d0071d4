"""### Elastic Horovod: workers may come and go

One or two workers train one network on scikit-learn's digits. A worker that is lost is replaced, and meanwhile the
other one goes on from the last commit, an epoch ago at most; so this can run on machines that may be taken away. All
ranks together always learn from the same digits at a time, so the losses are the same whoever comes and goes. The
metrics are the task's XCom, and say how many ranks each epoch had. The workers' Python needs Horovod and scikit-learn.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.horovod import PracticusHorovodOperator
from practicus_provider.spec import Elastic, Resources

with DAG(
    "practicus_training_elastic",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "horovod", "machine-learning"],
    params={
        "epochs": Param(8, type="integer", minimum=1, maximum=1000, title="Epochs"),
        "learning_rate": Param(0.1, type="number", exclusiveMinimum=0, maximum=1, title="Learning rate"),
    },
):
    train = PracticusHorovodOperator(
        task_id="train",
        application="jobs/elastic_digits.py",
        application_args=["--epochs", "{{ params.epochs }}", "--learning-rate", "{{ params.learning_rate }}"],
        workers=Elastic(min=1, max=2),
        worker_resources=Resources(cpu=1, memory="2Gi"),
    )

    @task
    def judge(metrics: dict) -> str:
        """Fail unless most digits are told right."""
        if metrics["accuracy"] < 0.9:
            raise ValueError(f"the network tells too few digits: {metrics}")
        return f"{metrics['accuracy']:.1%} of {metrics['tested']} digits, by {max(metrics['ranks'])} ranks at most"

    judge(train.output)
