"""Every framework trains on this machine, over several replicas and processes, as one process on all data would."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.application import ship
from practicus_provider.backends.base import Handle
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.processes import CLUSTER_MARK, marked
from practicus_provider.plan import Plan
from practicus_provider.spec import JobSpec
from practicus_provider.status import Reason, State, Status
from tests.plans import TASK, created

JOBS = Path(__file__).parent / "jobs"
PATIENCE = 300
"""Seconds that a training may take: most of them are imports."""
SOON = 5.0
"""Seconds in which a job ends, everywhere, once a rank of it has failed."""
TWO_RANKS = {0: "0.1913", 1: "0.3002"}
"""The last losses of two ranks: those of one process that trains on the mean of both losses."""
ZERO = {"train_micro_batch_size_per_gpu": 8, "gradient_clipping": 0.0, "zero_allow_untested_optimizer": True}


@pytest.fixture
def backend(tmp_path: Path, python: str) -> LocalBackend:
    return LocalBackend(tmp_path / "root", python=python)


def training(adapter: str, script: str, *args: str, **more: Any) -> Plan:
    spec = JobSpec(adapter=adapter, application=script, application_args=args, files=("model.py",), **more)
    shipment = ship(script, args, spec.files, JOBS)
    return make_plan(spec, shipment.program, shipment.files)


async def end(backend: LocalBackend, handle: Handle) -> Status:
    async with asyncio.timeout(PATIENCE):
        async for status in backend.watch(handle):
            if status.state.final:
                return status
    raise AssertionError("the watch ended before")


def logs(backend: LocalBackend, handle: Handle) -> str:
    return "".join(path.read_text() for path in sorted(backend.log_folder(handle).glob("worker-*.log")))


async def losses(backend: LocalBackend, plan: Plan, name: str = "job") -> dict[int, str]:
    """The last loss of each rank of a training that went well."""
    async with created(backend, name, plan) as handle:
        status = await end(backend, handle)
        assert status.state is State.SUCCEEDED, status.verdict
        said = re.findall(r"rank (\d+) lost ([\d.]+)$", logs(backend, handle), re.MULTILINE)
    return {int(rank): loss for rank, loss in said}


@pytest.mark.parametrize(("workers", "procs"), [(2, 1), (1, 2)])
@pytest.mark.parametrize(
    ("adapter", "script", "args", "conf"),
    [
        ("torch", "torch_ddp.py", (), {}),
        *(("deepspeed", "deepspeed_zero.py", (), ZERO | {"zero_optimization": {"stage": stage}}) for stage in range(4)),
        *(("fairscale", "fairscale_any.py", (way,), {}) for way in ("oss", "shardedddp", "fsdp")),
        ("horovod", "horovod_torch.py", (), {}),
    ],
    ids=["torch", *(f"zero{stage}" for stage in range(4)), "oss", "shardedddp", "fsdp", "horovod"],
)
async def test_two_ranks_lose_what_one_process_on_all_data_would(
    backend: LocalBackend, adapter: str, script: str, args: tuple[str, ...], conf: Any, workers: int, procs: int
) -> None:
    plan = training(adapter, script, *args, conf=conf, workers=workers, procs_per_worker=procs)
    assert await losses(backend, plan) == TWO_RANKS


@pytest.mark.parametrize("adapter", ["torch", "horovod"])
async def test_ranks_over_workers_of_several_processes_each_find_each_other(
    backend: LocalBackend, adapter: str
) -> None:
    script = {"torch": "torch_ddp.py", "horovod": "horovod_torch.py"}[adapter]
    assert (await losses(backend, training(adapter, script, workers=2, procs_per_worker=2))).keys() == {0, 1, 2, 3}


async def test_a_pipe_is_one_process(backend: LocalBackend) -> None:
    assert (await losses(backend, training("fairscale", "fairscale_any.py", "pipe"))).keys() == {0}


async def test_the_client_is_the_process_group(backend: LocalBackend) -> None:
    async with created(backend, "job", training("torch", "torch_client.py", workers=2)) as handle:
        assert (await end(backend, handle)).result == '{"sum": 3.0, "ranks": 2}'


async def test_two_trainings_at_once_do_not_mix(backend: LocalBackend) -> None:
    plan = training("torch", "torch_ddp.py", workers=2)
    assert await asyncio.gather(*(losses(backend, plan, name) for name in ("a", "b"))) == [TWO_RANKS, TWO_RANKS]


async def test_a_rank_that_raises_is_named_with_its_own_last_lines(backend: LocalBackend) -> None:
    async with created(backend, "job", training("torch", "torch_ddp.py", "raise", "1", workers=2)) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert (verdict.message, verdict.log_tail[-1]) == (
        "rank 1 (worker-1) exited with code 1",
        "ValueError: no such data",
    )


async def test_a_killed_rank_ends_the_whole_job_at_once_and_is_named(backend: LocalBackend) -> None:
    handle = await backend.create("job", training("torch", "torch_ddp.py", "wait", workers=2), task=TASK)
    async with asyncio.timeout(PATIENCE):
        while len(pids := re.findall(r"^waits (\d+)$", logs(backend, handle), re.MULTILINE)) < 2:
            await asyncio.sleep(0.1)
    os.kill(int(pids[1]), signal.SIGKILL)
    began = time.monotonic()
    verdict = (await end(backend, handle)).verdict
    await backend.delete(handle)
    assert time.monotonic() - began < SOON
    assert marked(CLUSTER_MARK, handle.uid) == []
    assert verdict is not None
    assert (verdict.reason, verdict.message) == (Reason.KILLED, "rank 1 (worker-1) was killed by SIGKILL")
