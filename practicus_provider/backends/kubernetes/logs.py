"""Follows the logs of pods, and resumes them without a lost or a doubled line.

The kubelet stamps each line with nanoseconds; the stamp of the last line that was taken is the place to go on from.
Our launcher ends both outputs with its container's last words, so that they are known before the kubelet has noticed.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from practicus_provider.aiotasks import stop
from practicus_provider.backends.base import Handle, LogLine
from practicus_provider.backends.kubernetes.api import TIMEOUT, Api, ApiError, Lines, segment
from practicus_provider.backends.kubernetes.labels import MAIN
from practicus_provider.backends.kubernetes.mirror import Mirror
from practicus_provider.backends.kubernetes.pod import Pod
from practicus_provider.errors import BackendError, NotFound
from practicus_provider.runtime.practicus_runtime.contract import (
    END_MARK,
    MESSAGE_LIMIT,
    RESULT_MARK,
    LastWords,
    parsed,
)
from practicus_provider.runtime.practicus_runtime.lines import Screen, pieces

OUTPUTS = 2
"""A container's: the launcher ends each of them."""
RETRY = 0.5
"""Seconds before a log that was cut is asked for again; doubled each time that nothing was read, up to
:data:`LONGEST_RETRY`: a node that does not answer may stay so for long."""
LONGEST_RETRY = 15.0
QUEUED = 1000
"""Lines of one cluster that were read and not taken yet: beyond them the server waits."""
LATER = "(as many logs are followed as may be at once: this one is read once it is its turn, or its pod has ended)"
DISORDER = 100
"""Stamps among which lines may be out of order."""
LATE = 5.0
"""Seconds after a pod's end in which its log must have ended: else the connection is broken, and does not know."""
LAST_PATIENCE = 30.0
"""Seconds for which what is left of an ended pod's log is asked for again, if that was cut or refused."""
SILENCE = 600.0
"""Seconds without a line after which a log that is followed is asked for anew, as its connection may be broken."""


@dataclass
class PodLog:
    """One pod's log from a place on.

    :param nonce: what the end of an output has to name: the pod's uid.
    :param taken: ``<time stamp>/<n>``: the last line that was taken, as the n-th that has its stamp or a later one: the
        two outputs of a container are stamped each by itself, and may be out of order. Empty: none was. (The server
        goes on with the second of that stamp: a later line that is stamped a second earlier is missed.)
    :param ends: the last words that were read so far, of each output.
    :param whole: whether the last reading came to the end of what there was.
    """

    api: Api
    pod: str
    nonce: str
    taken: str = ""
    ends: list[str] = field(default_factory=list)
    whole: bool = False
    _reading: Lines | None = None

    @property
    def ended(self) -> bool:
        """Whether all was read: both outputs have said so."""
        return len(self.ends) >= OUTPUTS

    @property
    def last_words(self) -> LastWords:
        """What the launcher said at the end of the outputs."""
        return LastWords.from_json(parsed(self.ends[-1], MESSAGE_LIMIT))

    async def lines(self, *, follow: bool) -> AsyncGenerator[str, None]:
        """Further lines until the end, or those that are there now; of a bar a state now and then."""
        entries = _Entries(self.taken)
        query = {"container": MAIN, "timestamps": "true", "follow": str(follow).lower()}
        if entries.start:
            query["sinceTime"] = entries.start  # it goes by whole seconds: some lines come again
        with self._cut():
            async with self.api.stream(
                f"pods/{segment(self.pod)}/log", silence=SILENCE if follow else TIMEOUT, **query
            ) as found:
                self._reading = found
                async for data in found.chunks():
                    for piece, ends in pieces(data):
                        entries.add(piece)
                        for text in self._take(entries) if ends else ():
                            yield text
                        if self.ended:
                            return
                    if state := entries.state(time.monotonic()):
                        yield state
                if entries.begun and not follow:  # else it was cut off between the API server and the kubelet
                    for text in self._take(entries):
                        yield text

    def _take(self, entries: _Entries) -> Iterator[str]:
        """The lines of an entry that has ended, unless they were taken before."""
        for text in entries.end():
            self.taken = entries.place
            text, end, words = text.partition(f"{END_MARK}{self.nonce} ")
            if not (text.startswith(RESULT_MARK) or (end and not text)):
                yield text.removesuffix(RESULT_MARK)
            if end:
                self.ends.append(words)

    def cut(self) -> None:
        """Have :meth:`lines` end, as if the connection broke."""
        if self._reading is not None:
            self._reading.cut()

    @contextlib.contextmanager
    def _cut(self) -> Iterator[None]:
        """What may be over soon ends a reading: a kubelet or a server that is in trouble is like a cut connection."""
        self.whole = False
        try:
            yield
            self.whole = True
        except NotFound:
            self.whole = True
        except (OSError, TimeoutError):
            return
        except ApiError as error:
            if error.status < 500 and error.status != 429:
                raise


class _Places:
    """Numbers lines among those that have their stamp or a later one."""

    def __init__(self) -> None:
        self._newest = ""
        self._lines: dict[str, int] = {}  # stamp -> how many have it, of the last stamps that came

    def next(self, stamp: str) -> int:
        """Of the next line."""
        self._lines[stamp] = self._lines.get(stamp, 0) + 1
        if len(self._lines) > DISORDER:
            del self._lines[next(iter(self._lines))]
        if stamp > self._newest:
            self._newest = stamp
            return 1
        return sum(lines for each, lines in self._lines.items() if each >= stamp)


class _Entries:
    """Lines as the kubelet gives them, while they come: a stamp, a blank, and what the container has written.

    :param taken: see :attr:`PodLog.taken`; they are passed over.
    :ivar start: the stamp of the last one that was taken; empty: none was.
    :ivar place: of the last one that has ended, as :attr:`PodLog.taken`.
    """

    def __init__(self, taken: str) -> None:
        self.place = taken
        self.start, _, count = taken.partition("/")
        self._nth = self._skip = int(count or 0)
        self._places = _Places()
        self._screen = Screen()
        self._stamp = b""
        self._stamped = False

    @property
    def begun(self) -> bool:
        """Whether there is one that has not ended."""
        return self._stamp != b""

    def add(self, piece: bytes) -> None:
        """More of the one that is coming."""
        if not self._stamped:
            self._stamp, blank, piece = (self._stamp + piece).partition(b" ")
            self._stamped = blank != b""
        self._screen.add(piece)

    def state(self, now: float) -> str | None:
        """Of a bar, if it is time to show it."""
        state = None if self._skip else self._screen.state(now)
        return None if state is None else state.decode(errors="replace")

    def end(self) -> Sequence[str]:
        """What the one shows that has come; nothing if it was taken before."""
        stamp, lines = self._stamp.decode(errors="replace"), self._screen.end()
        self._stamp, self._stamped = b"", False
        nth = self._places.next(stamp)
        if self._skip and stamp < self.start:
            return ()
        if self._skip and (stamp == self.start or self._nth > 1):  # else that line is gone, with a log that was rotated
            self._skip -= 1
            return ()
        self._skip = 0
        self.place = f"{stamp}/{nth}"
        return [line.decode(errors="replace") for line in lines]


async def tail(api: Api, pod: str, nonce: str, lines: int, container: str = MAIN, patience: float = 0.0) -> list[str]:
    """The last lines of a pod's log, newest last; empty where there is none (any more).

    :param patience: seconds for which it is asked for again, if it was cut or could not be had.
    """
    query, give_up = {"container": container, "tailLines": str(lines + OUTPUTS)}, time.monotonic() + patience
    while True:
        found: list[bytes] = []
        try:
            async with api.stream(f"pods/{segment(pod)}/log", silence=TIMEOUT, **query) as content:
                screen = Screen()
                async for data in content.chunks():
                    for piece, ends in pieces(data):
                        screen.add(piece)
                        found += screen.end() if ends else ()
                found += screen.end() if screen.begun else ()
            break
        except NotFound:
            break
        except (OSError, TimeoutError, BackendError):
            if time.monotonic() >= give_up:
                break
        await asyncio.sleep(RETRY)
    texts = (line.decode(errors="replace").partition(f"{END_MARK}{nonce} ") for line in found)
    return [text for text, end, _ in texts if text or not end][-lines:]


async def follow(log: PodLog, ended: asyncio.Event, turns: asyncio.Semaphore) -> AsyncGenerator[str, None]:
    """All further lines until the pod has ended; a stream that is cut before is taken up again.

    :param turns: of streams that may last. Who has none reads all at the pod's end.
    """
    cutting, delay = asyncio.create_task(_cut_late(log, ended)), RETRY
    try:
        if turns.locked():
            yield LATER
        while not ended.is_set():
            before = log.taken
            async with _turn_or_end(turns, ended):
                if not ended.is_set():
                    async with contextlib.aclosing(log.lines(follow=True)) as lines:
                        async for line in lines:
                            yield line
            if log.ended:
                return
            delay = RETRY if log.taken != before else min(2 * delay, LONGEST_RETRY)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await ended.wait()
    finally:
        await stop(cutting)
    give_up = time.monotonic() + LAST_PATIENCE
    while time.monotonic() < give_up:
        async with log.api.turns, contextlib.aclosing(log.lines(follow=False)) as lines:
            async for line in lines:
                yield line
        if log.whole or log.ended:
            return
        await asyncio.sleep(RETRY)
    yield f"(the end of the log of {log.pod} cannot be read)"


@contextlib.asynccontextmanager
async def _turn_or_end(turns: asyncio.Semaphore, ended: asyncio.Event) -> AsyncIterator[None]:
    """A turn, or the pod's end, whichever comes first."""
    taking, ending = asyncio.create_task(turns.acquire()), asyncio.create_task(ended.wait())
    try:
        await asyncio.wait((taking, ending), return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        if not taking.cancel():
            turns.release()
        await stop(taking, ending)


async def _cut_late(log: PodLog, ended: asyncio.Event) -> None:
    await ended.wait()
    await asyncio.sleep(LATE)
    log.cut()


@dataclass(frozen=True)
class Read:
    """What was read of a pod's log.

    :param place: up to where, as :attr:`PodLog.taken`.
    :param line: one line of it; None: it is over.
    :param last_words: what its end says.
    """

    pod: str
    place: str
    line: LogLine | None = None
    last_words: LastWords = field(default_factory=LastWords)


class Reader:
    """Follows some pods at once.

    :param sources: roles, or single replicas.
    :param taken: pod -> the last line of its log that was taken before.
    :param over: pods whose logs were taken to their ends.
    """

    def __init__(
        self, mirror: Mirror, handle: Handle, sources: Collection[str], taken: Mapping[str, str], over: Collection[str]
    ) -> None:
        self.mirror = mirror
        self.handle = handle
        self.sources = frozenset(sources)
        self.taken = taken
        self.over = frozenset(over)
        self.found: asyncio.Queue[Read | None] = asyncio.Queue(QUEUED)

    async def read(self, observations: AsyncIterator[object]) -> AsyncGenerator[Read, None]:
        """All further lines, and each log's end, until the cluster's end."""
        attending = asyncio.create_task(self._attend(observations))
        attending.add_done_callback(self._wake)
        try:
            while not (attending.done() and self.found.empty()):
                if (found := await self.found.get()) is not None:
                    yield found
            await attending
        finally:
            await stop(attending)

    def _wake(self, _: object) -> None:
        """Have whoever waits for what is found see that it was all."""
        if self.found.empty():
            self.found.put_nowait(None)

    async def _attend(self, observations: AsyncIterator[object]) -> None:
        """Have all read; the first error ends it."""
        try:
            async with asyncio.TaskGroup() as readers:
                await self._read_all(observations, readers)
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _read_all(self, observations: AsyncIterator[object], readers: asyncio.TaskGroup) -> None:
        reading: dict[str, asyncio.Task[None]] = {}
        ended: dict[str, asyncio.Event] = {}
        cluster = self.handle.name
        with self.mirror.changes(cluster) as changed:
            async for _ in observations:
                found = [self.mirror.pod(cluster, name) for name in changed.pods]
                changed.pods.clear()
                for pod in filter(self._is_wanted, map(Pod, filter(None, found))):
                    over = ended.setdefault(pod.name, asyncio.Event())
                    if pod.ended is not None:
                        over.set()
                    if pod.name not in reading:
                        reading[pod.name] = readers.create_task(self._read(pod, over))
        for name, task in reading.items():  # one that merely served writes on after the job's end
            if not ended[name].is_set():
                task.cancel()

    def _is_wanted(self, pod: Pod) -> bool:
        named = not self.sources.isdisjoint((pod.role, f"{pod.role}-{pod.index}"))
        return named and pod.started and pod.name not in self.over

    async def _read(self, pod: Pod, ended: asyncio.Event) -> None:
        log = PodLog(self.mirror.api, pod.name, pod.uid, self.taken.get(pod.name, ""))
        try:
            async with contextlib.aclosing(follow(log, ended, self.mirror.streams)) as texts:
                async for text in texts:
                    await self.found.put(Read(pod.name, log.taken, LogLine(pod.role, pod.index, text)))
            if log.ended:
                await self.found.put(Read(pod.name, log.taken, last_words=log.last_words))
        except BackendError as error:
            line = LogLine(pod.role, pod.index, f"(the log of {pod.name} cannot be read: {error})")
            await self.found.put(Read(pod.name, log.taken, line))
