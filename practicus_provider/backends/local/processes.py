"""Finds and ends processes by what they carry in their environment, so that none hides behind a new session."""

from __future__ import annotations

import os
import time

import psutil

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


def kill_marked(name: str, value: str, *, patience: float = 5.0) -> None:
    """SIGKILL every such process until there is none, for at most ``patience`` seconds."""
    give_up = time.monotonic() + patience
    while (left := marked(name, value)) and time.monotonic() < give_up:
        for process in left:
            try:
                process.kill()
            except psutil.Error:
                continue
        time.sleep(_POLL)
