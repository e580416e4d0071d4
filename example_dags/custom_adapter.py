"""### A framework of your own

`mapreduce.py`, beside this file, teaches the provider a new framework in one small class. Everything else is there
at once: the connection, logs, verdicts, deferral, teardown, results.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.job import PracticusRunJobOperator
from practicus_provider.spec import Resources

with DAG(
    "practicus_custom_adapter",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "adapter"],
    params={"workers": Param(2, type="integer", minimum=1, maximum=12, title="Workers")},
):

    @task
    def prepare() -> str:
        """The folder with the flights; made once."""
        from data import make_data

        return str(make_data())

    routes = PracticusRunJobOperator(
        task_id="routes",
        adapter="mapreduce.MapReduceAdapter",
        application="jobs/routes.py",
        application_args=[prepare()],
        workers="{{ params.workers }}",
        worker_resources=Resources(cpu=1, memory="512Mi"),
    )

    @task
    def busiest(routes: dict[str, int]) -> list[str]:
        """The five busiest routes."""
        return sorted(routes, key=routes.get, reverse=True)[:5]

    busiest(routes.output)
