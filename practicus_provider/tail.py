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
        """All of it."""
        return self.before + self.lines


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
    return tuple(_written(tail)[-TAIL_LINES:])


def _written(tail: Sequence[str]) -> list[str]:
    return [line.rstrip() for line in tail if line.strip()]


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
