"""The end of asyncio's tasks, by who began them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

AGAIN = 1.0
"""Seconds after which a task that was told to end, and has not, is looked at again."""


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks, and wait until all have ended.

    One that is being cancelled already is not told once more, which would cut what it does at its end: as a whole event
    loop ends, all are told at once. Unless that was a deadline's, with which the task goes on.

    Cancelling who waits here cuts nothing either, however often it is done. It is not lost, but raised once all have
    ended.

    How each has ended is its own: who wants to know asks the task, and asyncio logs an error that nobody asked for.
    """
    cancelled: asyncio.CancelledError | None = None
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            if not task.cancelling():
                task.cancel()
        try:
            await asyncio.wait(left, timeout=AGAIN)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


async def first(*works: Coroutine[Any, Any, None]) -> None:
    """Until one of them ends, with which the others do; the first error of theirs is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop(*tasks)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if errors:
        raise errors[0]
