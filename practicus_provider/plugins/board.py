"""What all connections' backends list, looked at once for everybody who wants to see it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from practicus_provider.backends.base import Backend, Listing, Usage
from practicus_provider.errors import BackendError, PracticusError
from practicus_provider.pricing import Pricing

FRESH = 2.0
"""Seconds for which a look is good enough for whoever comes next."""
PATIENCE = 15.0
"""Seconds that a backend has to answer."""
MEASURING = 3.0
"""Seconds that it has to say what replicas use."""
UNMEASURED = 60.0
"""Seconds before a backend that measured nothing is asked for its measurements again."""


@dataclass(frozen=True)
class Place:
    """Where clusters run.

    :param namespace: of their pods where it is not the connection's.
    """

    conn_id: str
    namespace: str | None = None


@dataclass(frozen=True)
class Look:
    """What was there.

    :param at: seconds since the epoch.
    :param usage: see :meth:`Backend.usage`.
    :param error: why nothing could be seen.
    :param pricing: what replicas cost there.
    """

    at: float
    listings: Sequence[Listing] = ()
    usage: Mapping[str, Mapping[str, Usage]] | None = None
    error: str = ""
    pricing: Pricing | None = None


class Board:
    """Looks at places, one look at a time at each, and none while the last one is fresh. For one event loop.

    :param backend_of: the backend of a place.
    """

    def __init__(self, backend_of: Callable[[Place], Awaitable[Backend]]) -> None:
        self._backend_of = backend_of
        self._looks: dict[Place, asyncio.Task[Look]] = {}
        self._unmeasured: dict[Place, float] = {}  # until when

    async def look(self, place: Place) -> Look:
        """The last look while it is fresh, or the one that is on its way, or a new one."""
        for old in [old for old, look in self._looks.items() if _stale(look)]:
            del self._looks[old]
        if place not in self._looks:
            self._looks[place] = asyncio.create_task(self._look(place))
        return await asyncio.shield(self._looks[place])  # whoever goes away leaves it to the others

    def forget(self, place: Place) -> None:
        """What was there has changed."""
        self._looks.pop(place, None)

    async def _look(self, place: Place) -> Look:
        try:
            async with asyncio.timeout(PATIENCE):
                backend = await self._backend_of(place)
                listings = await backend.list()
                usage = await self._usage(place, backend) if listings else None
        except TimeoutError:
            return Look(time.time(), error=f"no answer within {PATIENCE:g} s")
        except (PracticusError, OSError) as error:
            return Look(time.time(), error=str(error))
        return Look(time.time(), listings, usage, pricing=backend.pricing)

    async def _usage(self, place: Place, backend: Backend) -> Mapping[str, Mapping[str, Usage]] | None:
        if time.monotonic() < self._unmeasured.get(place, 0):
            return None
        usage = None
        with contextlib.suppress(BackendError, TimeoutError):  # it only adds to what is shown
            async with asyncio.timeout(MEASURING):
                usage = await backend.usage()
        if usage is None:
            self._unmeasured[place] = time.monotonic() + UNMEASURED
        return usage


def _stale(look: asyncio.Task[Look]) -> bool:
    if not look.done():
        return False
    return look.cancelled() or look.exception() is not None or time.time() - look.result().at > FRESH
