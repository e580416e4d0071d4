"""The example DAGs that train, by ``airflow dags test`` on this machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.test_example_dags import by_dags_test


def test_digits_are_told_by_a_network_that_two_workers_have_trained(tmp_path: Path, python: str) -> None:
    with by_dags_test(tmp_path, {"backend": "local", "python": python}) as run:
        done = run("practicus_training_digits", epochs=5)
    assert done.state == "success", done.output
    metrics = done.result("train")
    losses = metrics["losses"]
    assert (metrics["ranks"], metrics["tested"], len(losses)) == (2, 360, 5)
    assert losses == sorted(losses, reverse=True)
    assert metrics["accuracy"] == pytest.approx(0.95, abs=0.05)
    said = re.findall(r"\[progress +(\d+)%\] epoch (\d): loss ([\d.]+)", done.output)
    assert said == [(str(20 * n), str(n), str(loss)) for n, loss in enumerate(losses, start=1)]
