"""### A cluster for each airport

Dynamic task mapping: `expand` makes one task, and so one cluster, for each airport that the first task found; Airflow
runs as many at a time as the DAG allows. The last task sums up what they returned.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.spec import Resources

with DAG(
    "practicus_mapped",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "dask"],
    params={
        "airports": Param(
            ["EWR", "JFK", "LGA"],
            type="array",
            items={"type": "string"},
            examples=["EWR", "JFK", "LGA"],
            minItems=1,
            title="Airports of departure",
        )
    },
):

    @task
    def arguments(params: dict) -> list[list[str]]:
        """The arguments of each cluster's job."""
        from data import make_data

        folder = str(make_data())
        return [["--data", folder, "--origin", airport] for airport in params["airports"]]

    count = PracticusDaskOperator.partial(
        task_id="count",
        application="jobs/delays.py",
        workers=1,
        worker_resources=Resources(cpu=1, memory="1Gi"),
        max_active_tis_per_dagrun=2,
    ).expand(application_args=arguments())

    @task
    def total(results: list[dict]) -> dict[str, int]:
        """Flights of each carrier from all the airports."""
        carriers = sorted({carrier for result in results for carrier in result["flights"]})
        return {carrier: sum(result["flights"].get(carrier, 0) for result in results) for carrier in carriers}

    total(count.output)
