"""The processes of local clusters, for tests that end them."""

from __future__ import annotations

import asyncio
import time

import psutil

from practicus_provider.backends.base import Handle
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.processes import marked
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.status import State
from tests.plans import until

GONE_WITHIN = 10.0
"""Seconds after which nothing of a cluster may be left."""


def supervisor_of(backend: LocalBackend, handle: Handle) -> psutil.Process:
    folder = str(backend.root / handle.name)
    found = [p for p in psutil.process_iter(["cmdline", "create_time"]) if folder in (p.info["cmdline"] or [])]
    return max(found, key=lambda process: process.info["create_time"])  # the one that it was forked from may still end


def processes_of(handle: Handle, replica: str) -> list[psutil.Process]:
    """Launcher first."""
    found = marked(Env.REPLICA, f"{handle.uid}/{replica}")
    return sorted(found, key=lambda process: process.create_time())


async def nothing_left(handle: Handle) -> None:
    give_up = time.monotonic() + GONE_WITHIN
    while left := marked(Env.CLUSTER, handle.uid):
        assert time.monotonic() < give_up, left
        await asyncio.sleep(0.05)


async def running(backend: LocalBackend, handle: Handle) -> None:
    await until(backend, handle, lambda status: status.state is State.RUNNING)
