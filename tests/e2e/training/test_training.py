"""Every framework trains, over several replicas and processes, as one process on all data would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.application import ship
from practicus_provider.backends.base import Backend, Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.processes import marked
from practicus_provider.plan import Plan
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import JobSpec, WorkerGroup
from practicus_provider.status import Reason, State
from tests.plans import TASK, created, end

JOBS = Path(__file__).parent / "jobs"
PATIENCE = 300
"""Seconds that a training may take: most of them are imports."""
SOON = 5.0
"""Seconds in which a job ends, everywhere, once a rank of it has failed."""
TWO_RANKS = {0: "0.1913", 1: "0.3002"}
"""The last losses of two ranks: those of one process that trains on the mean of both losses."""
ZERO = {"train_micro_batch_size_per_gpu": 8, "gradient_clipping": 0.0, "zero_allow_untested_optimizer": True}
TRAININGS: dict[str, tuple[str, str, tuple[str, ...], dict[str, Any]]] = {
    "torch": ("torch", "torch_ddp.py", (), {}),
    **{
        f"zero{stage}": ("deepspeed", "deepspeed_zero.py", (), ZERO | {"zero_optimization": {"stage": stage}})
        for stage in range(4)
    },
    **{way: ("fairscale", "fairscale_any.py", (way,), {}) for way in ("oss", "shardedddp", "fsdp")},
    "horovod": ("horovod", "horovod_torch.py", (), {}),
}
"""Name -> adapter, script, its arguments, and conf."""


def training(adapter: str, script: str, *args: str, **more: Any) -> Plan:
    spec = JobSpec.of(adapter=adapter, application=script, application_args=args, files=("model.py",), **more)
    shipment = ship(script, args, spec.files, JOBS)
    return make_plan(spec, shipment.program, shipment.files)


async def losses(backend: Backend, plan: Plan, name: str = "job") -> dict[int, str]:
    """The last loss of each rank of a training that went well."""
    async with created(backend, name, plan) as handle:
        status = await end(backend, handle, PATIENCE)
        lines = [line.text async for line in backend.logs(handle, [role.name for role in plan.roles])]
        assert status.state is State.SUCCEEDED, (status.verdict, lines[-40:])
    said = (re.search(r"rank (\d+) lost ([\d.]+)$", line) for line in lines)
    return {int(found[1]): found[2] for found in said if found}


# Those of torch are two at once, below.
@pytest.mark.parametrize("name", [name for name in TRAININGS if name != "torch"])
async def test_two_workers_lose_what_one_process_on_all_data_would(local: LocalBackend, name: str) -> None:
    adapter, script, args, conf = TRAININGS[name]
    assert await losses(local, training(adapter, script, *args, conf=conf, workers=2)) == TWO_RANKS


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["zero3", "fsdp", "horovod"])
async def test_so_do_two_pods(in_pods: KubernetesBackend, name: str) -> None:
    adapter, script, args, conf = TRAININGS[name]
    assert await losses(in_pods, training(adapter, script, *args, conf=conf, workers=2)) == TWO_RANKS


@pytest.mark.parametrize("name", ["zero3", "fsdp"])
async def test_so_do_two_ranks_of_one_worker(local: LocalBackend, name: str) -> None:
    adapter, script, args, conf = TRAININGS[name]
    assert await losses(local, training(adapter, script, *args, conf=conf, procs_per_worker=2)) == TWO_RANKS


@pytest.mark.parametrize("name", ["torch", "horovod"])
async def test_ranks_over_workers_of_several_processes_each_find_each_other(local: LocalBackend, name: str) -> None:
    adapter, script, *_ = TRAININGS[name]
    assert (await losses(local, training(adapter, script, workers=2, procs_per_worker=2))).keys() == {0, 1, 2, 3}


@pytest.mark.parametrize(("name", "first", "ranks"), [("zero3", 2, {0, 1, 2}), ("horovod", 1, {0, 1})])
async def test_ranks_of_workers_that_are_unlike_find_each_other_and_are_watched_meanwhile(
    local: LocalBackend, name: str, first: int, ranks: set[int]
) -> None:
    adapter, script, args, conf = TRAININGS[name]
    groups = (WorkerGroup(1, procs_per_worker=first), WorkerGroup(1))
    plan = training(adapter, script, *args, conf=conf, workers=groups, progress_timeout=PATIENCE)
    assert (await losses(local, plan)).keys() == ranks


async def test_a_pipe_is_one_process(local: LocalBackend) -> None:
    assert (await losses(local, training("fairscale", "fairscale_any.py", "pipe"))).keys() == {0}


async def test_the_client_is_the_process_group(backend: Backend) -> None:
    async with created(backend, "job", training("torch", "torch_client.py", workers=2)) as handle:
        assert (await end(backend, handle, PATIENCE)).result == '{"sum": 3.0, "ranks": 2}'


async def test_two_trainings_at_once_do_not_mix(backend: Backend) -> None:
    plan = training("torch", "torch_ddp.py", workers=2)
    assert await asyncio.gather(*(losses(backend, plan, name) for name in ("a", "b"))) == [TWO_RANKS, TWO_RANKS]


async def test_a_rank_that_raises_is_named_with_its_own_last_lines(backend: Backend) -> None:
    async with created(backend, "job", training("torch", "torch_ddp.py", "raise", "1", workers=2)) as handle:
        verdict = (await end(backend, handle, PATIENCE)).verdict
    assert verdict is not None
    assert verdict.message == "rank 1 (worker-1) exited with code 1"
    assert "ValueError: no such data" in verdict.log_tail  # what it has printed may come later: another stream


async def waiting(backend: Backend, handle: Handle) -> dict[str, int]:
    """Replica -> pid of its rank, once both wait for each other."""
    found: dict[str, int] = {}
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(backend.logs(handle, ("worker",))) as lines:
        async for line in lines:
            if said := re.fullmatch(r"waits (\d+)", line.text):
                found[f"{line.role}-{line.index}"] = int(said[1])
            if len(found) == 2:
                return found
    raise AssertionError("the log ended before")


async def test_a_killed_rank_ends_the_whole_job_at_once_and_is_named(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    handle = await backend.create("job", training("torch", "torch_ddp.py", "wait", workers=2), task=TASK)
    pid = (await waiting(backend, handle))["worker-1"]
    ending = asyncio.create_task(end(backend, handle, PATIENCE))
    if isinstance(backend, KubernetesBackend):
        await asyncio.to_thread(kill_in_pod, request.getfixturevalue("kubectl"), backend.site.namespace, handle, pid)
    else:
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    verdict = (await ending).verdict
    assert time.monotonic() - began < SOON
    await backend.delete(handle)
    assert marked(Env.CLUSTER, handle.uid) == []
    assert verdict is not None
    assert (verdict.reason, verdict.message) == (Reason.KILLED, "rank 1 (worker-1) was killed by SIGKILL")


def kill_in_pod(kubectl: Callable[..., str], namespace: str, handle: Handle, pid: int) -> None:
    """Kill a process of ``worker-1``."""
    labels = f"practicus.ai/cluster={handle.name},batch.kubernetes.io/job-completion-index=1"
    pod = kubectl("get", "pods", "-n", namespace, "-l", labels, "-o", "name").strip()
    kubectl("exec", "-n", namespace, pod, "--", "python3", "-c", f"import os; os.kill({pid}, 9)")
