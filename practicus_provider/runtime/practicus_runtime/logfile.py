"""A log on disk that is kept within bounds: of one that outgrows them its beginning and its end are.

Its first file, ``NAME.log``, takes the first half of what may be kept. What comes after that goes to further files,
``NAME.log.PLACE``, of a quarter each: before a third one begins, the oldest goes. A place is how many bytes of the log
were written before, in 15 digits. So a reader's place stays right whatever was left out, and ``cat NAME.log*`` shows
the files in order.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import termios
from typing import BinaryIO, List, NamedTuple

from .files import opened

DIGITS = 15
"""Of a place: as many bytes as no disk holds."""
HEADER_LIMIT = 200
"""Bytes of the first line of a further file."""
CHUNK = 1 << 16
"""Bytes that are taken at once: as many as a pipe holds (pipe(7))."""


class Piece(NamedTuple):
    """One file of a log.

    :param start: how many bytes of the log were written before those in it.
    """

    start: int
    path: str

    @classmethod
    def of(cls, path: str) -> Piece:
        """The one in that file: the first of its log, unless the file's name ends with a place."""
        place = path.rpartition(".")[2]
        return cls(int(place) if is_place(place) else 0, path)

    def opened(self, at: int) -> BinaryIO:
        """Open its file where that byte of the log stands, or will.

        :raises FileNotFoundError: there is none.
        :raises OSError: it is no regular file.
        """
        file = opened(self.path)
        header = len(file.readline(HEADER_LIMIT)) if self.start else 0
        file.seek(header + max(0, at - self.start))
        return file


def is_place(text: str) -> bool:
    """Whether the name of a log's file ends so, if it is not the first one."""
    return len(text) == DIGITS and text.isascii() and text.isdigit()


def header(start: int) -> bytes:
    """The first line of a further file, for whoever reads that without us. It is no part of the log."""
    return b"(... this goes on after %d bytes of the log; what of these is in no file was left out ...)\n" % start


class LogFile:
    """Writes one log.

    :param path: of its first file; what is in it stays.
    :param limit: bytes of the log that are kept at most.
    :raises OSError: it cannot be written.
    """

    def __init__(self, path: str, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._at = os.fstat(self.file).st_size
        self._room = limit // 2 - self._at
        self._further: List[str] = []  # noqa: UP006  (Python 3.8)

    def write(self, data: bytes) -> None:
        """Add to it. What a full disk does not take is left out: the job goes on."""
        while data:
            if self._room <= 0 and not self._began_another():
                self._at += len(data)
                return
            try:
                written = os.write(self.file, data[: self._room])
            except OSError:
                written, self._room = len(data), 0  # the next file says where it goes on
            self._at += written
            self._room -= written
            data = data[written:]

    def _began_another(self) -> bool:
        while len(self._further) > 1:
            with contextlib.suppress(OSError):
                os.unlink(self._further[0])
            del self._further[0]
        path, first = f"{self.path}.{self._at:0{DIGITS}}", header(self._at)
        try:
            file = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        try:
            if os.write(file, first) < len(first):
                raise OSError("the disk is full")
            os.rename(f"{path}.new", path)
        except OSError:
            os.close(file)
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.new")
            return False
        os.close(self.file)
        self.file = file
        self._further.append(path)
        self._room = self.limit // 4 - len(first)
        return True


class Outputs:
    """What this process, and all that it starts, write to both outputs, until this is left.

    They write into a pipe, as in a container, and not into a file, which nobody could keep them from filling.
    """

    def __init__(self, log: LogFile) -> None:
        self.log = log
        self.pipe, write = os.pipe()
        os.set_blocking(self.pipe, False)
        for output in (1, 2):
            os.dup2(write, output)
        os.close(write)

    def __enter__(self) -> Outputs:
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """What is written from now on goes to the file as it is."""
        self.take_all()
        for output in (1, 2):
            os.dup2(self.log.file, output)

    def take(self) -> int:
        """Write down what has come, up to :data:`CHUNK`; how many bytes that were."""
        try:
            data = os.read(self.pipe, CHUNK)
        except BlockingIOError:
            return 0
        self.log.write(data)
        return len(data)

    def take_all(self) -> None:
        """Write down what has come until now, whoever goes on writing."""
        left = int.from_bytes(fcntl.ioctl(self.pipe, termios.FIONREAD, bytes(4)), "little")
        while left > 0 and (taken := self.take()):
            left -= taken
