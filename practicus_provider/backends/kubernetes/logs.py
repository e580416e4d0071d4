"""Follows the logs of pods, and resumes them without a lost or a doubled line.

The kubelet stamps each line with nanoseconds; the stamp of the last line that was taken is the place to go on from.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from practicus_provider.backends.kubernetes.api import Api, ApiError
from practicus_provider.backends.kubernetes.render import MAIN
from practicus_provider.errors import NotFound
from practicus_provider.runtime.practicus_runtime.launcher import RESULT_MARK

RETRY = 0.5
"""Seconds before a log that was cut is asked for again."""


@dataclass
class PodLog:
    """One pod's log from a place on.

    :param taken: ``<time stamp>/<n>``: the last line that was taken, as the n-th with its stamp; empty: none was.
    """

    api: Api
    pod: str
    taken: str = ""

    async def lines(self, *, follow: bool) -> AsyncIterator[str]:
        """Further lines until the container's end, or those that are there now."""
        start, _, count = self.taken.partition("/")
        skip = int(count or 0)
        query = {"container": MAIN, "timestamps": "true", "follow": str(follow).lower()}
        if start:
            query["sinceTime"] = start  # the server goes by whole seconds: some lines come again
        last, nth = start, skip
        with contextlib.suppress(OSError, TimeoutError, NotFound), _cut():
            async with self.api.stream(f"pods/{self.pod}/log", **query) as content:
                async for raw in content:
                    stamp, _, text = raw.decode(errors="replace").rstrip("\r\n").partition(" ")
                    if stamp < start:
                        continue
                    if stamp == start and skip:
                        skip -= 1
                        continue
                    last, nth = stamp, nth + 1 if stamp == last else 1
                    self.taken = f"{last}/{nth}"
                    if not text.startswith(RESULT_MARK):
                        yield text.removesuffix(RESULT_MARK)


@contextlib.contextmanager
def _cut() -> Iterator[None]:
    """A kubelet that is in trouble is like a cut connection."""
    try:
        yield
    except ApiError as error:
        if error.status < 500:
            raise


async def tail(api: Api, pod: str, lines: int) -> list[str]:
    """The last lines of a pod's log, newest last; empty where there is none (any more)."""
    found = []
    with contextlib.suppress(OSError, TimeoutError, NotFound, ApiError):
        async with api.stream(f"pods/{pod}/log", container=MAIN, tailLines=str(lines)) as content:
            async for raw in content:
                found.append(raw.decode(errors="replace").rstrip("\r\n"))
    return found


async def follow(log: PodLog, ended: asyncio.Event) -> AsyncIterator[str]:
    """All further lines until the pod has ended; a stream that is cut before is taken up again."""
    while not ended.is_set():
        async for line in log.lines(follow=True):
            yield line
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), RETRY)
    async for line in log.lines(follow=False):
        yield line
