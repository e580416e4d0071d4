"""DAGs whose tasks wait until the test lets them go; ``params.folder`` is where they meet."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Asset, Context, task

from practicus_provider.operators.cluster import (
    PracticusCreateClusterOperator,
    PracticusDeleteClusterOperator,
    PracticusSubmitJobOperator,
)
from practicus_provider.operators.job import PracticusRunJobOperator

COMMON = {"adapter": "single.SingleAdapter", "application": "wait.py", "application_args": ["{{ params.folder }}"]}


@task
def echo(value: object) -> object:
    return value


def tell(context: Context) -> None:
    error = context.get("exception")
    Path(context["params"]["folder"], "told").write_text(f"{type(error).__name__}: {error}")


for name, deferrable, retries in (("deferred", True, 0), ("last_try", False, 0), ("retried", False, 1)):
    with DAG(f"wait_{name}", params={"folder": "/nowhere"}):
        job = PracticusRunJobOperator(
            task_id="job", deferrable=deferrable, retries=retries, retry_delay=timedelta(seconds=1), **COMMON
        )
        echo(job.output)

with DAG("wait_told", params={"folder": "/nowhere"}):
    PracticusRunJobOperator(
        task_id="job", deferrable=True, on_success_callback=tell, on_failure_callback=tell, **COMMON
    )

DAYS = {"start_date": datetime(2013, 1, 1, tzinfo=UTC), "end_date": datetime(2013, 12, 31, tzinfo=UTC)}
with DAG("daily", schedule="@daily", catchup=False, **DAYS):
    PracticusRunJobOperator(
        task_id="job",
        adapter="single.SingleAdapter",
        application="day.py",
        application_args=["{{ ds }}"],
        deferrable=True,
    )

with DAG("consumed", params={"folder": "/nowhere"}):
    job = PracticusRunJobOperator(task_id="job", deferrable=True, outlets=[Asset("starts")], **COMMON)
    echo.override(task_id="consume").expand(value=job.output)

with DAG("shared", params={"folder": "/nowhere"}):
    create = PracticusCreateClusterOperator(task_id="create", adapter="dask", deferrable=True)
    submit = PracticusSubmitJobOperator(
        task_id="job",
        cluster=create.output,
        application="wait.py",
        application_args=["{{ params.folder }}"],
        deferrable=True,
    )
    delete = PracticusDeleteClusterOperator(task_id="delete", cluster=create.output)
    create >> submit >> delete.as_teardown(setups=create)
