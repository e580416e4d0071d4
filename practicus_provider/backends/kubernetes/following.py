"""One cluster as the mirror shows it, for all in this process who follow it: what changed is read, and looked at, once.

A cluster of thousands changes as often, so looks at it have some time between them; its end is seen at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Iterator
from itertools import islice
from weakref import WeakKeyDictionary

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.census import BATCH, Census
from practicus_provider.backends.kubernetes.mirror import Changes, Mirror
from practicus_provider.backends.kubernetes.observe import Observation, observed
from practicus_provider.backends.kubernetes.standing import Wait, due, going_on, standing

LARGE = 100
"""Pods of a cluster beyond which its looks are :data:`APART` from each other."""
APART = 0.05
"""Seconds."""


class Following(Changes):
    """Use it by :func:`following`.

    :ivar wakes: when the next look is due, by the monotonic clock, if nothing changes until then.
    """

    def __init__(self, mirror: Mirror, cluster: str) -> None:
        super().__init__()
        self.users = 0
        self.wakes = math.inf
        self._mirror = mirror
        self._cluster = cluster
        self._waiting: set[asyncio.Event] = set()
        self._turn = asyncio.Lock()
        self._urgent = asyncio.Event()
        self._ended: set[str] = set()  # pods, since the last look
        self._census: Census | None = None
        self._heard: dict[str, float] = {}
        self._waits: dict[str, Wait] = {}
        self._changes = 0
        self._known = -1  # so many of them
        self._last: Observation | None = None
        self._looked_at = -math.inf

    def note(self, kind: str, name: str) -> None:
        """See :meth:`Changes.note`."""
        if kind == "Pod":
            self.pods[name] = None
        self._stir(urgent=self._may_end_the_job(kind, name))

    def set(self) -> None:
        """An error has come."""
        self._stir(urgent=True)

    def _stir(self, *, urgent: bool) -> None:
        self._changes += 1
        if urgent:
            self._urgent.set()
        for event in self._waiting:
            event.set()

    def _may_end_the_job(self, kind: str, name: str) -> bool:
        """Whether a change is the first failure, or the last end that was waited for; of Jobs there are few."""
        census, mirror = self._census, self._mirror
        if kind == "Job" or census is None:
            return True
        if kind != "Pod":
            return census.good + len(mirror.told(self._cluster)) >= census.expected
        pod = mirror.pod(self._cluster, name)
        phase = pod.get("status", {}).get("phase") if pod else None
        if phase not in ("Failed", "Succeeded"):
            return False
        self._ended.add(name)
        return (phase == "Failed" and not census.tell) or len(self._ended) >= census.unended

    @contextlib.contextmanager
    def changes(self) -> Iterator[asyncio.Event]:
        """An event that is set whenever an object of the cluster changes; clear it before you look."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            yield event
        finally:
            self._waiting.discard(event)

    async def changed(self, event: asyncio.Event, until: float) -> None:
        """Wait for it, and in a large cluster for further ones, until that time at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(until - time.monotonic() if until < math.inf else None):
                await event.wait()
                if self._census and len(self._census.pods) > LARGE:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._looked_at + APART - time.monotonic()):
                            await self._urgent.wait()

    async def look(self, root: Manifest) -> Observation:
        """What its objects come to now.

        :param root: as the mirror has it.
        """
        async with self._turn:
            if self._last is not None and self._known == self._changes and time.monotonic() < self.wakes:
                return self._last
            known = self._changes
            self._urgent.clear()
            self._ended.clear()
            census = await self._read(root)
            if self._mirror.largest is None and census.cramped:
                await self._mirror.look_at_nodes()
            if self._mirror.largest not in (None, census.largest):
                census.largest = self._mirror.largest or {}
                self.pods |= dict.fromkeys(census.cramped)
                await self._read(root)
            self._looked_at = time.monotonic()
            self._last, self._known = self._observed(census, self._looked_at), known
            return self._last

    async def _read(self, root: Manifest) -> Census:
        """The pods that have changed; all of them at first, and where there is another cluster of that name."""
        census = self._census
        if census is None or census.root["metadata"]["uid"] != root["metadata"]["uid"]:
            census = self._census = Census(root, self._mirror.largest)
            self._heard, self._waits = {}, {}
            self._mirror.add(self._cluster, self)
        else:
            census.set_root(root)
        while self.pods:
            for name in list(islice(self.pods, BATCH)):
                if (pod := self._mirror.pod(self._cluster, name)) is None:
                    census.drop(name)
                else:
                    events = self._mirror.events(pod["metadata"].get("uid", ""))
                    census.put(pod, events[-1].get("message", "") if events else None)
                del self.pods[name]
            if self.pods:
                await asyncio.sleep(0)
        return census

    def _observed(self, census: Census, now: float) -> Observation:
        mirror, jobs = self._mirror, self._mirror.jobs(self._cluster)
        events = (event for job in jobs if not census.owns(job) for event in mirror.events(job["metadata"]["uid"]))
        warnings = sorted(events, key=lambda event: str(event.get("lastTimestamp")))
        told = mirror.told(self._cluster)
        found = observed(census, warnings, told, jobs, (), self._heard, now)
        self._waits = going_on(self._waits, found.troubles, now)
        if stands := standing(self._waits, now):
            found = observed(census, warnings, told, jobs, stands, self._heard, now)
        self._heard = {what: self._heard.get(what, now) for what in found.heard}
        self.wakes = min(found.due, due(self._waits, now))
        return found


_followed: WeakKeyDictionary[Mirror, dict[str, Following]] = WeakKeyDictionary()


@contextlib.contextmanager
def following(mirror: Mirror, cluster: str) -> Iterator[Following]:
    """What all who follow that cluster share; kept for as long as somebody does."""
    table = _followed.setdefault(mirror, {})
    found = table.get(cluster)
    if found is None:
        found = table[cluster] = Following(mirror, cluster)
        mirror.add(cluster, found)
    found.users += 1
    try:
        yield found
    finally:
        found.users -= 1
        if not found.users:
            del table[cluster]
            mirror.remove(cluster, found)
