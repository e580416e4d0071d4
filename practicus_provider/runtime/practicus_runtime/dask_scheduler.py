"""A preload of Dask's scheduler, whose workers have no nanny: one that ends is the job's end.

``dask scheduler --preload practicus_runtime.dask_scheduler``

- tells at the port ``PRACTICUS_CLIENTS_PORT`` from where clients have come;
- restarts workers as a nanny does, with ``practicus_runtime.dask_worker``;
- refuses what only a nanny could do;
- ends a job whose workers have all paused for good.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any, List, Optional, Set

from .contract import Env

if TYPE_CHECKING:
    from distributed import Scheduler

INTERVAL = 1.0
"""Seconds between two looks at who has paused."""
SAY = 10.0
"""Seconds for which all workers have to be paused, with work left, before that is said."""
PATIENCE = 300.0
"""Likewise, before the job is ended."""
NO_NANNY = (
    "the workers of this cluster have no nanny, so that the end of one is the job's and is said: instead of a "
    "NannyPlugin write a WorkerPlugin; instead of Environ give env=, of UploadDirectory files=, of "
    "PipInstall(restart_workers=True) requirements="
)
log = logging.getLogger("distributed.practicus")


class Pauses:
    """For how long all workers have been paused, in seconds of any clock that only goes forward."""

    def __init__(self) -> None:
        self.since: Optional[float] = None  # noqa: UP045  (Python 3.8)
        self.said = False

    def look(self, stuck: bool, now: float) -> str:
        """What to do now: ``"say"``, once for each time, ``"end"``, or nothing."""
        if not stuck:
            self.since, self.said = None, False
            return ""
        self.since = now if self.since is None else self.since
        if now - self.since >= PATIENCE:
            return "end"
        if now - self.since >= SAY and not self.said:
            self.said = True
            return "say"
        return ""


def stuck(scheduler: Scheduler) -> bool:
    """Whether there is work, and no worker begins or does any."""
    workers = list(scheduler.workers.values())
    if not workers or any(worker.status.name != "paused" or worker.executing for worker in workers):
        return False
    return bool(scheduler.queued or scheduler.unrunnable or any(worker.processing for worker in workers))


def why(scheduler: Scheduler) -> str:
    """That all workers have paused, and what to do about it."""
    used = [f"{w.name}: {w.memory.process >> 20} of {w.memory_limit >> 20} MiB" for w in scheduler.workers.values()]
    return (
        f"all {len(used)} workers have paused, as each uses most of its memory ({'; '.join(used[:4])}), and begin no "
        "further task. Raise worker_resources=Resources(memory=...), make partitions smaller, or let go of results"
    )


async def watch_pauses(scheduler: Scheduler) -> None:
    """Say in every client's output that all workers have paused; then end the fullest one, and with it the job."""
    pauses, loop = Pauses(), asyncio.get_running_loop()
    while True:
        await asyncio.sleep(INTERVAL)
        what = pauses.look(stuck(scheduler), loop.time())
        if what == "say":
            text = f"WARNING: {why(scheduler)}. If that stays so, the job is ended after {PATIENCE:g} s"
            log.warning(text)
            scheduler.log_event("print", {"args": (text,), "sep": " ", "end": "\n", "file": 2, "flush": True})
        elif what == "end":
            fullest = max(scheduler.workers.values(), key=lambda worker: worker.memory.process)
            text = f"{why(scheduler)}. This has lasted for {PATIENCE:g} s, so this worker ends"
            await tell(scheduler, [fullest.address], op="practicus_give_up", why=text)
            pauses = Pauses()


async def tell(scheduler: Scheduler, workers: List[str], **message: Any) -> None:  # noqa: UP006  (Python 3.8)
    """Each of these workers, if it can be reached."""
    with contextlib.suppress(OSError):
        await scheduler.broadcast(msg=message, workers=workers, on_error="ignore")


def restarting(scheduler: Scheduler) -> Any:
    """``Scheduler.restart_workers``, which is a part of ``restart``, with workers that begin anew where they were."""
    restart = scheduler.restart_workers

    async def restart_workers(workers: Any = None, **how: Any) -> Any:
        await tell(scheduler, list(scheduler.workers if workers is None else workers), op="practicus_begin_anew")
        return await restart(workers, **how)

    return restart_workers


async def refuse(comm: Any = None, plugin: Any = None, name: str = "", idempotent: bool = False) -> None:
    """In place of ``Scheduler.register_nanny_plugin``."""
    raise RuntimeError(NO_NANNY)


class Clients:
    """From where clients have come, told as a JSON line to whoever connects."""

    def __init__(self) -> None:
        self.hosts: Set[str] = set()  # noqa: UP006  (Python 3.8)

    def heeding(self, add_client: Any) -> Any:
        """``Scheduler.add_client``, which we hear of."""

        async def heeded(comm: Any, client: str, versions: Any) -> None:
            from distributed.comm import get_address_host

            self.hosts.add(get_address_host(comm.peer_address))
            await add_client(comm, client=client, versions=versions)

        return heeded

    async def tell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Whoever has connected."""
        with contextlib.suppress(OSError):
            writer.write(json.dumps(sorted(self.hosts)).encode() + b"\n")
            await writer.drain()
        writer.close()


async def dask_setup(scheduler: Scheduler) -> None:
    """Dask calls this once its scheduler runs."""
    clients = Clients()
    scheduler.register_nanny_plugin = scheduler.handlers["register_nanny_plugin"] = refuse
    scheduler.restart_workers = restarting(scheduler)
    scheduler.handlers["register-client"] = clients.heeding(scheduler.add_client)
    host, port = os.environ[Env.HOST], os.environ[Env.CLIENTS_PORT]
    scheduler.practicus_clients = await asyncio.start_server(clients.tell, host, int(port))
    scheduler.practicus_pauses = asyncio.create_task(watch_pauses(scheduler))


async def dask_teardown(scheduler: Scheduler) -> None:
    """Dask calls this when its scheduler ends."""
    scheduler.practicus_pauses.cancel()
    scheduler.practicus_clients.close()
