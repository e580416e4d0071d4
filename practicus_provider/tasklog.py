"""The task's log, as Airflow has it: what is written into it, and what it shows of an error."""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any

import structlog

from practicus_provider.errors import PracticusError
from practicus_provider.log import Level, Say

OUT_OF_GROUPS = "::endgroup::"
"""Ends the group of lines that Airflow's pages have collapsed so far."""


def into(log: Any) -> Say:
    """Writes into a task's log: our own lines by this logger, a replica's by one of its name.

    Airflow's pages filter by both level and logger. What a job says at DEBUG is its output as everything else: where
    Airflow would leave that out, it is information.
    """
    loggers: dict[str, Any] = {"": log}

    def say(text: str, level: Level = Level.INFO, source: str = "", /) -> None:
        if source not in loggers:
            loggers[source] = structlog.get_logger(source)
        loggers[source].log(level if log.is_enabled_for(level) else max(level, Level.INFO), text)

    return say


class NoFramesOfOurs(contextlib.ContextDecorator):
    """Takes the frames of what it decorates off our own errors, which Airflow logs with their traceback.

    They say all in words, and a job's failure is nowhere in our code. Where an error has a cause, that one keeps its.
    """

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """As the error passes."""
        if isinstance(error, PracticusError):
            error.__traceback__ = None
