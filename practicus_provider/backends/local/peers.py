"""Who asks a supervisor, as the kernel tells it.

A secret in a file would keep nobody out: all jobs are processes of one user, and read what that user may read. But
whatever a job starts stays below its supervisor, which adopts orphans (see :func:`.processes.adopt_orphans`), and no
process can choose by whom it was started. So the one who asks is known by the supervisors above it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import psutil

DAEMON = "practicus_provider.backends.local.daemon"
"""Module that a supervisor runs, with its cluster's folder as the argument."""
TRIES = 5
"""Looks at a process' ancestors, which may end meanwhile."""


class _Gone(Exception):
    """A process has ended amid a look."""


def trespasser(connection: socket.socket) -> str | None:
    """The cluster from whose processes somebody asks this one's supervisor without any right to.

    Airflow may ask, and this cluster's own processes, and those of a cluster that this one was made in. Linux alone
    tells who it is, and not where it is of another PID namespace: then all may ask.

    :return: that cluster's name, or ``?`` of who is gone already; None: it may ask.
    """
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    pid, _, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    if pid == 0:
        return None
    for _ in range(TRIES):
        with contextlib.suppress(_Gone):
            around = {os.getpid(), *supervisors_above(os.getpid())}
            others = [name for found, name in supervisors_above(pid).items() if found not in around]
            return others[0] if others else None
    return "?"


def supervisors_above(pid: int) -> dict[int, str]:
    """Process id -> its cluster's name, of each supervisor of which a process is a descendant, the nearest first.

    :raises _Gone: it has ended, or one of its ancestors.
    """
    return {parent: name for parent in _ancestors(pid) if (name := _cluster_held_by(parent))}


def _ancestors(pid: int) -> Iterator[int]:
    while pid > 1:
        try:
            pid = psutil.Process(pid).ppid()
        except psutil.Error:
            if psutil.pid_exists(pid):  # another user's, and hidden (proc(5), hidepid): no supervisor of ours is above
                return
            raise _Gone from None
        if pid:
            yield pid


def _cluster_held_by(pid: int) -> str | None:
    try:
        command = psutil.Process(pid).cmdline()
    except psutil.Error:
        if psutil.pid_exists(pid):
            return None
        raise _Gone from None
    return Path(command[-1]).name if DAEMON in command else None
