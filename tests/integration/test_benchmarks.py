"""The benchmark of Kubernetes runs. Its figures are nobody's business here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks import measured

pytestmark = pytest.mark.cluster
TIMED = {"ours", "raw", "KubernetesPodOperator", "KubernetesJobOperator"}


def test_it_measures_ours_beside_the_others_and_leaves_nothing(
    kubernetes: Path, kubectl: Callable[..., str], image: Callable[[str], str]
) -> None:
    image("python")
    tiny = ("--runs", "1", "--pods", "1", "--tasks", "2", "--seconds", "1")
    report, rows = measured("benchmarks.kubernetes", *tiny)
    assert list(rows) == [
        "submit -> user code runs, 1 pod",
        "delete -> nothing left, 1 pod",
        "user code's end -> the trigger's event, 1 pod",
        "user code's end -> the trigger's event, 1 pod, over who foresaw it",
        "API requests of 2 tasks that wait, in 1 s",
        "processor time of a triggerer with 2 tasks that wait",
        "memory of a triggerer with 2 tasks that wait",
    ]
    submit, delete, end, over_floor, *_ = rows.values()
    assert submit["samples"].keys() == TIMED | {"Python client"}
    assert delete["samples"].keys() == {"ours", "raw", "Python client"}
    assert end["samples"].keys() == TIMED | {"foreseen", "ours, no log streamed", "raw, the Job's condition"}
    assert over_floor["samples"] == {"ours": end["samples"]["ours"], "raw": end["samples"]["foreseen"]}
    assert all(isinstance(row["met"], bool) and row["ratio"] > 0 for row in (submit, delete, end))
    assert over_floor["met"] is None
    assert over_floor["ratio"] > 0
    left = kubectl(
        "get", "namespace", report["where"]["namespace"], "--ignore-not-found", "-o=jsonpath={.status.phase}"
    )
    assert left in ("", "Terminating")
