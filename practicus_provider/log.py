"""What the lines of a log say: how grave they are, and which of them are one entry. Pure."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Protocol


class Level(IntEnum):
    """How grave a line is; the numbers are those of Python's ``logging``."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50


class Say(Protocol):
    """Writes into the task's log."""

    def __call__(self, text: str, level: Level = Level.INFO, source: str = "", /) -> None:
        """Write one entry, of as many lines as the text has.

        :param source: the replica whose output it is, as ``role-index``; empty: nobody's, it is our own.
        """


class Entries:
    """Writes lines into the task's log, one an entry; where very many come at once, those of one kind together.

    Airflow's triggerer takes 4 KiB of entries between two looks at its database (Airflow 3.3,
    ``TriggerRunnerSupervisor.run_once``), and each has hundreds of bytes beside its text: 60,000 would take minutes.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._period_ends = float("-inf")
        self._counted = 0
        self._texts: list[str] = []
        self._size = 0
        self._kind = (Level.INFO, "")

    def add(self, text: str, level: Level, source: str, now: float) -> bool:
        """One more line; whether it waits for :meth:`flush`, which is due after :data:`PERIOD` at most.

        :param now: seconds of any clock.
        """
        if now >= self._period_ends:
            self.flush()
            self._period_ends, self._counted = now + PERIOD, 0
        self._counted += 1
        if self._counted <= ALONE:
            self._say(text, level, source)
            return False
        if (level, source) != self._kind or self._size > TOGETHER:
            self.flush()
        self._kind = (level, source)
        self._texts.append(text)
        self._size += len(text)
        return True

    def flush(self) -> None:
        """Write what waits."""
        if self._texts:
            self._say("\n".join(self._texts), *self._kind)
        self._texts, self._size = [], 0


NAMES = {
    **dict.fromkeys(("TRACE", "FINEST", "FINER", "FINE", "DEBUG"), Level.DEBUG),
    **dict.fromkeys(("CONFIG", "INFO", "NOTICE", "SUCCESS"), Level.INFO),
    **dict.fromkeys(("WARN", "WARNING"), Level.WARNING),
    **dict.fromkeys(("ERROR", "SEVERE"), Level.ERROR),
    **dict.fromkeys(("CRITICAL", "FATAL", "PANIC"), Level.CRITICAL),
}
"""What loggers of Python, Java and others call their levels: logging, loguru, log4j, java.util.logging."""
LETTERS = {"I": Level.INFO, "W": Level.WARNING, "E": Level.ERROR, "F": Level.CRITICAL}
"""What glog's begin with, and torch's."""
PERIOD = 0.2
"""Seconds for which lines are counted, and wait at most to be written together."""
ALONE = 20
"""Lines of a period that are entries of their own; of those beyond it, many are one."""
TOGETHER = 32 << 10
"""Characters of such an entry, but for its last line."""
HEAD = 240
"""Characters of a line in which its level stands, if it says one."""

_COLOUR = re.compile(r"\x1b\[[\d;]*m")
_RANK = re.compile(r"\[rank ?\d+\]:? ?")
_GLOG = re.compile(r"\[?(?P<letter>[IWEF])\d{3,4} \d\d:\d\d:\d\d")
_LEVEL = re.compile(rf"[\[(<{{]?(?P<name>{'|'.join(NAMES)})(?=[\]:|)>}}\s]|$)")
_STAMP = re.compile(r"\[?\d+[/:.-]\d[\d/:.,TZ+-]*(?: \d[\d:.,Z]*)?(?: ?[+-]\d\d:?\d\d| UTC)?\]?")
_BEFORE = re.compile(r"[\s|-]+|\[[^\]]*\]|\{[^}]*\}|\([^)]*\)|\d+(?= )|[\w$]+(?:\.[\w$]+)+:?|\S+:(?= )|\S+(?= [-|] )")
"""What may stand between a line's time and its level: a thread, a file, a process, the logger's name."""
_STRUCTURED = re.compile(r"""(?:^|[\s{,])"?(?:level|levelname|severity|lvl)"?\s*[=:]\s*"?(?P<name>[A-Za-z]+)""")
_COMMAND = re.compile(r"(?:[^\s:]+: )?(?P<name>error|warning|fatal): ", re.IGNORECASE)
_PYTHON_WARNING = re.compile(r"\S+:\d+: \w*Warning: ")
_EXCEPTION = re.compile(
    r"Traceback \(most recent call last\)|Exception in thread |Caused by: |(?:[\w$]+\.)*\w*(?:Error|Exception)(?:: |$)"
)


def level_of(line: str) -> Level:
    """The level that a line of somebody's log says that it has; of one that says none, :attr:`Level.INFO`.

    Only what stands where a logger puts it counts: a line that merely speaks of an ERROR is none.
    """
    level, head = logged_level(line), _head(line)
    if level is None and (found := _COMMAND.match(head)):
        return NAMES[found["name"].upper()]
    if level is None and _PYTHON_WARNING.match(head):
        return Level.WARNING
    if level is None and _EXCEPTION.match(head):
        return Level.ERROR
    return level or Level.INFO


def logged_level(line: str) -> Level | None:
    """The level at which a logger has written a line; None: it was none, or its format is not known."""
    head = _head(line)
    if found := _GLOG.match(head):
        return LETTERS[found["letter"]]
    structured = _STRUCTURED.search(head) if head.startswith(("{", "level=", "time=", "ts=")) else None
    found = _LEVEL.match(head) or _after_stamp(head) or structured
    return NAMES.get(found["name"].upper(), Level.INFO) if found else None


def _head(line: str) -> str:
    return _RANK.sub("", _COLOUR.sub("", line[:HEAD]), count=1)


def _after_stamp(head: str) -> re.Match[str] | None:
    """The level of a line that begins with a time."""
    before = _STAMP.match(head)
    while before:
        if found := _LEVEL.match(head, before.end()):
            return found
        before = _BEFORE.match(head, before.end())
    return None
