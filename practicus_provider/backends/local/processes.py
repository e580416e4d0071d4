"""Finds and ends processes by what they carry in their environment, so that none hides behind a new session."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
from collections.abc import Callable

import psutil

PATIENCE = 5.0
"""Seconds after which what does not die is left: it waits for the kernel."""
PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_POLL = 0.02


def inherited() -> dict[str, str]:
    """This process' environment without what is Airflow's: its database's address and connections among it. Whatever
    runs as this user can read the environment of a process, from its start on."""
    return {name: value for name, value in os.environ.items() if not name.lstrip("_").startswith("AIRFLOW")}


def marked(name: str, value: str) -> list[psutil.Process]:
    """Processes of this user whose environment has ``name=value``."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(name) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_marked(name: str, value: str) -> None:
    """SIGKILL every such process until there is none."""
    _kill_all(lambda: marked(name, value))


def adopt_orphans() -> None:
    """Have what runs below this process become its child when it loses its parent, so that it is found whatever it has
    made of its environment (prctl(2)). Linux alone has that."""
    with contextlib.suppress(AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def kill_descendants() -> None:
    """SIGKILL all that runs below this process until there is nothing."""
    _kill_all(_descendants)


def _descendants() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def _kill_all(find: Callable[[], list[psutil.Process]]) -> None:
    give_up = time.monotonic() + PATIENCE
    while (left := find()) and time.monotonic() < give_up:
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(_POLL)
