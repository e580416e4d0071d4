"""Ranks of several replicas as plain processes that talk to each other: who is named when one fails."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.backends.base import Backend, Handle, LogLine
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.processes import marked
from practicus_provider.plan import Here, Plan
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import JobSpec, WorkerGroup
from practicus_provider.status import Reason, State, Verdict
from tests.plans import PATIENCE, TASK, created, end, read

SOON = 5.0
"""Seconds in which a job ends, everywhere, once a rank of it has failed."""
RING = """
import os, signal, socket, sys, threading, time

rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])


def meet():
    '''A connection between rank 0 and each other one, as a process group has, once all are there.'''
    if rank == 0:
        family, *_, place = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        server = socket.create_server(place[:2], family=family)
        peers = [server.accept()[0] for _ in range(world - 1)]
        for peer in peers:
            peer.sendall(b"!")
        return peers
    while True:
        try:
            peer = socket.create_connection(address)
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            peer.recv(1)
            return [peer]


def talk(peers):
    '''Goes on until a peer is gone.'''
    for peer in peers:
        peer.sendall(b"%d " % rank)
    while True:
        for peer in peers:
            if not peer.recv(64):
                raise ConnectionError("Connection closed by peer")


peers = meet()
print("met", os.getpid(), flush=True)
"""
WAIT = "talk(peers)\n"


def ranks(code: str, *args: str, workers: Any = 2, procs: int | None = 1, **spec: Any) -> Plan:
    job = JobSpec.of(adapter="torch", workers=workers, procs_per_worker=procs, **spec)
    return make_plan(job, (Here.PYTHON, (Here.APP, "/job.py"), *args), {"job.py": (RING + code).encode()})


async def met(backend: Backend, handle: Handle, number: int) -> dict[int, int]:
    """The pids of all ranks, once all have met."""
    found: dict[int, int] = {}
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(backend.logs(handle, ("worker",), whole=True)) as lines:
        async for line in lines:
            if said := re.fullmatch(r"(?:\[rank (\d+)\] )?met (\d+)", line.text):
                found[int(said[1] or line.index)] = int(said[2])
            if len(found) == number:
                return found
    raise AssertionError(f"the log ended, and only these have met: {found}")


async def failure(backend: Backend, handle: Handle) -> Verdict:
    verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    return verdict


def nothing_left(handle: Handle) -> bool:
    return marked(Env.CLUSTER, handle.uid) == []


async def test_all_ranks_meet_and_the_result_is_rank_0s(backend: Backend) -> None:
    code = "import practicus_runtime as pr; c = pr.context(); pr.set_result([c.rank, c.world_size])"
    async with created(backend, "job", ranks(code, workers=2, procs=2)) as handle:
        status = await end(backend, handle)
        lines = await read(backend, handle, "worker-1")
    assert (status.state, status.result) == (State.SUCCEEDED, "[0, 4]")
    assert sorted(re.sub(r"\d+$", "", line.text) for line in lines) == ["[rank 2] met ", "[rank 3] met "]
    assert {line.index for line in lines} == {1}


async def test_ranks_of_several_groups_are_one_world_and_are_named_by_their_rank(backend: Backend) -> None:
    code = """
import practicus_runtime as pr
names = ("LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE")
print("rank", rank, "of", world, *(os.environ[name] for name in names))
pr.set_result(rank)
if rank == int(sys.argv[1]):
    time.sleep(0.5); raise ValueError("no such data")
if sys.argv[1] != "-1":
    talk(peers)
"""
    groups = (WorkerGroup(1, procs_per_worker=2), WorkerGroup(2))
    async with created(backend, "job", ranks(code, "-1", workers=groups, procs=None)) as handle:
        status = await end(backend, handle)
        lines = await read(backend, handle, "worker", "worker2")
    assert (status.state, status.result) == (State.SUCCEEDED, "0")
    assert sorted(f"{line.role}-{line.index}: {line.text}" for line in lines if "of" in line.text) == [
        "worker-0: [rank 0] rank 0 of 4 0 2 0 3",
        "worker-0: [rank 1] rank 1 of 4 1 2 0 3",
        "worker2-0: [rank 2] rank 2 of 4 0 1 1 3",
        "worker2-1: [rank 3] rank 3 of 4 0 1 2 3",
    ]
    async with created(backend, "job", ranks(code, "3", workers=groups, procs=None)) as handle:
        verdict = await failure(backend, handle)
    assert verdict.message == "rank 3 (worker2-1) exited with code 1"
    assert verdict.log_tail[-1] == "ValueError: no such data"


async def test_one_replicas_log_is_read_by_its_name(backend: Backend) -> None:
    async with created(backend, "job", ranks("print('rank', rank)", workers=3)) as handle:
        await end(backend, handle)
        lines = {line for line in await read(backend, handle, "worker-0", "worker-2") if "met" not in line.text}
    assert lines == {LogLine("worker", 0, "rank 0"), LogLine("worker", 2, "rank 2")}


@pytest.mark.parametrize("culprit", [0, 1, 3])
async def test_the_rank_that_raises_is_named_and_not_those_that_lose_their_peer(backend: Backend, culprit: int) -> None:
    code = f"if rank == {culprit}:\n    time.sleep(0.5); raise ValueError('no such data')\n" + WAIT
    async with created(backend, "job", ranks(code, workers=2, procs=2)) as handle:
        await met(backend, handle, 4)
        began = time.monotonic()
        verdict = await failure(backend, handle)
        assert time.monotonic() - began < SOON
    who = f"rank {culprit} (worker-{culprit // 2})"
    assert (verdict.message, verdict.log_tail[-1]) == (f"{who} exited with code 1", "ValueError: no such data")
    assert nothing_left(handle)


async def test_a_rank_whose_replica_has_others_that_are_deaf_is_named_though_it_is_heard_of_last(
    backend: Backend,
) -> None:
    code = (
        "if rank == 2:\n    time.sleep(0.5); sys.exit(5)\n"
        "if rank == 3:\n    signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)\n"
    )
    async with created(backend, "job", ranks(code + WAIT, workers=2, procs=2)) as handle:
        assert (await failure(backend, handle)).message == "rank 2 (worker-1) exited with code 5"
    assert nothing_left(handle)


@pytest.mark.parametrize("procs", [1, 2])
async def test_a_killed_rank_is_named_at_once(local: LocalBackend, procs: int) -> None:
    async with created(local, "job", ranks(WAIT, procs=procs)) as handle:
        pids = await met(local, handle, 2 * procs)
        psutil.Process(pids[procs]).kill()
        began = time.monotonic()
        verdict = await failure(local, handle)
        assert time.monotonic() - began < SOON
    assert (verdict.reason, verdict.message) == (Reason.KILLED, f"rank {procs} (worker-1) was killed by SIGKILL")
    assert nothing_left(handle)


@pytest.mark.parametrize("victim", [0, 1], ids=["launcher", "ranks"])
async def test_a_replica_that_is_killed_without_a_word_is_named(local: LocalBackend, victim: int) -> None:
    async with created(local, "job", ranks(WAIT)) as handle:
        await met(local, handle, 2)
        processes = marked("PRACTICUS_REPLICA", f"{handle.uid}/worker-1")
        sorted(processes, key=lambda process: process.create_time())[victim].kill()
        verdict = await failure(local, handle)
    assert (verdict.reason, verdict.message) == (Reason.KILLED, "worker-1 was killed by SIGKILL")
    assert nothing_left(handle)


TAKE = """
import os, socket
both = {"family": socket.AF_INET6, "dualstack_ipv6": True} if socket.has_dualstack_ipv6() else {}
if os.environ["RANK"] == "0":
    taken = socket.create_server(("", int(os.environ["MASTER_PORT"])), **both)
"""


async def test_a_rendezvous_whose_port_is_taken_is_told(backend: Backend) -> None:
    spec = JobSpec.of(adapter="torch", workers=2)
    job = make_plan(spec, (Here.PYTHON, (Here.APP, "/job.py")), {"job.py": (TAKE + RING + WAIT).encode()})
    async with created(backend, "job", job) as handle:
        verdict = await failure(backend, handle)
    assert (verdict.reason, verdict.replica) == (Reason.PORT_IN_USE, "worker-0")


async def test_two_jobs_at_once_never_meet(backend: Backend) -> None:
    """What each rank hears names the job that it is of."""
    code = """
for peer in peers:
    peer.sendall(sys.argv[1].encode())
heard = {peer.recv(64).decode() for peer in peers}
assert heard == {sys.argv[1]}, heard
"""
    names = [f"job-{number}" for number in range(4)]
    handles = await asyncio.gather(*(backend.create(name, ranks(code, name), task=TASK) for name in names))
    states = await asyncio.gather(*(end(backend, handle) for handle in handles))
    await asyncio.gather(*(backend.delete(handle) for handle in handles))
    assert [status.state for status in states] == [State.SUCCEEDED] * 4


HANG = """
def wait_for_nobody():
    ours, theirs = socket.socketpair()
    ours.recv(1)

def pretend():
    while True:
        try:
            with socket.create_connection((os.environ["PRACTICUS_HANGS_ADDR"], port)) as connection:
                while True:
                    connection.sendall(b'{"ages": {"9": 0}}\\n')
                    time.sleep(0.2)
        except OSError:
            time.sleep(0.2)

port = int(os.environ["PRACTICUS_HANGS_PORT"])
assert "PRACTICUS_KEY" not in os.environ
threading.Thread(target=pretend, daemon=True).start()
if rank == 2:
    wait_for_nobody()
time.sleep(1)
print("at work", flush=True)
talk(peers) if rank else wait_for_nobody()
"""


async def test_a_job_in_which_all_ranks_hang_is_ended_and_says_where_each_was(backend: Backend) -> None:
    """Nobody reads the log meanwhile, and neighbours who say all the time that somebody is at work are not heard."""
    job = ranks(HANG, workers=2, procs=2, progress_timeout=4)
    async with created(backend, "job", job) as handle:
        verdict = await failure(backend, handle)
        lines = await read(backend, handle, "worker-0")
    assert verdict.reason is Reason.PROGRESS_DEADLINE_EXCEEDED
    assert re.fullmatch(r"rank 2 \(worker-1\) fell silent \d+(\.\d)? s ago, before all others; .*", verdict.message)
    assert any(line.endswith("in wait_for_nobody") for line in verdict.log_tail)
    text = [line.text for line in lines]
    stacks = text[text.index("no rank has written anything for 4 s; where each of them is:") + 1 :]
    functions = {rank: [line for line in stacks if line.startswith(f"[rank {rank}] ")] for rank in range(4)}
    for rank, function in ((0, "wait_for_nobody"), (1, "talk"), (2, "wait_for_nobody"), (3, "talk")):
        assert any(line.endswith(f"in {function}") for line in functions[rank]), (rank, stacks)
    assert nothing_left(handle)


async def test_one_rank_that_writes_for_all_is_enough_and_the_last_one_is_watched_to_its_end(
    local: LocalBackend,
) -> None:
    """The first replica has ended long before the second one hangs."""
    code = """
if rank == 0:
    for step in range(8):
        time.sleep(0.5); print("step", step, flush=True)
    sys.exit(0)
time.sleep(5)
print("alone", flush=True)
if sys.argv[1] == "hangs":
    time.sleep(600)
"""
    async with created(local, "job", ranks(code, "ends", progress_timeout=3)) as handle:
        assert (await end(local, handle)).state is State.SUCCEEDED
    async with created(local, "job", ranks(code, "hangs", progress_timeout=3)) as handle:
        verdict = await failure(local, handle)
    assert (verdict.reason, verdict.replica) == (Reason.PROGRESS_DEADLINE_EXCEEDED, "worker-1")


async def test_sigterm_reaches_every_rank(local: LocalBackend, tmp_path: Path) -> None:
    code = """
def save(*_):
    open(f"{sys.argv[1]}/saved-{rank}", "w").close()
    sys.exit(0)
signal.signal(signal.SIGTERM, save)
print("ready", flush=True)
time.sleep(600)
"""
    handle = await local.create("job", ranks(code, str(tmp_path), procs=2), task=TASK)
    await met(local, handle, 4)
    await asyncio.sleep(0.3)
    await local.delete(handle)
    assert [(tmp_path / f"saved-{rank}").exists() for rank in range(4)] == [True] * 4


@pytest.mark.parametrize(
    ("adapter", "module", "how"),
    [
        ("torch", "torch", "pip install torch"),
        ("deepspeed", "deepspeed", "pip install deepspeed"),
        ("fairscale", "fairscale", "pip install fairscale==0.4.13"),
        ("horovod", "horovod.torch", "it has no wheel: images/training/build.sh builds one"),
    ],
)
async def test_a_python_without_the_framework_is_told_so_with_the_way_out(
    local: LocalBackend, adapter: str, module: str, how: str
) -> None:
    program, files = (Here.PYTHON, (Here.APP, "/job.py")), {"job.py": f"import {module}".encode()}
    async with created(local, "job", make_plan(JobSpec.of(adapter=adapter), program, files)) as handle:
        verdict = await failure(local, handle)
    assert (verdict.message, verdict.advice) == (
        "rank 0 (worker-0) exited with code 1",
        f"{sys.executable} has no Python module {adapter!r}, which adapter {adapter!r} needs: install it there "
        f"({how}), or have the connection's extra 'python' name one that has it.",
    )


def horovod(code: str, **more: Any) -> Plan:
    """The rendezvous of a Horovod job, without Horovod: keys and values over HTTP."""
    asks = """
import os, sys, time, urllib.error, urllib.request
rank, world = int(os.environ["HOROVOD_RANK"]), int(os.environ["HOROVOD_SIZE"])
url = "http://{HOROVOD_GLOO_RENDEZVOUS_ADDR}:{HOROVOD_GLOO_RENDEZVOUS_PORT}".format(**os.environ)

def ask(method, path, data=None):
    request = urllib.request.Request(url + path, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()

def wait(path):
    while ask("GET", path)[0] == 404:
        time.sleep(0.02)
    return ask("GET", path)[1]
"""
    spec = JobSpec.of(adapter="horovod", **{"workers": 2} | more)
    return make_plan(spec, (Here.PYTHON, (Here.APP, "/job.py")), {"job.py": (asks + code).encode()})


async def test_horovods_ranks_exchange_addresses_by_the_first_replica(backend: Backend) -> None:
    code = """
assert ask("PUT", f"/global/{rank}", b"address of %d" % rank) == (200, b"")
print(sorted(wait(f"/global/{other}") for other in range(world)))
"""
    async with created(backend, "job", horovod(code, procs_per_worker=2)) as handle:
        status = await end(backend, handle)
        lines = {line.text.partition("] ")[2] for line in await read(backend, handle, "worker")}
    assert status.state is State.SUCCEEDED
    assert lines == {"[b'address of 0', b'address of 1', b'address of 2', b'address of 3']"}


async def test_horovods_workers_are_counted_over_all_groups(local: LocalBackend) -> None:
    code = """
place = [os.environ[f"HOROVOD_{name}"] for name in ("LOCAL_RANK", "CROSS_RANK", "CROSS_SIZE", "HOSTNAME")]
print(rank, *place)
"""
    groups = (WorkerGroup(1), WorkerGroup(1))
    async with created(local, "job", horovod(code, workers=groups)) as handle:
        status = await end(local, handle)
        lines = [line.text for line in await read(local, handle, "worker", "worker2")]
    assert (status.state, lines) == (State.SUCCEEDED, ["[rank 0] 0 0 0 2 worker-0", "[rank 1] 1 0 1 2 worker-1"])


async def test_what_a_rank_has_written_to_the_rendezvous_no_neighbour_replaces_or_floods(local: LocalBackend) -> None:
    code = """
if rank == 1:
    sys.exit(0)
assert ask("PUT", "/global/0", b"mine") == (200, b"")
assert ask("PUT", "/global/0", b"mine") == (200, b""), "as a try that was cut is repeated"
assert ask("PUT", "/global/0", b"theirs") == (403, b"")
assert ask("GET", "/global/0") == (200, b"mine")
assert ask("PUT", "/global", b"x") == (400, b"")
assert ask("PUT", "/global/" + "x" * 200, b"x") == (400, b"")
assert ask("PUT", "/global/big", b"x" * (1 << 17))[0] == 400
codes = [ask("PUT", f"/flood/{number}", b"x")[0] for number in range(200)]
assert codes.index(403) < 128 and set(codes[codes.index(403):]) == {403}, codes
"""
    async with created(local, "job", horovod(code)) as handle:
        status = await end(local, handle)
    assert status.state is State.SUCCEEDED, status.verdict
