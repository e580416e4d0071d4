"""Airflow's own ``TriggerRunner`` in a process of its own, as a triggerer has it; its supervisor is played here.

That supervisor hands the triggers over, as if from the database, and takes events and failures. What it has not are
task instances, logs of theirs, and rows that change at an end. Both sides meet in files of JSON lines, so that the
process may be ended at any time and another one take its place.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import psutil
import structlog
from airflow.executors.workloads.trigger import RunTrigger
from airflow.jobs.triggerer_job_runner import TriggerEventEntry, TriggerRunner
from airflow.models.trigger import Trigger
from airflow.triggers.base import BaseTrigger

from benchmarks.kubernetes.place import PATIENCE
from benchmarks.kubernetes.steps import watched_steps

TRIGGERS, EVENTS, LINES, RUNNING, STEPS = "triggers", "events", "lines", "running", "steps"
"""Files of a triggerer's folder: what it is to run; its events; what was logged; that it runs what it has; the longest
step of its event loop."""


@dataclass
class Triggerer:
    """The process, as its parent sees it.

    :param folder: where both sides meet.
    """

    folder: Path
    _read: dict[str, int] = field(default_factory=dict)
    _pid: int = 0

    def give(self, triggers: Mapping[int, BaseTrigger]) -> None:
        """Have it run these, under these numbers, which are its own."""
        with (self.folder / TRIGGERS).open("a") as file:
            for number, trigger in triggers.items():
                path, given = trigger.serialize()
                row = {"id": number, "classpath": path, "encrypted_kwargs": Trigger.encrypt_kwargs(given)}
                print(json.dumps(row), file=file)

    def start(self) -> None:
        """Begin, with all that it was given and that has had no event yet; returns once all that runs."""
        (self.folder / RUNNING).unlink(missing_ok=True)
        (self.folder / TRIGGERS).touch()
        command = [sys.executable, "-m", "benchmarks.kubernetes.triggerer", str(self.folder)]
        with (self.folder / "output").open("a") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output)
        self._seen = psutil.Process(self._process.pid)
        give_up = time.monotonic() + PATIENCE
        while not (self.folder / RUNNING).exists():
            if not self.alive or time.monotonic() > give_up:
                raise RuntimeError(f"the triggerer did not start: {(self.folder / 'output').read_text()[-4000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End it as a service is ended: by SIGTERM."""
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        finally:
            self._process.kill()

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait(PATIENCE)

    @property
    def cpu(self) -> float:
        """Processor seconds that it has taken."""
        times = self._seen.cpu_times()
        return float(times.user + times.system)

    @property
    def memory(self) -> float:
        """MiB that are resident."""
        return round(self._seen.memory_info().rss / 2**20, 1)

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def events(self) -> list[dict[str, Any]]:
        """Those that came since this was asked last: ``id``, ``at``, ``payload``."""
        return self._new(EVENTS)

    def lines(self) -> list[dict[str, Any]]:
        """Likewise what was logged: ``trigger_id``, ``event``."""
        return self._new(LINES)

    def _new(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(self._read.get(name, 0))
            whole = file.read().rpartition(b"\n")[0]
        self._read[name] = self._read.get(name, 0) + (len(whole) + 1 if whole else 0)
        return [json.loads(line) for line in whole.splitlines()]


@contextlib.contextmanager
def triggerer(folder: Path, triggers: Mapping[int, BaseTrigger]) -> Iterator[Triggerer]:
    """One that runs these."""
    made = Triggerer(folder)
    made.give(triggers)
    try:
        made.start()
        yield made
    finally:
        made.kill()


class _Events(deque[TriggerEventEntry]):
    """Events that are told as they come, and not at the next look, which is a second later."""

    def __init__(self, to: IO[str]) -> None:
        super().__init__()
        self._to = to

    def append(self, entry: TriggerEventEntry) -> None:
        super().append(entry)
        told = {"id": entry.trigger_id, "at": time.time(), "payload": getattr(entry.event, "payload", None)}
        print(json.dumps(told, default=str), file=self._to, flush=True)


class _Runner(TriggerRunner):
    def __init__(self, folder: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._folder = folder
        self._ended = {json.loads(line)["id"] for line in _lines(folder / EVENTS)}
        self._given = (folder / TRIGGERS).open()
        self.events = _Events((folder / EVENTS).open("a"))

    async def init_comms(self) -> None:
        """Nobody is at the other end."""
        forever = asyncio.create_task(asyncio.Event().wait())
        self.comms_decoder: Any = SimpleNamespace(_reader_task=forever)

    async def sync_state_to_supervisor(self, finished_ids: list[int]) -> None:
        """What the supervisor would do."""
        self.events.clear()
        if self.failed_triggers:
            raise RuntimeError(f"a trigger failed: {self.failed_triggers[0]}")
        rows = [RunTrigger(**json.loads(line)) for line in self._given]
        new = [row for row in rows if row.id not in self._ended]
        self.to_create.extend(new)
        if not new:
            (self._folder / RUNNING).touch()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _log_to(file: IO[str]) -> None:
    """What triggers log becomes lines of that file."""

    def tell(_: Any, __: str, event: Any) -> Any:
        if "trigger_id" in event:
            print(json.dumps({"trigger_id": event["trigger_id"], "event": str(event["event"])}), file=file, flush=True)
        raise structlog.DropEvent

    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, tell],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )


if __name__ == "__main__":
    own = Path(sys.argv[1])
    if (own / LINES).exists():  # somebody wants to know
        _log_to((own / LINES).open("a"))
    with watched_steps(own / STEPS) if (own / STEPS).exists() else contextlib.nullcontext():
        _Runner(own).run()  # type: ignore[no-untyped-call]
