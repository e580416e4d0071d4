"""How Dask's own processes end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from distributed import Client

from practicus_provider import runtime
from tests.plans import PATIENCE

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
