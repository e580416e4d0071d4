"""Which of a log's last lines tell why a replica has failed. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from practicus_provider.log import Level, logged_level

TAIL_LINES = 20
"""Lines that a verdict carries where none of them tells more than the others."""
LINES_READ = 50 * TAIL_LINES
"""Lines of a log that are looked at: what is told at the end of a program may be long."""
LINE_SHOWN = 2_000
"""Characters of a line that a verdict shows: of a longer one its beginning and its end."""
SHOWN = 32_000
"""Characters of all the lines that it shows: it is stored in Airflow's database, and read by people."""

SPARK_WORKER = "An exception was thrown from the Python worker"
"""What Spark says in its driver's traceback before that of an executor."""
CHAINED = (
    "The above exception was the direct cause",
    "During handling of the above exception",
    SPARK_WORKER,
)
"""How the line begins between two tracebacks of one chain: as Python writes it, and Spark."""
_TRACEBACK = re.compile(r"Traceback \(most recent call last\)| {2}\+ Exception Group Traceback")
_ASIDE = re.compile(
    r"Exception ignored |Exception in thread |Error in atexit|--- Logging error ---|future: <|Task exception was never"
)
"""What stands before a traceback that ends no program: of a destructor, a thread, an exit handler, a logger, a task."""
_COLOURS = re.compile(r"\x1b\[[0-9;:]*m")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""All but tabs: a newline ends a line."""
_JAVA_MAIN = 'Exception in thread "main"'
_NO_JAVA = "JAVA_GATEWAY_EXITED"


@dataclass(frozen=True)
class Cause:
    """What a log tells of a failure, oldest line first.

    :param before: errors of which the last one is a consequence, as their chain says.
    :param lines: of that one, or the last lines where there is none.
    """

    before: tuple[str, ...]
    lines: tuple[str, ...]

    @property
    def shown(self) -> tuple[str, ...]:
        """All of it; of what is very long, the last lines."""
        return _bounded(self.before + self.lines)


def cause_in(tail: Sequence[str]) -> Cause:
    """The exception that nobody has caught, with its chain; else the last lines.

    A traceback with a logger's line before it, or one that Python writes aside, counts only where there is no other:
    what closes after a failure often logs failures of its own. A JVM's exception counts where Python has none; where
    Python's says that there is no JVM, what that one wrote before is the cause.
    """
    lines = _written(tail)
    chains = _chains(lines)
    uncaught = [chain for chain in chains if not _aside(lines, chain[0])]
    java = next((i for i in reversed(range(len(lines))) if lines[i].startswith(_JAVA_MAIN)), None)
    if not uncaught and java is not None:
        return Cause((), tuple(lines[java : _end(lines, java, chains)]))
    if not chains:
        return Cause((), last_lines(lines))
    chain = (uncaught or chains)[-1]
    last = lines[chain[-1] : _end(lines, chain[-1], chains)]
    if any(_NO_JAVA in line for line in last):
        return Cause((), tuple(lines[_java_of(lines, chain[0], java) : chain[0]] + last))
    return Cause(tuple(lines[chain[0] : chain[-1]]), tuple(last))


def last_lines(tail: Sequence[str]) -> tuple[str, ...]:
    """What was written last, whatever it tells."""
    return _bounded(_written(tail)[-TAIL_LINES:])


def _bounded(lines: Sequence[str]) -> tuple[str, ...]:
    room, first = SHOWN, len(lines)
    while first and (room := room - len(lines[first - 1])) >= 0:
        first -= 1
    return (f"(... {first} lines before these are left out ...)", *lines[first:]) if first else tuple(lines)


def _written(tail: Sequence[str]) -> list[str]:
    """Lines with something to read."""
    return [_cut(text) for line in tail if (text := plain(line).rstrip())]


def plain(text: str) -> str:
    """What a job has written, as it may be shown anywhere: without colours, and with what a terminal or a database
    would take for more than text as Python writes it in a string."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), _COLOURS.sub("", text))


def _cut(line: str) -> str:
    if len(line) <= LINE_SHOWN:
        return line
    half = LINE_SHOWN // 2
    return f"{line[:half]} (... {len(line) - 2 * half} characters are left out ...) {line[-half:]}"


def _chains(lines: Sequence[str]) -> list[list[int]]:
    """Where tracebacks begin, those of one chain together."""
    starts = [i for i, line in enumerate(lines) if _TRACEBACK.match(line)]
    chains: list[list[int]] = []
    for start in starts or [i for i, line in enumerate(lines) if _TRACEBACK.match(line.lstrip())]:
        if chains and lines[start - 1].lstrip().startswith(CHAINED):
            chains[-1].append(start)
        else:
            chains.append([start])
    return chains


def _aside(lines: Sequence[str], start: int) -> bool:
    """Whether what stands before a traceback says that it ended no program."""
    before = lines[start - 1] if start else ""
    return (logged_level(before) or Level.INFO) >= Level.WARNING or bool(_ASIDE.match(before))


def _end(lines: Sequence[str], start: int, chains: Sequence[Sequence[int]]) -> int:
    """Where an exception ends that begins there: at another one, or at a logger's line after its own message."""
    later = [chain[0] - _aside(lines, chain[0]) for chain in chains if chain[0] > start]
    until = min(later, default=len(lines))
    message = next((i for i in range(start + 1, until) if not lines[i][0].isspace()), until)
    return next((i for i in range(message + 1, until) if logged_level(lines[i]) is not None), until)


def _java_of(lines: Sequence[str], until: int, main: int | None) -> int:
    """Where that begins which a JVM wrote before it was missed."""
    return main if main is not None and main < until else max(0, until - TAIL_LINES)
