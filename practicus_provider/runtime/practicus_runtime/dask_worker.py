"""A preload of Dask's worker, which has no nanny.

``dask worker --no-nanny --preload practicus_runtime.dask_worker``

SIGTERM ends it at once: without a nanny Dask's own answer to that signal closes nothing either, it cancels what runs.
But a close that the scheduler has asked for, as when all of a cluster is told to end, it cancels too, and then waits
for it for ever (https://github.com/dask/distributed/issues/6279).

Where a nanny would start another process, as for ``client.restart()``, this one begins anew: it is the same replica.

A worker asks for its scheduler for ever, whatever is in the way; so this says what that is, and gives up in the end.

It asks which address of its own leads there, too, though ``--host`` has told it; and by IPv4 alone, so that it warns
where there is none.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING

from practicus_runtime.waiting import POLL, Wait

if TYPE_CHECKING:
    from distributed import Worker

warnings.filterwarnings("ignore", "Couldn't detect a suitable IP address", RuntimeWarning)

REGISTERED = 5.0
"""Seconds in which a worker is registered, unless something is in the way."""


async def dask_setup(worker: Worker) -> None:
    """Dask calls this as its worker starts, after it has set a handler of its own."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    worker.practicus_begins_anew = False

    async def begin_anew() -> None:
        worker.practicus_begins_anew = True

    worker.handlers["practicus_begin_anew"] = begin_anew
    worker.handlers["practicus_give_up"] = give_up
    worker.practicus_wait = asyncio.create_task(look(worker))


async def give_up(why: str) -> None:
    """As the scheduler tells the one that is in everybody's way."""
    print(why, file=sys.stderr, flush=True)
    os._exit(1)


def dask_teardown(worker: Worker) -> None:
    """Dask calls this as its worker closes."""
    if worker.practicus_begins_anew:
        os.execv(sys.executable, [sys.executable, "-m", "distributed.cli.dask_worker", *sys.argv[1:]])


async def look(worker: Worker) -> None:
    """Look for the scheduler beside Dask, which connects to it in its own way."""
    from distributed.comm import get_address_host_port

    wait = Wait("coordinator-0", *get_address_host_port(worker.scheduler.address))
    await asyncio.sleep(REGISTERED)
    try:
        while worker.status.name in ("created", "init", "starting") and not wait.over():
            await asyncio.sleep(POLL)
    except SystemExit as end:
        os._exit(int(end.code or 0))
