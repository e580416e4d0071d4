"""### Spark: what happened on one day

A Spark cluster for each day: reads that day's flights, joins the airlines' names, writes a summary as Parquet and
returns it. While the cluster works, the task is deferred and holds no worker slot.

- Start it from the UI: the form lets you choose the day, the airport, what counts as late, and how many workers.
- Run it over many days: `airflow backfill create --dag-id practicus_spark_etl --from-date 2013-01-01
  --to-date 2013-01-05`
"""

from __future__ import annotations

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, task

from practicus_provider.operators.spark import PracticusSparkOperator
from practicus_provider.spec import Resources

DAY = "{{ params.day if dag_run.run_type == 'manual' else ds }}"

with DAG(
    "practicus_spark_etl",
    schedule="@daily",
    start_date=datetime(2013, 1, 1, tzinfo=UTC),
    end_date=datetime(2013, 12, 31, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    doc_md=__doc__,
    tags=["practicus", "spark"],
    params={
        "day": Param("2013-01-01", type="string", format="date", title="Day (a backfill's runs have their own)"),
        "origin": Param("all", type="string", enum=["all", "EWR", "JFK", "LGA"], title="Airport of departure"),
        "late": Param(15, type="integer", minimum=0, title="Late from this many minutes on"),
        "workers": Param(1, type="integer", minimum=1, maximum=16, title="Workers"),
    },
):

    @task
    def prepare() -> str:
        """The folder with the flights; made once."""
        from data import make_data

        return str(make_data())

    folder = prepare()
    etl = PracticusSparkOperator(
        task_id="etl",
        application="jobs/etl.py",
        application_args=[
            *("--data", folder),
            *("--date", DAY),
            *("--origin", "{{ params.origin }}"),
            *("--late", "{{ params.late }}"),
        ],
        workers="{{ params.workers }}",
        worker_resources=Resources(cpu=1, memory="1Gi"),
        conf={"spark.sql.shuffle.partitions": "2"},
        deferrable=True,
    )

    @task
    def check(summary: dict) -> int:
        """A day without flights is a mistake in the data."""
        if not summary["carriers"]:
            raise ValueError(f"no flights on {summary['date']}")
        return sum(carrier["flights"] for carrier in summary["carriers"])

    check(etl.output)
