"""The benchmark of trainings runs. Its figures are nobody's business here."""

from __future__ import annotations

from typing import Any

import pytest

from tests.benchmarks import measured


def trained(backend: str) -> dict[str, Any]:
    """What it is that was measured -> its row, of the smallest run."""
    tiny = ("--runs", "1", "--steps", "1", "--frameworks", "torch", "--backends", backend)
    _, rows = measured("benchmarks.training", *tiny)
    assert all(row["ratio"] > 0 for row in rows.values())
    return rows


def test_a_training_is_measured_beside_the_bare_launcher(python: str) -> None:
    rows = trained("local")
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
    [row] = trained("kubernetes").values()
    assert row["measure"] == "submit -> all ranks have met, torch, kubernetes"
    assert row["samples"].keys() == {"ours", "raw", "kubectl, our manifests"}
