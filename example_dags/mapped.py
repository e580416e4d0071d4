"""### A cluster for each airport

Dynamic task mapping of a function: `expand` makes one task, and so one cluster, for each airport; Airflow runs as many
at a time as the DAG allows. Only the function's source travels, so it imports what it uses. The last task sums up what
they returned.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

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
    def prepare() -> str:
        """The folder with the flights; made once."""
        from data import make_data

        return str(make_data())

    @task
    def airports(params: dict) -> list[str]:
        """Each has a cluster."""
        return params["airports"]

    @task.practicus(
        adapter="dask",
        worker_resources=Resources(cpu=1, memory="1Gi"),
        max_active_tis_per_dagrun=2,
        multiple_outputs=False,
    )
    def count(folder: str, origin: str) -> dict[str, int]:
        """Flights of each carrier from an airport."""
        import dask.dataframe as dd
        import practicus_runtime as pr

        pr.get_client()
        flights = dd.read_parquet(f"{folder}/flights", filters=[("origin", "==", origin)])
        by_carrier = flights.groupby("carrier")["flight"].count().compute()
        pr.progress(1, f"{by_carrier.sum():,} flights from {origin}")
        return {carrier: int(flights) for carrier, flights in by_carrier.items()}

    @task
    def total(counts: list[dict]) -> dict[str, int]:
        """Flights of each carrier from all the airports."""
        carriers = sorted({carrier for count in counts for carrier in count})
        return {carrier: sum(count.get(carrier, 0) for count in counts) for carrier in carriers}

    total(count.partial(folder=prepare()).expand(origin=airports()))
