"""Follows the logs of pods, and resumes them without a lost or a doubled line.

The kubelet stamps each line with nanoseconds; the stamp of the last line that was taken is the place to go on from.
Our launcher ends both outputs with its container's last words, so that they are known before the kubelet has noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from practicus_provider.backends.kubernetes.api import Api, ApiError
from practicus_provider.backends.kubernetes.render import MAIN
from practicus_provider.errors import NotFound
from practicus_provider.runtime.practicus_runtime.launcher import END_MARK, RESULT_MARK

OUTPUTS = 2
"""A container's: the launcher ends each of them."""
RETRY = 0.5
"""Seconds before a log that was cut is asked for again."""


@dataclass
class PodLog:
    """One pod's log from a place on.

    :param nonce: what the end of an output has to name: the pod's uid.
    :param taken: ``<time stamp>/<n>``: the last line that was taken, as the n-th with its stamp; empty: none was.
    :param ends: the last words that were read so far, of each output.
    """

    api: Api
    pod: str
    nonce: str
    taken: str = ""
    ends: list[str] = field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether all was read: both outputs have said so."""
        return len(self.ends) >= OUTPUTS

    @property
    def last_words(self) -> Mapping[str, Any]:
        """What the launcher said at the end of the outputs."""
        try:
            words = json.loads(self.ends[-1])
        except ValueError:
            return {}
        return words if isinstance(words, dict) else {}

    async def lines(self, *, follow: bool) -> AsyncIterator[str]:
        """Further lines until the end, or those that are there now."""
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
                    text, found, words = text.partition(f"{END_MARK}{self.nonce} ")
                    if not (text.startswith(RESULT_MARK) or (found and not text)):
                        yield text.removesuffix(RESULT_MARK)
                    if found:
                        self.ends.append(words)
                    if self.ended:
                        return


@contextlib.contextmanager
def _cut() -> Iterator[None]:
    """A kubelet that is in trouble is like a cut connection."""
    try:
        yield
    except ApiError as error:
        if error.status < 500:
            raise


async def tail(api: Api, pod: str, nonce: str, lines: int) -> list[str]:
    """The last lines of a pod's log, newest last; empty where there is none (any more)."""
    found = []
    with contextlib.suppress(OSError, TimeoutError, NotFound, ApiError):
        async with api.stream(f"pods/{pod}/log", container=MAIN, tailLines=str(lines + OUTPUTS)) as content:
            async for raw in content:
                text, end, _ = raw.decode(errors="replace").rstrip("\r\n").partition(f"{END_MARK}{nonce} ")
                if text or not end:
                    found.append(text)
    return found[-lines:]


async def follow(log: PodLog, ended: asyncio.Event) -> AsyncIterator[str]:
    """All further lines until the pod has ended; a stream that is cut before is taken up again."""
    while not ended.is_set():
        async for line in log.lines(follow=True):
            yield line
        if log.ended:
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), RETRY)
    async for line in log.lines(follow=False):
        yield line
