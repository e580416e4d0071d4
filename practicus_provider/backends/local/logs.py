"""The logs of a cluster's replicas, read from their files as they grow."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from practicus_provider.backends.base import LogLine
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.refusals import words
from practicus_provider.runtime.practicus_runtime.lines import Screen, pieces
from practicus_provider.runtime.practicus_runtime.logfile import Piece

CHUNK = 1 << 16
"""Bytes that are read at once."""
TURN = 1 << 20
"""Bytes without the end of a line after which others of this process have their turn."""
TOO_LONG = (
    "(what follows of this log is not read: no file of it may have more than {} bytes, by the connection's log_limit)"
)
LEFT_OUT = (
    "(... {} bytes of this log are left out here: its beginning and its end are kept, as the connection's extra "
    "log_limit says, and what the disk takes ...)"
)


@dataclass
class ReplicaLog:
    """One replica's log from a place on.

    :param name: the replica's.
    :param taken: its place: bytes up to the end of the lines that were taken.
    :param most: bytes that one of its files may have. A job can write there what its launcher would not, or leave a
        hole as large as no disk.
    :param why: it cannot be read, as was said.
    """

    name: str
    taken: int
    most: float = math.inf
    why: str = ""
    _screen: Screen = field(default_factory=Screen)

    def __post_init__(self) -> None:
        self._at = self.taken
        role, _, index = self.name.rpartition("-")
        self.role, self.index = role, int(index)

    def lines(self, files: Sequence[Piece], now: float, *, whole: bool) -> Iterator[LogLine | None]:
        """Further lines that have ended, and of a bar a state now and then; None: a line goes on and on.

        :param files: those that the log has.
        :param now: seconds of any clock.
        :param whole: the log is: its last line needs no end.
        """
        ends = [file.start for file in files[1:]]
        try:
            for file, end in zip(files, [*ends, math.inf], strict=True):
                if self._at < end:
                    yield from self._read(file)
        except FileNotFoundError:
            raise
        except OSError as error:
            if words(error) != self.why:
                self.why = words(error)
                yield self._line(f"(this log cannot be read any more: {self.why})".encode())
            return
        if whole and self._screen.begun:
            yield from self._end()
        elif state := self._screen.state(now):
            yield self._line(state)

    def due(self) -> float | None:
        """When there is something to show though nothing was written meanwhile; None: not at all."""
        return self._screen.due()

    def _read(self, part: Piece) -> Iterator[LogLine | None]:
        """What is new in one of its files."""
        try:
            file = part.opened(self._at)
        except FileNotFoundError:
            if part.start == 0:
                raise
            return  # it has made room for the end
        with file:
            if part.start > self._at:
                yield from self._skip_to(part.start)
            silent = 0
            while data := file.read(CHUNK):
                if self._at >= part.start + self.most:
                    yield from self._stop()
                    return
                silent += len(data)
                for piece, ends in pieces(data):
                    self._at += len(piece) + ends
                    self._screen.add(piece)
                    if ends:
                        silent = 0
                        yield from self._end()
                if silent >= TURN:
                    silent = 0
                    yield None

    def _stop(self) -> Iterator[LogLine]:
        """Say that no more is read of a file."""
        why = TOO_LONG.format(self.most)
        if self._screen.begun:
            yield from self._end()
        if why != self.why:
            self.why = why
            yield self._line(why.encode())

    def _skip_to(self, place: int) -> Iterator[LogLine]:
        """Say that what is before it is in no file any more."""
        if self._screen.begun:
            yield from self._end()
        left_out, self._at = place - self._at, place
        self.taken = place
        yield self._line(LEFT_OUT.format(left_out).encode())

    def _end(self) -> Iterator[LogLine]:
        self.taken = self._at
        yield from map(self._line, self._screen.end())

    def _line(self, text: bytes) -> LogLine:
        return LogLine(self.role, self.index, text.decode(errors="replace"))


class Reader:
    """Reads the logs of some replicas.

    :param sources: roles, or single replicas.
    :param taken: ``role-index`` -> bytes of its log that were taken before.
    :param most: bytes that one file of a log may have.
    """

    def __init__(self, sources: Collection[str], taken: dict[str, int], most: float = math.inf) -> None:
        self._sources = frozenset(sources)
        self._most = most
        self._before = taken
        self._logs: dict[str, ReplicaLog] = {}

    @property
    def taken(self) -> dict[str, int]:
        """As given at first, with what was taken since."""
        return self._before | {name: log.taken for name, log in self._logs.items()}

    def lines(self, folder: ClusterFolder, now: float, *, whole: bool) -> Iterator[LogLine | None]:
        """What is new in all of them: see :meth:`ReplicaLog.lines`."""
        for name, files in folder.logs().items():
            role = name.rpartition("-")[0]
            if not self._sources.isdisjoint((role, name)):
                log = self._logs.setdefault(name, ReplicaLog(name, self._before.get(name, 0), self._most))
                yield from log.lines(files, now, whole=whole)

    def due(self) -> float | None:
        """See :meth:`ReplicaLog.due`."""
        return min((due for log in self._logs.values() if (due := log.due()) is not None), default=None)
