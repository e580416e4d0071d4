"""A local job that speaks with the supervisor of another one, which is a process of the same user."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from practicus_provider.backends.local import LocalBackend
from practicus_provider.spec import Elastic
from practicus_provider.status import State
from tests.local import running
from tests.plans import SLEEP, created, end, plan, read, role

VICTIM = plan(role("driver", SLEEP), role("worker", SLEEP, elastic=Elastic(1, 3)))
ASK = """
import os, socket, sys
os.chdir(sys.argv[1])
with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(20)
    connection.connect("control")
    connection.sendall(sys.argv[2].encode() + b"\\n")
    print(connection.makefile().readline() or "hung up", end="", flush=True)
"""
HIDE = """
import time
read, write = os.pipe()
os.set_inheritable(write, True)
if not os.fork():
    os.setsid()
    parent = os.getpid()
    if os.fork():
        os._exit(0)
    while os.getppid() == parent:
        time.sleep(0.01)
    os.execve(sys.executable, [sys.executable, "-c", ASK, *sys.argv[1:]], {})
os.close(write)
os.read(read, 1)
"""
WAYS = {
    "as it is": ASK,
    "as a daemon without an environment": f"ASK = {ASK!r}\nimport os, sys\n{HIDE}",
}
REQUESTS = {
    "end it": {"do": "delete", "after": 0},
    "end it later": {"do": "delete", "after": 0.1},
    "start its replicas": {"do": "scale", "role": "worker", "replicas": 3},
    "have it end once nobody watches": {"do": "watch", "lease": 0.01},
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_job_has_no_say_in_another_ones_cluster(tmp_path: Path, way: str, request_: dict[str, object]) -> None:
    backend = LocalBackend(tmp_path)
    async with created(backend, "victim", VICTIM) as victim:
        await running(backend, victim)
        asks = role("driver", way, str(tmp_path / "victim"), json.dumps(request_))
        async with created(backend, "attacker", plan(asks)) as attacker:
            assert (await end(backend, attacker)).state is State.SUCCEEDED
            said = [line.text for line in await read(backend, attacker, "driver")]
        why = "cluster victim takes no requests from a process of cluster attacker"
        assert said == [json.dumps({"error": f"{why}: ask from Airflow, or from within its own job"})]
        await asyncio.sleep(0.3)  # by then it would have ended
        status = await anext(backend.watch(victim))
        assert (status.state, len(status.replicas)) == (State.RUNNING, 2)


async def test_a_job_may_ask_for_replicas_of_its_own_cluster(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path)
    ask = json.dumps(REQUESTS["start its replicas"])
    for way in WAYS.values():
        folder = str(tmp_path / "job")
        job = plan(role("driver", way, folder, ask), role("worker", SLEEP, elastic=Elastic(1, 3)))
        async with created(backend, "job", job) as handle:
            status = await end(backend, handle)
            assert [text.text for text in await read(backend, handle, "driver")] == ["{}"]
            assert len(status.replicas) == 4


async def test_a_cluster_that_a_job_makes_is_the_jobs_own_to_ask(tmp_path: Path) -> None:
    """As where a job runs a DAG by ``dag.test()``."""
    make = """
import asyncio, sys
from pathlib import Path
from practicus_provider.backends.local import LocalBackend
from tests.plans import SLEEP, TASK, plan, role
async def main():
    backend = LocalBackend(Path(sys.argv[1]))
    handle = await backend.create("inner", plan(role("driver", SLEEP)), task=TASK)
    await anext(backend.watch(handle))
    await backend.delete(handle)
    print([listing.handle.name for listing in await backend.list()])
asyncio.run(main())
"""
    backend = LocalBackend(tmp_path)
    job = plan(role("driver", make, str(tmp_path / "inner"), env={"PYTHONPATH": str(Path(__file__).parents[2])}))
    async with created(backend, "outer", job) as handle:
        await end(backend, handle)
        assert [line.text for line in await read(backend, handle, "driver")] == ["[]"]
