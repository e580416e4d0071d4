"""The logs of a cluster's replicas, read from their files as they grow."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from practicus_provider.backends.base import LogLine
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.refusals import words
from practicus_provider.runtime.practicus_runtime.files import opened
from practicus_provider.runtime.practicus_runtime.lines import Screen, pieces

CHUNK = 1 << 16
"""Bytes that are read at once."""


@dataclass
class ReplicaLog:
    """One replica's log from a place on.

    :param taken: bytes of the lines that were taken.
    :param why: it cannot be read, as was said.
    """

    path: Path
    taken: int
    why: str = ""
    _screen: Screen = field(default_factory=Screen)

    def __post_init__(self) -> None:
        self._at = self.taken
        role, _, index = self.path.stem.rpartition("-")
        self.role, self.index = role, int(index)

    def lines(self, now: float, *, whole: bool) -> Iterator[LogLine]:
        """Further lines that have ended, and of a bar a state now and then.

        :param now: seconds of any clock.
        :param whole: the log is: its last line needs no end.
        """
        try:
            file = opened(str(self.path))
        except FileNotFoundError:
            raise
        except OSError as error:
            if words(error) != self.why:
                self.why = words(error)
                yield self._line(f"(this log cannot be read any more: {self.why})".encode())
            return
        with file:
            file.seek(self._at)
            while data := file.read(CHUNK):
                for piece, ends in pieces(data):
                    self._at += len(piece) + ends
                    self._screen.add(piece)
                    if ends:
                        yield from self._end()
        if whole and self._screen.begun:
            yield from self._end()
        elif state := self._screen.state(now):
            yield self._line(state)

    def due(self) -> float | None:
        """When there is something to show though nothing was written meanwhile; None: not at all."""
        return self._screen.due()

    def _end(self) -> Iterator[LogLine]:
        self.taken = self._at
        yield from map(self._line, self._screen.end())

    def _line(self, text: bytes) -> LogLine:
        return LogLine(self.role, self.index, text.decode(errors="replace"))


class Reader:
    """Reads the logs of some replicas.

    :param sources: roles, or single replicas.
    :param taken: ``role-index`` -> bytes of its log that were taken before.
    """

    def __init__(self, sources: Collection[str], taken: dict[str, int]) -> None:
        self._sources = frozenset(sources)
        self._before = taken
        self._logs: dict[str, ReplicaLog] = {}

    @property
    def taken(self) -> dict[str, int]:
        """As given at first, with what was taken since."""
        return self._before | {name: log.taken for name, log in self._logs.items()}

    def lines(self, folder: ClusterFolder, now: float, *, whole: bool) -> Iterator[LogLine]:
        """What is new in all of them: see :meth:`ReplicaLog.lines`."""
        for path in folder.logs():
            role = path.stem.rpartition("-")[0]
            if not self._sources.isdisjoint((role, path.stem)):
                log = self._logs.setdefault(path.stem, ReplicaLog(path, self._before.get(path.stem, 0)))
                yield from log.lines(now, whole=whole)

    def due(self) -> float | None:
        """See :meth:`ReplicaLog.due`."""
        return min((due for log in self._logs.values() if (due := log.due()) is not None), default=None)
