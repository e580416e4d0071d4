"""When a Dask cluster whose workers have paused is given up."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from practicus_runtime.dask_scheduler import PATIENCE, SAY, Pauses, stuck, why


def looks(*at: tuple[float, bool]) -> list[str]:
    """What is to be done at each of these times, given whether the cluster is stuck then."""
    pauses = Pauses()
    return [pauses.look(stuck, seconds) for seconds, stuck in at]


def test_a_cluster_that_is_stuck_is_said_once_and_given_up_in_the_end():
    times = [0, SAY - 1, SAY, SAY + 1, PATIENCE - 1, PATIENCE]
    assert looks(*((7 + seconds, True) for seconds in times)) == ["", "", "say", "", "", "end"]


def test_a_cluster_that_goes_on_in_between_is_not_given_up_and_is_said_anew():
    found = looks((0, True), (SAY, True), (SAY + 1, False), (PATIENCE, True), (PATIENCE + SAY, True))
    assert found == ["", "say", "", "", "say"]


def worker(status: str = "paused", *, executing: int = 0, processing: int = 0, used: int = 900) -> Any:
    memory = SimpleNamespace(process=used << 20)
    names = {"name": "worker-0", "memory": memory, "memory_limit": 1 << 30, "status": SimpleNamespace(name=status)}
    return SimpleNamespace(**names, executing=range(executing), processing=range(processing))


def scheduler(*workers: Any, queued: int = 0, unrunnable: int = 0) -> Any:
    return SimpleNamespace(workers=dict(enumerate(workers)), queued=range(queued), unrunnable=range(unrunnable))


@pytest.mark.parametrize(
    ("state", "is_stuck"),
    [
        (scheduler(worker(processing=1), worker()), True),
        (scheduler(worker(), worker(), queued=1), True),
        (scheduler(worker(), unrunnable=1), True),
        (scheduler(worker(), worker()), False),
        (scheduler(worker(processing=1), worker("running")), False),
        (scheduler(worker(processing=2, executing=1), worker()), False),
        (scheduler(unrunnable=1), False),
    ],
)
def test_a_cluster_is_stuck_if_there_is_work_and_every_worker_has_paused_and_none_is_at_work(state, is_stuck):
    assert stuck(state) is is_stuck


def test_what_is_said_names_the_memory_of_each_worker_and_the_ways_out():
    assert why(scheduler(worker(), worker(used=1000))) == (
        "all 2 workers have paused, as each uses most of its memory (worker-0: 900 of 1024 MiB; worker-0: 1000 of 1024 "
        "MiB), and begin no further task. Raise worker_resources=Resources(memory=...), make partitions smaller, or "
        "let go of results"
    )
