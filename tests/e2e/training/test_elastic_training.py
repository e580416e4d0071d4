"""Trainings go on when a worker is lost, and with the one that takes its place."""

from __future__ import annotations

import asyncio
import contextlib
import re
from pathlib import Path

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.application import ship
from practicus_provider.backends.base import Backend, Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.local.processes import kill_marked
from practicus_provider.plan import Plan
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import Elastic, JobSpec
from practicus_provider.status import State, Status
from tests.plans import created

JOBS = Path(__file__).parent / "jobs"
PATIENCE = 300
"""Seconds that a training may take: most of them are imports."""
LAST_CALL = {"torch": PATIENCE, "horovod": 0}
"""Seconds that a round waits for those who may still come. torch's wait, since each costs all an import; Horovod's do
not, and go on without the one that is lost."""


def training(framework: str) -> Plan:
    script = f"{framework}_elastic.py"
    conf = {"last_call_timeout": LAST_CALL[framework]}
    spec = JobSpec.of(adapter=framework, application=script, files=("model.py",), workers=Elastic(1, 2), conf=conf)
    shipment = ship(script, (), spec.files, JOBS)
    return make_plan(spec, shipment.program, shipment.files)


async def training_together(backend: Backend, handle: Handle) -> None:
    """Wait until both workers train, and both have kept an epoch."""
    log = []
    async with contextlib.aclosing(backend.logs(handle, ("coordinator",), whole=True)) as lines:
        async for line in lines:
            log.append(line.text)
            if found(r"rank 0 of 2 begins at (\d+)", log) and found("epoch ([2-9]|1.)", log):
                return
    raise AssertionError("\n".join(["the log ended before:", *log]))


async def lose(backend: Backend, handle: Handle, request: pytest.FixtureRequest) -> None:
    """The worker that has rank 0, without a word."""
    if isinstance(backend, KubernetesBackend):
        selector = f"practicus.ai/cluster={handle.name},practicus.ai/role=worker"
        selector += ",batch.kubernetes.io/job-completion-index=0"
        delete = ("delete", "pod", "-n", backend.site.namespace, "-l", selector, "--grace-period=0", "--force")
        await asyncio.to_thread(request.getfixturevalue("kubectl"), *delete)
    else:
        kill_marked(Env.REPLICA, f"{handle.uid}/worker-0")


async def end(backend: Backend, handle: Handle) -> Status:
    async for status in backend.watch(handle):
        if status.state.final:
            return status
    raise AssertionError("the watch ended before")


@pytest.mark.parametrize("framework", LAST_CALL)
async def test_a_lost_worker_is_replaced_and_no_epoch_is_lost(
    backend: Backend, framework: str, request: pytest.FixtureRequest
) -> None:
    async with asyncio.timeout(PATIENCE), created(backend, "job", training(framework)) as handle:
        await training_together(backend, handle)
        await lose(backend, handle, request)
        status = await end(backend, handle)
        log = [line.text async for line in backend.logs(handle, ("coordinator",), whole=True)]
    assert (status.state, status.result) == (State.SUCCEEDED, '{"epochs": 12, "ranks": 2}'), (status.verdict, log)
    assert found(r"round \d+: (.*)", log)[-1] == "worker-1 worker-2"
    resumed = int(found(r"rank 0 of 2 begins at (\d+)", log)[-1])
    epochs = list(map(int, found(r"epoch (\d+)", log)))
    assert resumed > 0
    assert epochs[resumed - 12 :] == list(range(resumed + 1, 13))


def found(pattern: str, log: list[str]) -> list[str]:
    return [match[1] for line in log if (match := re.fullmatch(pattern, line))]
