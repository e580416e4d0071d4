"""Elastic clusters of the real frameworks: workers come with the load and go after it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from practicus_provider import lifecycle
from practicus_provider.adapters import make_plan
from practicus_provider.backends.base import Backend, Handle
from practicus_provider.backends.local import LocalBackend
from practicus_provider.lifecycle import Policy
from practicus_provider.plan import Here
from practicus_provider.spec import Elastic, JobSpec, Resources
from practicus_provider.status import State
from tests.plans import created

BOUNDS = Elastic(1, 3)
WAITING = """
import os, pathlib, sys, time
import practicus_runtime

NOTES = sys.argv[1]

def until(what, met):
    give_up = time.monotonic() + 150
    while not (value := met()):
        if time.monotonic() > give_up:
            raise TimeoutError(f"not in time: {what}")
        time.sleep(0.05)
    print("seen:", what, flush=True)
    return value

def hold(number):
    notes = pathlib.Path(NOTES)
    (notes / f"{number}-{os.getpid()}-{time.monotonic_ns()}").touch()
    until("the load may end", (notes / "go").exists)
    return number * number

def at_work():
    return {name.split("-")[1] for name in os.listdir(NOTES) if "-" in name}
"""
SPARK = """
from concurrent.futures import ThreadPoolExecutor

context = practicus_runtime.get_client().sparkContext
counts = []

def executors():
    counts.append(len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1)  # the driver is one of them
    return counts[-1]

until("one executor", lambda: executors() == 1)
with ThreadPoolExecutor() as pool:
    load = pool.submit(context.parallelize(range(3), 3).map(hold).collect)
    until("three tasks at once", lambda: len(at_work()) == 3)
    until("three executors", lambda: executors() == 3)
    pathlib.Path(NOTES, "go").touch()
    squares = load.result()
until("one executor again", lambda: executors() == 1)
total = context.parallelize(range(10), 5).sum()
practicus_runtime.set_result({"most": max(counts), "left": executors(), "squares": squares, "total": total})
"""
DASK = """
import distributed

client = practicus_runtime.get_client()
client.wait_for_workers(1, timeout=150)
before = len(client.nthreads())
futures = client.map(hold, range(60))
until("three workers at work", lambda: len(at_work()) == 3)
under_load = len(client.nthreads())
pathlib.Path(NOTES, "go").touch()
distributed.wait(futures)
until("one worker", lambda: len(client.nthreads()) == 1)
until("the others' processes have ended", pathlib.Path(NOTES, "gone").exists)
squares = sum(client.gather(futures))
ran = len([name for name in os.listdir(NOTES) if "-" in name])
practicus_runtime.set_result({"before": before, "under_load": under_load, "squares": squares, "ran": ran})
"""


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "root")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A folder in which a job, its tasks and its test leave notes for each other."""
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


async def workers(backend: Backend, handle: Handle, notes: Path) -> list[list[State]]:
    """The workers' states, whenever one changes until the job ends; says in the notes when all but one are gone."""
    seen: list[list[State]] = []
    async for status in backend.watch(handle):
        seen.append([replica.state for replica in status.replicas if replica.role == "worker"])
        if len(seen[-1]) == 1 and max(map(len, seen)) == BOUNDS.max:
            (notes / "gone").touch()
    return seen


async def run(backend: Backend, spec: JobSpec, script: str, notes: Path) -> tuple[Any, list[list[State]]]:
    """The job's result, and what its workers did."""
    program = (Here.PYTHON, (Here.APP, "/job.py"), str(notes))
    plan = make_plan(spec, program, {"job.py": (WAITING + script).encode()})
    async with created(backend, "job", plan) as handle:
        watching = asyncio.create_task(workers(backend, handle, notes))
        outcome = await lifecycle.follow(backend, handle, Policy.of(spec, plan), print)
        return outcome.value(), await watching


async def test_spark_executors_come_with_the_load_and_go_after_it(backend: LocalBackend, notes: Path) -> None:
    spec = JobSpec.of(
        adapter="spark",
        workers=BOUNDS,
        worker_resources=Resources(memory="720Mi"),
        conf={"spark.dynamicAllocation.executorIdleTimeout": "2s"},
        timeout=400,
    )
    result, states = await run(backend, spec, SPARK, notes)
    assert result == {"most": 3, "left": 1, "squares": [0, 1, 4], "total": 45}
    assert states[-1] == [State.RUNNING] * 3


async def test_dask_workers_come_with_the_load_and_go_after_it_and_no_result_is_lost(
    backend: LocalBackend, notes: Path
) -> None:
    spec = JobSpec.of(adapter="dask", workers=BOUNDS, worker_resources=Resources(memory="1Gi"), timeout=400)
    result, states = await run(backend, spec, DASK, notes)
    assert result == {"before": 1, "under_load": 3, "squares": sum(i * i for i in range(60)), "ran": 60}
    assert max(map(len, states)) == 3
    assert states[-1] == [State.RUNNING]
    assert State.FAILED not in {state for each in states for state in each}
