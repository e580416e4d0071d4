"""What OpenLineage's own provider sends of tasks that really ran, by its file transport."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.airflow_home import LOCAL, settings
from tests.e2e.commands import commands

DAG = """
from airflow.sdk import DAG
from practicus_provider.operators.torch import PracticusTorchOperator

with DAG("lineage", schedule=None):
    for name in ("good", "bad"):
        PracticusTorchOperator(task_id=name, application=f"{name}.py")
"""
PRICED = {**LOCAL, "pricing": {"currency": "USD", "cpu_hour": 36}}


@pytest.fixture
def events(tmp_path: Path) -> list[dict[str, Any]]:
    """Those of one run."""
    for name, text in {"dag.py": DAG, "good.py": "print('good')", "bad.py": "raise SystemExit(3)"}.items():
        (tmp_path / "dags").mkdir(exist_ok=True)
        (tmp_path / "dags" / name).write_text(text)
    sent = tmp_path / "events"
    transport = {"type": "file", "log_file_path": str(sent), "append": True}
    env = settings(tmp_path, tmp_path / "dags", PRICED) | {"AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(transport)}
    with commands(env, tmp_path) as airflow:
        for command in (("db", "migrate"), ("dags", "test", "lineage")):
            _, output = airflow(*command)
    assert sent.exists(), output[-8000:]
    return [json.loads(line) for line in sent.read_text().splitlines()]


def test_the_event_of_a_tasks_end_has_its_jobs_verdict_times_and_cost(events: list[dict[str, Any]]) -> None:
    ends = {event["job"]["name"]: event for event in events if event["eventType"] in ("COMPLETE", "FAIL")}
    facets = {name: event["run"]["facets"].get("practicus") for name, event in ends.items()}
    good, bad = facets["lineage.good"], facets["lineage.bad"]
    assert [ends[f"lineage.{name}"]["eventType"] for name in ("good", "bad")] == ["COMPLETE", "FAIL"]
    assert (good["adapter"], good["state"], good["reason"]) == ("torch", "succeeded", "Completed")
    assert (bad["adapter"], bad["state"], bad["reason"]) == ("torch", "failed", "Error")
    assert bad["message"] == "rank 0 (worker-0) exited with code 3"
    for name, facet in (("good", good), ("bad", bad)):
        assert facet["cluster"].startswith(f"c-lineage-{name}-")
        assert set(facet["seconds"]) == {"pending", "run", "teardown"}
        assert (facet["cost"]["currency"], list(facet["cost"]["seconds"])) == ("USD", ["worker"])
