"""Elastic trainings of plain processes, by torch's rules and Horovod's: who is lost, who joins, who is not let in."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.backends.base import Backend, Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.processes import kill_marked, marked
from practicus_provider.plan import Here, Plan
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import Elastic, JobSpec
from practicus_provider.status import Reason, State, Status
from tests.plans import PATIENCE, created, end

PREPARED = """
import os, pathlib, sys, time
import practicus_runtime

rank, world, index = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["PRACTICUS_INDEX"])
print(f"rank {rank} of {world} is of worker-{index}", flush=True)
"""
LATER = """
import os, pathlib, time

gate = pathlib.Path({gate!r})
while os.environ.get("PRACTICUS_INDEX") == "1" and not gate.exists():
    time.sleep(0.02)
"""
"""Has ``worker-1`` join only once the job has opened the gate: imported by every Python of the application."""


def training(
    code: str, workers: Elastic, *, adapter: str = "torch", procs: int = 1, gate: Path | None = None, **conf: Any
) -> Plan:
    conf = {"last_call_timeout": PATIENCE} | conf
    spec = JobSpec.of(adapter=adapter, workers=workers, procs_per_worker=procs, conf=conf)
    files = {"job.py": (PREPARED + code).encode()}
    if gate:
        files["sitecustomize.py"] = LATER.format(gate=str(gate)).encode()
    return make_plan(spec, (Here.PYTHON, (Here.APP, "/job.py")), files)


async def lines(backend: Backend, handle: Handle, role: str = "coordinator") -> AsyncIterator[str]:
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(backend.logs(handle, (role,), whole=True)) as found:
        async for line in found:
            yield line.text


async def said(backend: Backend, handle: Handle, pattern: str, role: str = "coordinator") -> None:
    """Wait for a line."""
    async with contextlib.aclosing(lines(backend, handle, role)) as found:
        async for line in found:
            if re.fullmatch(pattern, line):
                return
    raise AssertionError("the log ended before")


async def ended(backend: Backend, handle: Handle) -> tuple[Status, list[str]]:
    """How it did, and its log."""
    status = await end(backend, handle)
    return status, [line async for line in lines(backend, handle)]


async def succeeded(backend: Backend, plan: Plan) -> list[str]:
    """The log of a training that went well."""
    async with created(backend, "job", plan) as handle:
        status, log = await ended(backend, handle)
    assert status.state is State.SUCCEEDED, (status.verdict, log)
    return log


async def lose(backend: Backend, handle: Handle, index: int, request: pytest.FixtureRequest) -> None:
    """A worker, without a word."""
    if isinstance(backend, KubernetesBackend):
        selector = f"practicus.ai/cluster={handle.name},practicus.ai/role=worker"
        selector += f",batch.kubernetes.io/job-completion-index={index}"
        delete = ("delete", "pod", "-n", backend.site.namespace, "-l", selector, "--grace-period=0", "--force")
        await asyncio.to_thread(request.getfixturevalue("kubectl"), *delete)
    else:
        kill_marked(Env.REPLICA, f"{handle.uid}/worker-{index}")


# ---- torch's rules


async def test_all_ranks_start_anew_with_the_worker_that_takes_a_lost_ones_place(
    backend: Backend, request: pytest.FixtureRequest
) -> None:
    code = """
if os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
    time.sleep(600)
practicus_runtime.set_result([rank, world, index, practicus_runtime.context().world_size])
"""
    async with created(backend, "job", training(code, Elastic(2, 2), procs=2)) as handle:
        await said(backend, handle, "rank 0 of 4 is of worker-0")
        await lose(backend, handle, 0, request)
        status, log = await ended(backend, handle)
    assert (status.state, status.result) == (State.SUCCEEDED, "[0, 4, 1, 4]"), (status.verdict, log)
    assert log == [
        "round 1: worker-0 worker-1",
        "rank 0 of 4 is of worker-0",
        "round 2: worker-1 worker-2",
        "rank 0 of 4 is of worker-1",
    ]


async def test_one_goes_on_alone_and_is_told_to_save_before_another_joins(local: LocalBackend, tmp_path: Path) -> None:
    code = """
import signal
from sitecustomize import gate

def save(*_):
    print("saved", flush=True)
    sys.exit(0)

if world == 1:
    signal.signal(signal.SIGTERM, save)
    gate.touch()
    time.sleep(600)
"""
    plan = training(code, Elastic(1, 2), gate=tmp_path / "gate", last_call_timeout=0)
    log = await succeeded(local, plan)
    assert log == [
        "round 1: worker-0",
        "rank 0 of 1 is of worker-0",
        "saved",
        "round 2: worker-0 worker-1",
        "rank 0 of 2 is of worker-0",
    ]


async def test_a_script_that_raises_on_every_restart_ends_the_job_and_its_rank_is_named(backend: Backend) -> None:
    code = """
if rank == 3:
    raise ValueError("no such data")
time.sleep(600)
"""
    async with created(backend, "job", training(code, Elastic(1, 2), procs=2, max_restarts=1)) as handle:
        status, log = await ended(backend, handle)
    verdict = status.verdict
    assert verdict is not None
    assert (verdict.reason, verdict.replica, verdict.rank) == (Reason.ERROR, "worker-1", 3)
    assert (verdict.message, verdict.log_tail[-1]) == (
        "rank 3 (worker-1) exited with code 1",
        "ValueError: no such data",
    )
    assert [line for line in log if line.startswith(("round", "rank 3"))] == [
        "round 1: worker-0 worker-1",
        "rank 3 (worker-1) exited with code 1",
        "round 2: worker-0 worker-1",
        "rank 3 (worker-1) exited with code 1",
        "rank 3 (worker-1) failed, and max_restarts=1",
    ]


async def test_too_few_workers_for_too_long_end_the_job_with_their_number(local: LocalBackend, tmp_path: Path) -> None:
    plan = training("", Elastic(2, 2), gate=tmp_path / "never", join_timeout=1)
    async with created(local, "job", plan) as handle:
        verdict = (await end(local, handle)).verdict
    assert verdict is not None
    assert verdict.message == "coordinator-0 exited with code 1"
    assert re.fullmatch(
        "there are [01] of at least 2 workers, and no other has come within 1 s", verdict.log_tail[-1]
    ), verdict


async def test_the_loss_of_the_coordinator_ends_the_job_and_leaves_nothing(local: LocalBackend) -> None:
    async with created(local, "job", training("time.sleep(600)", Elastic(2, 2))) as handle:
        await said(local, handle, "rank 0 of 2 is of worker-0")
        kill_marked(Env.REPLICA, f"{handle.uid}/coordinator-0")
        verdict = (await end(local, handle)).verdict
        assert verdict is not None
        assert (verdict.reason, verdict.message) == (Reason.KILLED, "coordinator-0 was killed by SIGKILL")
    assert marked(Env.CLUSTER, handle.uid) == []


# ---- who is not let in


async def test_who_has_no_key_neither_joins_nor_has_anything_run(backend: Backend) -> None:
    """A rank has no key, and reaches the coordinator as any neighbour without a NetworkPolicy does."""
    code = """
import json, pickle, socket, urllib.error, urllib.request
from practicus_runtime.channel import Channel

class Attack:
    def __reduce__(self):
        return print, ("the attack has run",)

def joined(key):
    host, _, port = os.environ["PRACTICUS_COORDINATOR"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        channel = Channel(connection)
        try:
            channel.introduce(key)
        except OSError:
            return False
        return True

def sent(data):
    host, _, port = os.environ["PRACTICUS_COORDINATOR"].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        nonce = connection.makefile().readline()
        try:
            return connection.recv(100)
        except ConnectionError:
            return b""

def asked(method, path, data=None):
    request = urllib.request.Request("http://" + os.environ["PRACTICUS_STORE"] + path, data=data, method=method)
    try:
        return urllib.request.urlopen(request, timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code

assert "PRACTICUS_KEY" not in os.environ
assert not joined("a guess") and not joined("")
assert sent(pickle.dumps(Attack()) + b"\\n") == b""
assert sent(json.dumps({"name": "worker-9", "address": "x", "port": 1, "slots": 1}).encode() + b"\\n") == b""
token = os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"].rpartition("/")[2]
for way in ("", "/guess:0", "/" + token[:-1] + ":0", "/%C3%BC:0", "/:0"):
    for path in ("/worker_addresses/worker-0:0", "/global/0"):
        assert asked("PUT", way + path, pickle.dumps(Attack())) == 403, way
    assert asked("GET", way + "/rank_and_size/worker-0:0") == 403, way
assert asked("PUT", f"/{token}:0/worker_addresses/worker-0", pickle.dumps(Attack())) == 200
assert asked("GET", f"/{token}:0/worker_addresses/worker-0") == 200
assert asked("GET", f"/{token}:0/rank_and_size/worker-1:0") == 410, "a member asks for its own ranks alone"
"""
    log = await succeeded(backend, training(code, Elastic(1, 1), adapter="horovod"))
    refused = [line for line in log if line.endswith(" was closed: a stranger asked to join")]
    assert refused  # and seldom, however often it was
    assert [line for line in log if line not in refused] == ["round 1: worker-0", "rank 0 of 1 is of worker-0"]


# ---- Horovod's rules, without Horovod

HOROVOD = """
import urllib.error, urllib.request

url = "http://{HOROVOD_GLOO_RENDEZVOUS_ADDR}:{HOROVOD_GLOO_RENDEZVOUS_PORT}/".format(**os.environ)
host = "{HOROVOD_HOSTNAME}:{HOROVOD_LOCAL_RANK}".format(**os.environ)

def ask(method, path, data=None):
    with urllib.request.urlopen(urllib.request.Request(url + path, data=data, method=method)) as answer:
        return answer.read().decode()

def meet():
    ask("PUT", f"global/{rank}", str(rank).encode())
    print(f"rank {rank} meets", flush=True)

def await_peer(peer):
    while True:
        try:
            return ask("GET", f"global/{peer}")
        except urllib.error.HTTPError:
            time.sleep(0.02)

def come_back():
    global rank, world
    rank, world, *others = map(int, ask("GET", f"rank_and_size/{host}").split(","))
    print(f"rank {rank} of {world} came back as {others}", flush=True)
"""


async def test_who_has_failed_is_replaced_and_the_others_come_back_once_all_are_there(local: LocalBackend) -> None:
    code = """
meet()
if index == 1:
    sys.exit(3)
if index == 0:
    come_back()
    meet()
"""
    log = await succeeded(local, training(HOROVOD + code, Elastic(2, 2), adapter="horovod", procs=2))
    assert [line for line in log if "exited" not in line] == [
        "round 1: worker-0 worker-1",
        "rank 0 of 4 is of worker-0",
        "rank 0 meets",
        "round 2: worker-0 worker-2",
        "rank 0 of 4 came back as [0, 2, 0, 2]",
        "rank 0 meets",
    ]


async def test_one_that_fails_before_it_has_met_anybody_costs_nobody_what_was_learnt(local: LocalBackend) -> None:
    """Who has come back would meet somebody who never comes, and fail, too."""
    code = """
if index == 2:
    sys.exit(4)
meet()
if index == 1:
    await_peer(0)
    sys.exit(3)
if index == 0:
    come_back()
    meet()
"""
    log = await succeeded(local, training(HOROVOD + code, Elastic(2, 2), adapter="horovod"))
    assert [line for line in log if "meets" not in line] == [
        "round 1: worker-0 worker-1",
        "rank 0 of 2 is of worker-0",
        "rank 1 (worker-1) exited with code 3",
        "round 2: worker-0 worker-2",
        "rank 1 (worker-2) exited with code 4",
        "round 3: worker-0 worker-3",
        "rank 0 of 2 came back as [0, 1, 0, 2]",
    ]


async def test_those_who_wait_to_join_are_noticed_where_a_state_is_committed(
    local: LocalBackend, tmp_path: Path
) -> None:
    code = """
from practicus_runtime.horovod_elastic import noticed
from sitecustomize import gate

meet()
if index == 0:
    gate.touch()
    while noticed() != 1:
        time.sleep(0.02)
    come_back()
    meet()
"""
    gate = tmp_path / "gate"
    plan = training(HOROVOD + code, Elastic(1, 2), adapter="horovod", gate=gate, last_call_timeout=0)
    log = await succeeded(local, plan)
    assert log == [
        "round 1: worker-0",
        "rank 0 of 1 is of worker-0",
        "rank 0 meets",
        "round 2: worker-0 worker-1",
        "rank 0 of 2 came back as [0, 1, 0, 2]",
        "rank 0 meets",
    ]
