"""### One cluster for several tasks

Starting a cluster takes longer than these questions do, so they share one. It is deleted after the last of them, also
after a failure: the group's first and last tasks are Airflow's setup and teardown. The second question is a function.
The third is submitted and not waited for: a sensor does that later, while other tasks could go on.
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.cluster import PracticusSubmitJobOperator, practicus_cluster
from practicus_provider.sensors.job import PracticusJobSensor
from practicus_provider.spec import Resources

with DAG(
    "practicus_shared_cluster",
    schedule=None,
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    doc_md=__doc__,
    tags=["practicus", "dask"],
    params={"month": Param(7, type="integer", minimum=1, maximum=12, title="Month of 2013")},
):

    @task
    def prepare() -> str:
        """The folder with the flights; made once."""
        from data import make_data

        return str(make_data())

    folder = prepare()

    with practicus_cluster(
        "flights", adapter="dask", workers=2, worker_resources=Resources(cpu=1, memory="1Gi")
    ) as cluster:
        folder >> cluster

        def ask(by: str, **options) -> PracticusSubmitJobOperator:
            return PracticusSubmitJobOperator(
                task_id=f"by_{by}",
                cluster=cluster,
                application="jobs/delays.py",
                application_args=["--data", folder, "--by", by, "--month", "{{ params.month }}"],
                **options,
            )

        @task.practicus(cluster=cluster)
        def by_carrier(folder: str, month: str):
            """Of each carrier what the other questions ask of each origin and each hour."""
            import json

            import dask.dataframe as dd
            import practicus_runtime

            practicus_runtime.get_client()
            flights = dd.read_parquet(f"{folder}/flights", filters=[("month", "==", int(month))])
            by = flights.groupby("carrier").agg({"flight": "count", "dep_delay": "mean"}).compute()
            delays = by["dep_delay"].round(3)
            return {"flights": json.loads(by["flight"].to_json()), "mean_delay": json.loads(delays.to_json())}

        ask("origin")
        by_carrier(folder, "{{ params.month }}")
        by_hour = ask("hour", wait_for_completion=False)
        PracticusJobSensor(task_id="by_hour_done", job=by_hour.output, deferrable=True)
