"""Volumes, and what a job keeps on them from one cluster to the next."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.backends.base import Backend, Handle
from practicus_provider.backends.kubernetes.refusals import AS_A_CLAIM
from practicus_provider.backends.local import LocalBackend
from practicus_provider.errors import BackendError
from practicus_provider.plan import Here, Plan
from practicus_provider.spec import JobSpec, Volume
from practicus_provider.status import Reason, State
from tests.kubernetes import Namespace, claimed, pods
from tests.plans import TASK, created, end, plan, read, role, until

DATA = Volume(path="/data", claim="data")


@pytest.fixture
def claim(namespace: Namespace, kubectl: Callable[..., str], machines: object, tmp_path: Path) -> Iterator[None]:
    """A claim ``data`` on a folder of this machine, which is root's."""
    with claimed(namespace, kubectl, tmp_path):
        yield


@pytest.fixture(params=["local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "local":
        return request.getfixturevalue("local")
    request.getfixturevalue("claim")
    return pods(request.getfixturevalue("namespace"), request.getfixturevalue("image")("python"))


def training(code: str, **spec: Any) -> Plan:
    job = JobSpec.of(adapter="torch", **{"volumes": (DATA,)} | spec)
    return make_plan(job, (Here.PYTHON, (Here.APP, "/job.py")), {"job.py": code.encode()})


# Each rank counts to 100; at SIGTERM it saves how far it is, as does a training that has no time for its next step.
COUNTS = """
import json, os, signal, sys, time
import practicus_runtime as pr

me = pr.context()
path = f"{me.checkpoint_dir}/rank-{me.rank}.json"
done = json.load(open(path)) if os.path.exists(path) else []
resumed = len(done)

def save(*_):
    with open(path, "w") as file:
        json.dump(done, file)
    os._exit(1)

signal.signal(signal.SIGTERM, save)
print("resumed at", resumed, flush=True)
while len(done) < 100:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    done.append(len(done))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    if len(done) == 50 and not resumed:
        print("half", flush=True)
        time.sleep(600)
if me.rank == 0:
    pr.set_result([resumed, done == list(range(100)), me.checkpoint_dir])
"""


async def halfway(backend: Backend, handle: Handle, ranks: int) -> None:
    """Wait until each rank has done half of its work."""
    found = 0
    async for line in backend.logs(handle, ("worker",), whole=True):
        found += line.text.endswith("half")
        if found == ranks:
            return
    raise AssertionError("the log ended before")


async def test_a_script_that_saves_at_sigterm_and_resumes_loses_nothing(backend: Backend) -> None:
    job = training(COUNTS, workers=1, procs_per_worker=2)
    async with created(backend, "c-job", job) as first:
        await halfway(backend, first, 2)
    async with created(backend, "c-other", job) as other:
        await halfway(backend, other, 2)  # another task instance finds nothing
    async with created(backend, "c-job", job, task=TASK | {"try_number": 2}) as second:
        status = await end(backend, second)
        lines = [line.text for line in await read(backend, second, "worker")]
    assert (status.state, sorted(lines)) == (State.SUCCEEDED, [f"[rank {rank}] resumed at 50" for rank in range(2)])
    resumed, complete, folder = json.loads(status.result or "")
    assert (resumed, complete, folder.partition("/data")[2]) == (50, True, "/checkpoints/c-job")


async def test_replicas_share_a_claim_and_each_has_an_empty_folder_of_its_own(backend: Backend) -> None:
    code = """
import os, time
import practicus_runtime as pr
me = pr.context()
shared, own = me.volumes["/data"], me.volumes["/scratch"]
assert os.listdir(own) == []
open(f"{own}/mine", "w").close()
open(f"{shared}/from-{me.rank}", "w").close()
while not {"from-0", "from-1"} <= set(os.listdir(shared)):
    time.sleep(0.05)
"""
    volumes = (DATA, Volume(path="/scratch", empty_dir="1Mi"))
    async with created(backend, "c-job", training(code, workers=2, volumes=volumes)) as handle:
        status = await end(backend, handle)
    assert status.state is State.SUCCEEDED, status.verdict


async def test_what_the_local_backend_cannot_mount_is_stood_for_by_a_folder_or_refused(
    local: LocalBackend, tmp_path: Path
) -> None:
    (tmp_path / "here").mkdir()
    found = (
        Volume(path="/a", host_path=str(tmp_path / "here")),
        Volume(path="/b", nfs="server:/b", local=str(tmp_path / "here")),
    )
    code = "import json; import practicus_runtime as p; p.set_result(list(p.context().volumes.items()))"
    async with created(local, "c-job", plan(role("driver", code), volumes=found)) as handle:
        status = await end(local, handle)
    assert status.result == json.dumps([[path, str(tmp_path / "here")] for path in ("/a", "/b")])
    for volume, message in (
        (Volume(path="/b", nfs="server:/b"), "the local backend mounts nothing: give Volume(path='/b', nfs='server:/b"),
        (
            Volume(path="/a", host_path="/no/such"),
            "there is no folder /no/such for Volume(path='/a'): make it, or give",
        ),
    ):
        with pytest.raises(BackendError) as refused:
            await local.create("c-refused", plan(role("driver", code), volumes=(volume,)), task=TASK)
        assert str(refused.value).startswith(message)
    assert await local.list() == []


async def test_a_folder_of_the_node_is_not_admitted_and_the_way_out_is_said(
    namespace: Namespace, image: Callable[[str], str]
) -> None:
    volume = Volume(path="/data", host_path="/tmp")
    async with created(pods(namespace, image("python")), "c-job", training("", volumes=(volume,))) as handle:
        status = await until(pods(namespace, image("python")), handle, lambda status: status.state.final)
    assert status.verdict is not None
    assert (status.verdict.reason, status.verdict.advice) == (Reason.CONFIG_ERROR, f"{AS_A_CLAIM}.")
