"""Lines of an output as they grow: as a terminal shows them in the end, and none without bounds. Pure.

A bar that redraws itself by a carriage return is one line, whose states overwrite each other.
"""

from __future__ import annotations

from typing import Iterator, List, Optional, Tuple

LINE_LIMIT = 1 << 20
"""Bytes of a line that are kept; of a longer one its beginning and its end are."""
KEPT_END = 16 << 10
"""Bytes of such an end: it has what our launcher says there."""
BAR_PERIOD = 1.0
"""Seconds between two states of a bar that are shown."""
BEGINNINGS = (b"[progress ", b"Traceback (most recent call last):")
"""What begins a line of its own, though a bar that stands there has not ended its line."""


def pieces(data: bytes) -> Iterator[Tuple[bytes, bool]]:  # noqa: UP006  (Python 3.8)
    """Parts of what was read, each with whether its line ends there, by a newline that is not a part of it."""
    *lines, rest = data.split(b"\n")
    for line in lines:
        yield line, True
    if rest:
        yield rest, False


class Line:
    """One line while it grows.

    :ivar is_bar: whether it has overwritten itself, or is about to.
    """

    def __init__(self) -> None:
        self.is_bar = False
        self._returned = False  # and what comes next overwrites what is there
        self._grown = False  # since it was looked at
        self._whole: Optional[bytes] = None  # noqa: UP045  (Python 3.8)
        self._clear()

    def add(self, data: bytes) -> None:
        """More of it, without its newline."""
        if not data:
            return
        if self._returned:
            self._overwrite()
        body = data.rstrip(b"\r")
        self._returned = len(body) < len(data)
        self.is_bar = self.is_bar or b"\r" in data
        before, overwritten, last = body.rpartition(b"\r")
        if overwritten:
            _, more, state = before.rstrip(b"\r ").rpartition(b"\r")  # blanks clear it
            if more:
                self._clear()
            self._append(state)
            self._overwrite()
        self._append(last)

    def text(self) -> bytes:
        """What it shows."""
        left_out = f" (... {self._left_out} bytes of this line are left out ...) ".encode() if self._left_out else b""
        return self._head + left_out + self._end

    def look(self) -> bytes:
        """The state of a bar; nothing of another line. Of several states that came since the last look the last one may
        have been cut by a read: unless it is known to have ended, it is the one before."""
        whole = self._whole
        self._grown, self._whole = False, None
        if not self.is_bar:  # it may be long, and is looked at as often
            return b""
        return (self.text() if whole is None or self._returned else whole).rstrip()

    @property
    def size(self) -> int:
        """Bytes of it that are kept."""
        return len(self._head) + len(self._end)

    def lines(self) -> List[bytes]:  # noqa: UP006  (Python 3.8)
        """What it shows once it has ended: a bar's last state is not part of what was written after it."""
        if not self.is_bar:
            return [self.text()]
        text = self.text().rstrip()
        starts = (text.find(mark) for mark in BEGINNINGS)
        start = min((start for start in starts if start > 0), default=0)
        return [text[:start].rstrip(), text[start:]] if start else [text]

    def _overwrite(self) -> None:
        if self._grown and (text := self.text()).strip():
            self._whole = text
        self._grown = False
        self._clear()

    def _clear(self) -> None:
        self._head = self._end = b""
        self._left_out = 0

    def _append(self, data: bytes) -> None:
        self._grown = self._grown or data != b""
        room = LINE_LIMIT - KEPT_END - len(self._head)
        self._head += data[:room]
        self._end += data[room:]
        if len(self._end) > 2 * KEPT_END:  # seldom, since it copies
            self._left_out += len(self._end) - KEPT_END
            self._end = self._end[-KEPT_END:]


class Screen:
    """What is shown of one output: each line at its end, and of a bar its state now and then.

    :ivar begun: whether there is a line that has not ended.
    """

    def __init__(self) -> None:
        self.begun = False
        self._line = Line()
        self._shown: Optional[bytes] = None  # noqa: UP045  (Python 3.8)
        self._shown_at = float("-inf")

    def take(self, data: bytes) -> List[bytes]:  # noqa: UP006  (Python 3.8)
        """What was written; the lines that end in it."""
        lines: List[bytes] = []  # noqa: UP006  (Python 3.8)
        if not self.begun and b"\r" not in data:  # nearly always: at once
            *lines, data = data.split(b"\n")
        for piece, ends in pieces(data):
            self.add(piece)
            if ends:
                lines += self.end()
        return lines

    def add(self, data: bytes) -> None:
        """More of the line that is being written."""
        self.begun = True
        self._line.add(data)

    @property
    def size(self) -> int:
        """Bytes of that line that are kept."""
        return self._line.size

    def end(self) -> List[bytes]:  # noqa: UP006  (Python 3.8)
        """The lines that this one turns out to be, as it has ended."""
        lines, shown = self._line.lines(), self._shown
        if (len(lines) > 1 and lines[0] == shown) or lines == [shown]:
            del lines[0]
        self.begun, self._line, self._shown = False, Line(), None
        return lines

    def state(self, now: float) -> Optional[bytes]:  # noqa: UP045  (Python 3.8)
        """The state of a bar, if it is time to show it.

        :param now: seconds of any clock.
        """
        due, state = self.due(), self._line.look()
        if due is None or now < due or state == self._shown:
            return None
        self._shown, self._shown_at = state, now
        return state

    def due(self) -> Optional[float]:  # noqa: UP045  (Python 3.8)
        """When the next state of a bar is to be shown; None if it has shown all."""
        text = self._line.text().rstrip() if self.begun and self._line.is_bar else b""
        return self._shown_at + BAR_PERIOD if text and text != self._shown else None


def shown(data: bytes) -> List[str]:  # noqa: UP006  (Python 3.8)
    """The lines of what was read, the last one of which may lack its newline."""
    screen = Screen()
    lines = screen.take(data)
    lines += screen.end() if screen.begun else []
    return [line.decode(errors="replace") for line in lines]
