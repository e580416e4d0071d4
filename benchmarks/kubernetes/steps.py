"""How long the steps of an event loop take: in each of them all other tasks of its process wait."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Step:
    """The longest one, by the processor: what else runs on the machine does not count.

    :param cpu: seconds of the processor, without full garbage collections, which are the whole heap's doing.
    :param wall: the longest that any took by the clock, in seconds.
    :param of: which task's it was.
    """

    cpu: float = 0.0
    wall: float = 0.0
    of: str = ""

    @classmethod
    def read(cls, path: Path) -> Step:
        """The longest one until now."""
        text = path.read_text() if path.exists() else ""
        return cls(**json.loads(text)) if text else cls()


FULL = 2
"""The generation that a full garbage collection is of."""
SHORT = 0.001
"""Seconds of steps that are not looked at."""


@contextlib.contextmanager
def watched_steps(path: Path) -> Iterator[None]:
    """Keep the longest step of this process's event loops in a file; whoever removes that begins anew."""
    run, over = asyncio.Handle._run, False
    longest, collecting, collected = Step(), 0.0, 0.0

    def collects(phase: str, info: Mapping[str, int]) -> None:
        nonlocal collecting, collected
        if info["generation"] == FULL and phase == "start":
            collecting = time.thread_time()
        elif info["generation"] == FULL:
            collected += time.thread_time() - collecting

    def timed(handle: asyncio.Handle) -> None:
        nonlocal longest
        cpu, wall = time.thread_time() - collected, time.perf_counter()
        try:
            run(handle)
        finally:
            cpu, wall = time.thread_time() - collected - cpu, time.perf_counter() - wall
            told = max(cpu, wall) > SHORT and not over
            if told and not path.exists():
                longest = Step()
            if told and (cpu > longest.cpu or wall > longest.wall):
                of = _named(handle) if cpu > longest.cpu else longest.of
                longest = Step(max(cpu, longest.cpu), max(wall, longest.wall), of)
                aside = path.with_suffix(".new")
                aside.write_text(json.dumps(asdict(longest)))
                os.replace(aside, path)

    asyncio.Handle._run = timed  # type: ignore[assignment, method-assign]
    gc.callbacks.append(collects)
    try:
        yield
    finally:
        over = True
        gc.callbacks.remove(collects)
        asyncio.Handle._run = run  # type: ignore[method-assign]


def _named(handle: asyncio.Handle) -> str:
    callback: Any = handle._callback  # type: ignore[attr-defined]
    task = getattr(callback, "__self__", None)
    work: Any = task.get_coro() if isinstance(task, asyncio.Task) else callback
    return str(getattr(work, "__qualname__", work))
