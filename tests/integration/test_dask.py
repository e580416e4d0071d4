"""How Dask's own processes end, and what a user of Dask's brings along."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from practicus_provider import runtime
from practicus_provider.adapters import make_plan
from practicus_provider.backends.local import LocalBackend
from practicus_provider.plan import Here, Plan
from practicus_provider.spec import JobSpec, Resources
from practicus_provider.status import State
from tests.plans import PATIENCE, created, end, read

LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def dask(program: str, *args: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of Dask's."""
    command = [sys.executable, "-m", f"distributed.cli.{program}", *args, "--host", LOOPBACK]
    env = {**os.environ, "PYTHONPATH": str(Path(runtime.__file__).parent)}
    with log.open("wb") as output, subprocess.Popen(command, env=env, stdout=output, stderr=output) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_worker_that_does_not_reach_its_scheduler_says_why_and_gives_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRACTICUS_START_TIMEOUT", "0.2")
    monkeypatch.setenv("PRACTICUS_FAILURE", str(tmp_path / "failure.json"))
    log, preload = tmp_path / "worker.log", ("--preload", "practicus_runtime.dask_worker")
    mine = ("--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path), *preload)
    with dask("dask_worker", "tcp://nowhere.invalid:8786", *mine, log=log) as worker:
        assert worker.wait(PATIENCE) == 69
    assert "gave up waiting for coordinator-0 (nowhere.invalid:8786) after " in log.read_text()
    unreached = json.loads((tmp_path / "failure.json").read_text())["unreached"]
    assert unreached["who"] == "coordinator-0 (nowhere.invalid:8786)"


def await_line(log: Path, words: str) -> str:
    """The line with these words, once it is there."""
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        for line in log.read_text().splitlines():
            if words in line:
                return line
        time.sleep(0.01)
    raise AssertionError(f"no {words!r} in:\n{log.read_text()}")


def test_a_worker_at_work_that_its_scheduler_closes_ends_when_it_is_told_to(tmp_path: Path) -> None:
    scheduler_log, worker_log = tmp_path / "scheduler.log", tmp_path / "worker.log"
    bare = ("--no-dashboard", "--port", "0")
    mine = ("--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path), "--preload")
    with dask("dask_scheduler", *bare, log=scheduler_log) as scheduler:
        address = await_line(scheduler_log, "Scheduler at:").split()[-1]
        with (
            dask("dask_worker", address, *mine, "practicus_runtime.dask_worker", log=worker_log) as worker,
            Client(address) as client,
        ):
            work = client.submit(time.sleep, 600)
            while work.key not in [key for keys in client.processing().values() for key in keys]:
                time.sleep(0.01)
            scheduler.send_signal(signal.SIGTERM)
            await_line(worker_log, "Stopping worker")
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(PATIENCE) == 0


BRINGS = """
import os
import beside
import practicus_runtime as pr
from distributed.diagnostics.plugin import Environ

def refusal(what, *args):
    try:
        what(*args)
    except RuntimeError as error:
        return str(error)

client = pr.get_client()
client.wait_for_workers(2, timeout=150)
kept = client.scatter(1)
before = client.run(os.getpid)
client.restart(timeout=150)
after = client.run(os.getpid)
same = sorted(before.values()) == sorted(after.values()) and not {*before} & {*after}
nanny = refusal(client.register_plugin, Environ({"A": "a"}))
result = refusal(client.submit(pr.set_result, "lost").result)
pr.set_result([same, kept.status, client.map(beside.triple, [1])[0].result(), nanny, result])
"""
ALONE = """
from distributed import Client, LocalCluster
with LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster, Client(cluster) as client:
    print(client.submit(sum, [1, 2]).result(), flush=True)
"""


def job(script: str, **more: Any) -> Plan:
    spec = JobSpec.of(adapter="dask", workers=2, timeout=300, **more)
    files = {"jobs/main.py": script.encode(), "jobs/beside.py": b"def triple(x): return 3 * x"}
    return make_plan(spec, (Here.PYTHON, (Here.APP, "/", "jobs/main.py")), files)


async def test_workers_restart_without_a_nanny_and_what_they_cannot_do_is_refused(local: LocalBackend) -> None:
    async with created(local, "job", job(BRINGS)) as handle:
        status = await end(local, handle, 3 * PATIENCE)
        lines = [line.text for line in await read(local, handle, "driver")]
    assert status.state is State.SUCCEEDED, lines
    same, kept, total, nanny, result = json.loads(status.result or "")
    assert (same, kept, total) == (True, "cancelled", 3)
    assert nanny.startswith("the workers of this cluster have no nanny")
    assert result.startswith("set_result() has no effect on a worker: ")
    assert not [line for line in lines if "the cluster was not used" in line]


async def test_a_job_that_computes_on_a_local_cluster_is_told_that_its_own_was_not_used(local: LocalBackend) -> None:
    async with created(local, "job", job(ALONE)) as handle:
        status = await end(local, handle, 3 * PATIENCE)
        lines = [line.text for line in await read(local, handle, "driver")]
    assert status.state is State.SUCCEEDED, lines
    assert lines[0] == "3"
    assert lines[-1].startswith("WARNING: the cluster was not used: ")


PAUSED = """
import time
import practicus_runtime as pr

def fill(mebibytes):
    import distributed
    distributed.hoard = bytearray(b"x") * (mebibytes << 20)

def empty():
    import distributed
    del distributed.hoard

client = pr.get_client()
client.wait_for_workers(2, timeout=150)
client.run(fill, 330)
while any(status != "paused" for status in client.run(lambda dask_worker: dask_worker.status.name).values()):
    pass
future = client.submit(sum, [1, 2])
while not client.get_events("print"):
    time.sleep(0.1)
client.run(empty)
pr.set_result(future.result())
"""


async def test_that_all_workers_have_paused_is_said_in_the_job_s_output_and_it_goes_on_once_they_can(
    local: LocalBackend,
) -> None:
    async with created(local, "job", job(PAUSED, worker_resources=Resources(memory="400Mi"))) as handle:
        status = await end(local, handle, 3 * PATIENCE)
        lines = [line.text for line in await read(local, handle, "driver")]
    assert (status.state, status.result) == (State.SUCCEEDED, "3"), lines
    (warning,) = (line for line in lines if line.startswith("WARNING: "))
    assert warning.startswith("WARNING: all 2 workers have paused, as each uses most of its memory (worker-")
