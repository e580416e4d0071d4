"""What all connections' backends list, looked at once for everybody who wants to see it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from practicus_provider.backends.base import Backend, Listing, Usage
from practicus_provider.errors import BackendError, PracticusError
from practicus_provider.pricing import Pricing

FRESH = 2.0
"""Seconds for which a look is good enough for whoever comes next."""
PATIENCE = 15.0
"""Seconds that a backend has to answer."""
MEASURING = 3.0
"""Seconds that it has to say what replicas use."""
SOON = 3.0
"""Seconds for which who looks at many places waits for one of them; not at all for one that failed or was late before,
so that nobody waits again and again for a connection that is dead."""
REMEMBERED = 600.0
"""Seconds for which what was seen last is shown of a place that does not answer any more."""
LATE = "it has not answered yet"
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
    """What was there. Times are seconds since the epoch.

    :param at: when it was seen; 0: never.
    :param usage: see :meth:`Backend.usage`.
    :param error: why nothing newer could be seen.
    :param pricing: what replicas cost there.
    :param made: when the look ended, which may have failed.
    """

    at: float
    listings: Sequence[Listing] = ()
    usage: Mapping[str, Mapping[str, Usage]] | None = None
    error: str = ""
    pricing: Pricing | None = None
    made: float = 0.0


class Board:
    """Looks at places, one look at a time at each, and none while the last one is fresh. For one event loop.

    :param backend_of: the backend of a place.
    """

    def __init__(self, backend_of: Callable[[Place], Awaitable[Backend]]) -> None:
        self._backend_of = backend_of
        self._looks: dict[Place, tuple[asyncio.Task[Look], float]] = {}  # with when it began
        self._last: dict[Place, Look] = {}
        self._unmeasured: dict[Place, float] = {}  # until when

    async def look(self, place: Place) -> Look:
        """The last look while it is fresh, or the one that is on its way, or a new one."""
        look, _ = self._looking(place)
        return await asyncio.shield(look)  # whoever goes away leaves it to the others

    async def glance(self, place: Place) -> Look:
        """As :meth:`look`, for who looks at many places: of one that does not answer soon, what was seen last."""
        (look, began), last = self._looking(place), self._last.get(place, Look(0))
        await asyncio.wait((look,), timeout=0 if last.error else max(0, began + SOON - time.time()))
        found = look.result() if look.done() else replace(last, error=last.error or LATE)
        if found.error and found.at:
            age = time.time() - found.at
            return replace(found, error=f"{found.error}; what is shown of it was seen {age:.0f} s ago")
        return found

    def forget(self, place: Place) -> None:
        """What was there has changed."""
        self._looks.pop(place, None)

    def _looking(self, place: Place) -> tuple[asyncio.Task[Look], float]:
        now = time.time()
        self._looks = {at: found for at, found in self._looks.items() if not _stale(found[0], now)}
        self._last = {at: look for at, look in self._last.items() if now - look.made < REMEMBERED}
        self._unmeasured = {at: until for at, until in self._unmeasured.items() if now < until}
        if place not in self._looks:
            self._looks[place] = asyncio.create_task(self._look(place)), now
        return self._looks[place]

    async def _look(self, place: Place) -> Look:
        try:
            async with asyncio.timeout(PATIENCE):
                backend = await self._backend_of(place)
                listings = await backend.list()
                usage = await self._usage(place, backend) if listings else None
        except TimeoutError:
            return self._failed(place, f"no answer within {PATIENCE:g} s")
        except (PracticusError, OSError) as error:
            return self._failed(place, str(error))
        now = time.time()
        self._last[place] = Look(now, listings, usage, pricing=backend.pricing, made=now)
        return self._last[place]

    def _failed(self, place: Place, why: str) -> Look:
        last, now = self._last.get(place, Look(0)), time.time()
        kept = last if now - last.at < REMEMBERED else Look(0)
        self._last[place] = replace(kept, error=why, made=now)
        return self._last[place]

    async def _usage(self, place: Place, backend: Backend) -> Mapping[str, Mapping[str, Usage]] | None:
        if place in self._unmeasured:
            return None
        usage = None
        with contextlib.suppress(BackendError, TimeoutError):  # it only adds to what is shown
            async with asyncio.timeout(MEASURING):
                usage = await backend.usage()
        if usage is None:
            self._unmeasured[place] = time.time() + UNMEASURED
        return usage


def _stale(look: asyncio.Task[Look], now: float) -> bool:
    if not look.done():
        return False
    return look.cancelled() or look.exception() is not None or now - look.result().made > FRESH
