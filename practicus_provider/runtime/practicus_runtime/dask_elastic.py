"""A preload of Dask's scheduler that lets its own demand decide how many workers there are.

``dask scheduler --preload practicus_runtime.dask_elastic`` with the bounds in ``PRACTICUS_ELASTIC``. The rules are
those of ``distributed.deploy.adaptive``: grow at once, shrink after several looks in a row, and close idle workers
only, whose results move to others first. What differs is who starts workers: the backend, which is asked for them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from typing import TYPE_CHECKING

from practicus_runtime import control

from .contract import Env, Limits

if TYPE_CHECKING:
    from distributed import Scheduler

INTERVAL = 1.0
"""Seconds between two looks (``distributed.adaptive.interval``)."""
LOOKS = 3
"""Looks in a row that must find a worker idle before it goes (``distributed.adaptive.wait-count``)."""
log = logging.getLogger("distributed.practicus.elastic")


class Elastic:
    """Holds the number of workers between two bounds, following the scheduler's demand."""

    def __init__(self, scheduler: Scheduler, minimum: int, maximum: int) -> None:
        self.scheduler = scheduler
        self.minimum = minimum
        self.maximum = maximum
        self.idle_looks: dict[str, int] = {}

    async def run(self) -> None:
        """Look again and again; a look that fails is said, and does not end this."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.look()
            except Exception:
                log.warning("could not adapt the number of workers", exc_info=True)

    async def look(self) -> None:
        """Ask for missing workers; they may be on their way, and are not started twice. Or retire long idle ones."""
        wanted = min(self.maximum, max(self.minimum, self.scheduler.adaptive_target()))
        if wanted > len(self.scheduler.workers):
            self.idle_looks = {}
            loop = asyncio.get_running_loop()  # to_thread needs Python 3.9
            await loop.run_in_executor(None, control.scale, os.environ[Env.SPAWNS], wanted)
            return
        idle = self.scheduler.workers_to_close(minimum=self.minimum) if wanted < len(self.scheduler.workers) else []
        self.idle_looks = {worker: self.idle_looks.get(worker, 0) + 1 for worker in idle}
        ready = [worker for worker, looks in self.idle_looks.items() if looks >= LOOKS]
        if ready:
            log.info("retiring %s", ready)
            await self.scheduler.retire_workers(workers=ready, close_workers=True, remove=True)


async def dask_setup(scheduler: Scheduler) -> None:
    """Dask calls this once its scheduler runs."""
    limits = Limits.from_json(json.loads(os.environ[Env.ELASTIC]))
    scheduler.practicus_elastic = asyncio.create_task(Elastic(scheduler, limits.minimum, limits.maximum).run())


async def dask_teardown(scheduler: Scheduler) -> None:
    """Dask calls this when its scheduler ends."""
    scheduler.practicus_elastic.cancel()
