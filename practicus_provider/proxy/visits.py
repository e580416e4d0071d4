"""What visitors of pages share: who is answered at once, and whose turn it is."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from practicus_provider.backends.base import Handle
from practicus_provider.plan import Port
from practicus_provider.proxy import budgets
from practicus_provider.proxy.budgets import Busy, Slow

if TYPE_CHECKING:
    from practicus_provider.proxy.http1 import Link

KEPT = 5.0
"""Seconds for which a connection to a replica is kept for the next request."""


class Share:
    """A part of a processor's time: whoever takes more waits."""

    def __init__(self, part: float) -> None:
        self._part = part
        self._free = 0.0  # when all that was taken would be paid back

    async def spend(self, seconds: float) -> None:
        """Say that time was taken. Others have their turn, in any case."""
        now = time.monotonic()
        self._free = max(self._free, now - budgets.BURST) + seconds / self._part
        await asyncio.sleep(max(0.0, self._free - now))


class Visits:
    """All clusters whose pages are asked for."""

    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(budgets.TOTAL)
        self.of_server = Share(budgets.OF_SERVER_IN_ALL)
        self._visitors = WeakValueDictionary[str, asyncio.Semaphore]()
        self._clusters = WeakValueDictionary[Handle, Cluster]()

    def of(self, handle: Handle) -> Cluster:
        """Those of one cluster."""
        return self._clusters.setdefault(handle, Cluster(self))

    def of_visitor(self, visitor: str) -> asyncio.Semaphore:
        """The places that one user may take."""
        return self._visitors.setdefault(visitor, asyncio.Semaphore(budgets.PER_VISITOR))


class Cluster:
    """One cluster, for as long as somebody asks for its pages."""

    def __init__(self, visits: Visits) -> None:
        self._visits = visits
        self._slots = asyncio.Semaphore(budgets.PER_CLUSTER)
        self._tickets = WeakValueDictionary[str, asyncio.Semaphore]()
        self._lined_up = 0
        self._of_proxy = Share(budgets.OF_PROXY)
        self._of_server = Share(budgets.OF_SERVER)
        self._passing = asyncio.Lock()
        self._kept: dict[Port, dict[Link, asyncio.Task[None]]] = {}

    @contextlib.asynccontextmanager
    async def slot(self, visitor: str, ticket: str) -> AsyncIterator[None]:
        """A place among those who are answered.

        :raises Busy: there is none.
        """
        if self._lined_up >= budgets.LINED_UP:
            raise Busy(f"{budgets.LINED_UP} requests of this cluster wait already")
        self._lined_up += 1
        own = self._tickets.setdefault(ticket, asyncio.Semaphore(budgets.PER_TICKET))
        # Who waits holds up nobody but themselves: what others need, too, is taken last.
        line = (own, self._visits.of_visitor(visitor), self._slots, self._visits.slots)
        async with contextlib.AsyncExitStack() as stack:
            try:
                async with within(budgets.LINE, "its turn has not come"):
                    for slots in line:
                        await stack.enter_async_context(slots)
            except Slow as error:
                raise Busy(
                    f"{error}: {budgets.PER_TICKET} requests of one page, {budgets.PER_VISITOR} of one user and "
                    f"{budgets.PER_CLUSTER} of one cluster are answered at once; close windows that show it"
                ) from None
            finally:
                self._lined_up -= 1
            yield

    async def worked(self, since: float) -> None:
        """This process has worked for it since then, by ``time.perf_counter()``."""
        await self._of_proxy.spend(time.perf_counter() - since)

    async def passes(self, size: int, seconds_per_byte: float) -> None:
        """The API server gets something to pass on."""
        seconds = budgets.FRAME + size * seconds_per_byte
        async with self._passing:  # so that the others wait for one thing of each cluster, and not for all it has
            await self._of_server.spend(seconds)
            await self._visits.of_server.spend(seconds)

    def keep(self, port: Port, link: Link) -> None:
        """A connection that nobody uses now."""
        self._kept.setdefault(port, {})[link] = asyncio.create_task(self._expire(port, link))

    def kept(self, port: Port) -> Link | None:
        """One that was kept, if there is any."""
        if not self._kept.get(port):
            return None
        link, expiry = self._kept[port].popitem()
        expiry.cancel()
        return link

    async def _expire(self, port: Port, link: Link) -> None:
        await asyncio.sleep(KEPT)
        del self._kept[port][link]
        await link.close()


@contextlib.asynccontextmanager
async def within(seconds: float, what: str) -> AsyncIterator[None]:
    """:raises Slow: it takes longer; says so after ``what``."""
    try:
        async with asyncio.timeout(seconds) as patience:
            yield
    except TimeoutError:
        if not patience.expired():
            raise
        raise Slow(f"{what} within {seconds:g} s") from None
