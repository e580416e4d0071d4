"""What tasks that only wait cost: requests to the API server, by its audit log, and what the triggerer takes.

The triggerer is a service account of its own, so that the audit log tells its requests from all others.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kubernetes.account import as_account, requests_of
from benchmarks.kubernetes.contestants import TIMEOUT, Ours, PodOperator, Waiting
from benchmarks.kubernetes.place import Place, started, until
from benchmarks.kubernetes.triggerer import Triggerer, triggerer
from benchmarks.report import Row

AT_ONCE = 4
"""Workloads that are submitted, or deleted, side by side."""
SETTLING = 15.0
"""Seconds before the window, or as many as the window has: triggers begin to wait. KubernetesPodTrigger needs 5."""
MOST = 60.0
"""Requests a minute in all."""


@dataclass(frozen=True)
class Cost:
    """What one triggerer took in the window.

    :param starting: requests before it.
    :param requests: verb and resource -> how many; None: there is no audit log.
    :param cpu: processor seconds a second.
    :param memory: MiB that are resident at its end.
    """

    tasks: int
    seconds: float
    starting: int | None
    requests: dict[str, int] | None
    cpu: float
    memory: float

    @property
    def per_minute(self) -> float | None:
        """Requests a minute, of all tasks."""
        return None if self.requests is None else round(sum(self.requests.values()) * 60 / self.seconds, 1)


def waiting(place: Place, tasks: int, seconds: float) -> list[Row]:
    """The rows of so many tasks of ours, and of a fifth of them of KubernetesPodOperator's."""
    with as_account(place):
        ours = _cost(place, Ours, tasks, seconds)
        theirs = _cost(place, PodOperator, max(1, tasks // 5), seconds)
    return rows(ours, {f"KubernetesPodTrigger, {theirs.tasks} tasks": theirs})


def rows(
    ours: Cost, peers: Mapping[str, Cost], *, cores: float | None = None, memory: float | None = None
) -> list[Row]:
    """Requests, processor and memory.

    :param cores: that are asked of us at most; None: they are told for comparison.
    :param memory: likewise, in MiB.
    """
    rate = ours.per_minute
    rates = {who: his.per_minute for who, his in peers.items() if his.per_minute is not None}
    all_requests = {"ours": ours, **peers}
    requests = Row(
        f"API requests of {ours.tasks} tasks that wait, in {ours.seconds:.0f} s",
        "requests a minute",
        rate,
        None,
        rates,
        None,
        f"at most {MOST:g} a minute in all",
        None if rate is None else rate <= MOST,
        {f"{who}, {what}": [count] for who, his in all_requests.items() for what, count in (his.requests or {}).items()}
        | {f"{who}, before the window": [his.starting or 0] for who, his in all_requests.items()},
    )
    cpu = _bounded("processor time", "cores", cores, ours.tasks, ours.cpu, {who: his.cpu for who, his in peers.items()})
    resident = {who: his.memory for who, his in peers.items()}
    return [requests, cpu, _bounded("memory", "MiB", memory, ours.tasks, ours.memory, resident)]


def _bounded(what: str, unit: str, most: float | None, tasks: int, ours: float, peers: Mapping[str, float]) -> Row:
    bar, met = (None, None) if most is None else (f"less than {most:g} {unit}", ours < most)
    return Row(f"{what} of a triggerer with {tasks} tasks that wait", unit, ours, None, peers, None, bar, met, {})


def cost(place: Place, process: Triggerer, tasks: int, begun: float, seconds: float) -> Cost:
    """What it takes from now on.

    :param begun: when it began.
    :raises RuntimeError: it was to wait, and did not.
    """
    before, start = process.cpu, time.time()
    time.sleep(seconds)
    after, end = process.cpu, time.time()
    if not process.alive or process.events():
        raise RuntimeError("the triggerer was to wait, and has ended, or has an event")
    earlier, requests = requests_of(place.namespace, begun, start), requests_of(place.namespace, start, end)
    starting = None if earlier is None else sum(earlier.values())
    return Cost(tasks, end - start, starting, requests, round((after - before) / (end - start), 4), process.memory)


def _cost(place: Place, kind: type[Waiting], tasks: int, seconds: float) -> Cost:
    contestants = [kind(place, f"{kind.__name__.lower()}-{number}", 1, TIMEOUT) for number in range(tasks)]
    asyncio.run(_submit(contestants))
    try:
        triggers = [contestant.trigger() for contestant in contestants]
        begun = time.time()
        with tempfile.TemporaryDirectory() as folder, triggerer(Path(folder), dict(enumerate(triggers))) as process:
            time.sleep(min(SETTLING, seconds))
            return cost(place, process, tasks, begun, seconds)
    finally:
        asyncio.run(_delete(contestants))


async def _submit(contestants: Sequence[Waiting]) -> None:
    """All of them, until all of them run; a few at once, or so many containers would start for minutes."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def submit(contestant: Waiting) -> None:
        async with turn:
            await asyncio.to_thread(contestant.submit)
            await until(api, "Pod", contestant.selector, lambda pods: bool(pods) and all(map(started, pods)))

    async with contestants[0].place.api() as api:
        await asyncio.gather(*map(submit, contestants))


async def _delete(contestants: Sequence[Waiting]) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def delete(contestant: Waiting) -> None:
        async with turn:
            await asyncio.to_thread(contestant.delete)

    await asyncio.gather(*map(delete, contestants))
