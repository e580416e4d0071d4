from __future__ import annotations

import asyncio
import contextlib

import pytest

from practicus_provider import aiotasks
from practicus_provider.aiotasks import first, stop
from tests.plans import PATIENCE


class Work:
    """It goes on until it is told to end, and then takes a while to.

    :ivar told: how often it was.
    :ivar done: whether it came to do what it does last.
    """

    def __init__(self) -> None:
        self.told = 0
        self.done = False

    async def run(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.told += 1
            try:
                for _ in range(20):
                    await asyncio.sleep(0)
                self.done = True
            except asyncio.CancelledError:
                self.told += 1
                raise


async def began(*works: Work) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(work.run()) for work in works]
    await asyncio.sleep(0)
    return tasks


async def test_tasks_that_are_stopped_have_ended():
    works = Work(), Work()
    tasks = await began(*works)
    async with asyncio.timeout(PATIENCE):
        await stop(*tasks)
    assert [(task.cancelled(), work.told, work.done) for task, work in zip(tasks, works, strict=True)] == [
        (True, 1, True)
    ] * 2


async def test_what_has_ended_and_nothing_at_all_is_stopped_already():
    [task] = await began(Work())
    await stop(task)
    await stop(task)
    await stop()


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_who_is_cancelled_as_it_waits_for_the_end_of_a_task_is_cancelled_after_that(times):
    work = Work()
    [task] = await began(work)
    stopping = asyncio.create_task(stop(task))
    await asyncio.sleep(0)
    for _ in range(times):
        stopping.cancel()
        await asyncio.sleep(0)
    assert not stopping.done()
    async with asyncio.timeout(PATIENCE):
        await asyncio.wait((stopping,))
    assert (stopping.cancelled(), work.told, work.done) == (True, 1, True)


async def test_who_was_cancelled_and_stops_its_task_at_its_end_may_be_cancelled_again():
    work = Work()

    [task] = await began(work)

    async def owner() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await stop(task)

    owning = asyncio.create_task(owner())
    await asyncio.sleep(0)
    while not owning.cancelled():
        owning.cancel()
        await asyncio.sleep(0)
    assert (work.told, work.done) == (1, True)


async def test_a_cancellation_takes_the_place_of_the_error_amid_which_a_task_is_stopped():
    [task] = await began(Work())

    async def fails() -> None:
        with contextlib.suppress(ValueError):
            try:
                raise ValueError
            finally:
                await stop(task)

    failing = asyncio.create_task(fails())
    await asyncio.sleep(0)
    failing.cancel()
    await asyncio.wait((failing,))
    assert (failing.cancelled(), task.cancelled()) == (True, True)


async def test_a_deadline_of_who_waits_is_one_once_the_task_has_ended():
    [task] = await began(Work())
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await stop(task)
    assert task.cancelled()


async def test_a_task_that_was_told_to_end_already_is_not_told_again():
    work = Work()
    [task] = await began(work)
    task.cancel()
    await stop(task)
    assert (work.told, work.done) == (1, True)


async def test_a_task_that_a_deadline_of_its_own_was_cutting_is_stopped_too(monkeypatch):
    monkeypatch.setattr(aiotasks, "AGAIN", 0.01)

    async def work() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(None) as deadline:
                deadlines.append(deadline)
                await asyncio.Event().wait()
        await asyncio.Event().wait()

    deadlines: list[asyncio.Timeout] = []
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    deadlines[0].reschedule(0)
    while not task.cancelling():
        await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await stop(task)
    assert task.cancelled()


async def test_the_error_of_a_task_is_for_who_asks_it():
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("it broke")

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await stop(task)
    assert repr(task.exception()) == "ValueError('it broke')"


async def test_the_first_to_end_ends_the_others():
    work = Work()
    await first(work.run(), asyncio.sleep(0.01))
    assert (work.told, work.done) == (1, True)


async def test_an_error_of_either_is_not_lost_as_the_other_has_ended():
    async def breaks() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionError("it broke")

    with pytest.raises(ConnectionError, match=r"^it broke$"):
        await first(breaks(), asyncio.sleep(0.01))
