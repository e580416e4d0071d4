"""The benchmark of trainings runs. Its figures are nobody's business here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.cluster.layout import REPOSITORY


def measured(backend: str) -> dict[str, Any]:
    """What it is that was measured -> its row, of the smallest run."""
    tiny = ("--runs", "1", "--steps", "1", "--frameworks", "torch", "--backends", backend)
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    command = [sys.executable, "-m", "benchmarks.training", "--json", *tiny]
    done = subprocess.run(command, cwd=REPOSITORY, env=env, check=True, stdout=subprocess.PIPE, text=True)
    rows = {row["measure"]: row for row in json.loads(done.stdout)["measures"]}
    assert all(row["ratio"] > 0 for row in rows.values())
    return rows


def test_a_training_is_measured_beside_the_bare_launcher(python: str) -> None:
    rows = measured("local")
    assert {measure: row["bar"] is not None for measure, row in rows.items()} == {
        "script's first line -> its last, torch, local": True,
        "processor time of rank 0, torch, local": False,
        "submit -> its end is known, torch, local": False,
        "submit -> all ranks have met, torch, local": True,
    }
    assert all(row["samples"].keys() == {"ours", "raw"} for row in rows.values())


@pytest.mark.cluster
@pytest.mark.usefixtures("kubernetes")
def test_a_training_s_start_is_measured_beside_manifests_that_are_written_by_hand() -> None:
    [row] = measured("kubernetes").values()
    assert row["measure"] == "submit -> all ranks have met, torch, kubernetes"
    assert row["samples"].keys() == {"ours", "raw", "kubectl, our manifests"}
