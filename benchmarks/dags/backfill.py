"""The DAG of :mod:`benchmarks.backfill`: each day's task is mapped, and which of its jobs fail is told by the date."""

import os
from datetime import UTC, datetime

from airflow.sdk import DAG

from practicus_provider.operators.job import PracticusRunJobOperator

CODE = "{{ 3 if (logical_date.day + ti.map_index) % 3 == 0 else 0 }}"
FIRST, LAST = datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 12, 31, tzinfo=UTC)

with DAG("backfill", schedule="@daily", start_date=FIRST, end_date=LAST, catchup=False, max_active_tasks=64):
    PracticusRunJobOperator.partial(
        task_id="job",
        adapter="single.SingleAdapter",
        application="exits.py",
        application_args=[CODE],
        # of simulated pods, which run no application
        pod_overrides={
            "metadata": {"annotations": {"practicus.test/runs-for": "5s", "practicus.test/exit-code": CODE}}
        },
        deferrable=True,
        stream_logs="none",
    ).expand(env=[{"PART": str(part)} for part in range(int(os.environ["BACKFILL_MAPPED"]))])
