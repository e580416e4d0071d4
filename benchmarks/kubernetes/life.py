"""Submit -> all ranks run user code; user code's end -> the trigger's event; delete -> nothing left.

The contestants take turns.
"""

from __future__ import annotations

import asyncio
import pkgutil
import time
import uuid
from collections import defaultdict

from airflow.triggers.base import BaseTrigger

from benchmarks.kubernetes.contestants import (
    TIMEOUT,
    Client,
    Contestant,
    JobOperator,
    Kubectl,
    Ours,
    PodOperator,
    Unstreamed,
    Waiting,
)
from benchmarks.kubernetes.place import BEGAN, ENDED, Place, complete, gone, stamp, terminated, until
from benchmarks.report import Row, bounded, compared, turns
from practicus_provider.backends.kubernetes.api import Api

Samples = defaultdict[str, list[float]]
LOOK = 0.5
"""Seconds for watches to be open before what they are to see begins."""
LEAST = 3.0
"""Seconds that user code lasts at least, where its end is measured."""
STARTING: dict[type[Contestant], float] = {PodOperator: 6.0}
"""More of it: KubernetesPodTrigger looks for a pod's start every 5 s, and for its end only thereafter."""
PERIOD: dict[type[Contestant], float] = {PodOperator: 2.0, JobOperator: 10.0}
"""Seconds between two looks of a peer's trigger. Ends are spread evenly over it, or over the kubelet's own 1 s."""


def submitted_and_deleted(place: Place, pods: int, runs: int) -> list[Row]:
    """Two rows, of the same workloads: how fast they start, and how fast they go while they run."""
    deleters: list[type[Contestant]] = [Ours, Kubectl, Client]
    alone: list[type[Contestant]] = [PodOperator] if pods == 1 else []
    starters: list[type[Contestant]] = [*deleters, *alone, JobOperator]
    submits, deletes = Samples(list), Samples(list)
    for turn, kind in turns(starters, runs):
        contestant = kind(place, _name(), pods, TIMEOUT)
        label = "raw" if kind is Kubectl else kind.label
        took = asyncio.run(submitted(contestant, BEGAN))
        if kind in deleters:
            went = asyncio.run(_delete(contestant))
        else:
            contestant.delete()
        if turn:
            submits[label].append(took)
            if kind in deleters:
                deletes[label].append(went)
    return [
        compared(f"submit -> user code runs, {_pods(pods)}", submits, most=1.10, bar="at most 1.10 x kubectl apply"),
        compared(f"delete -> nothing left, {_pods(pods)}", deletes, most=1.20, bar="at most 1.20 x kubectl delete"),
    ]


def ended(place: Place, pods: int, runs: int) -> Row:
    """How soon a trigger has its event after the last line of user code."""
    alone: list[type[Contestant]] = [Unstreamed, PodOperator] if pods == 1 else []
    kinds: list[type[Contestant]] = [Ours, Kubectl, *alone, JobOperator]
    samples = Samples(list)
    for turn, kind in turns(kinds, runs):
        spread = (turn - 0.5) / runs if turn else 0.0
        seconds = LEAST + STARTING.get(kind, 0.0) + PERIOD.get(kind, 1.0) * spread
        for label, took in asyncio.run(_end(kind(place, _name(), pods, seconds))).items():
            if turn:
                samples[label].append(took)
    measure = f"user code's end -> the trigger's event, {_pods(pods)}"
    return bounded(measure, samples, most=0.3, bar="at most 0.3 s; raw is a watch of the pods")


async def submitted(contestant: Contestant, word: str) -> float:
    """Seconds from the submission until the last of its pods says that word."""
    async with contestant.place.api() as api:
        running = asyncio.create_task(stamp(api, contestant.selector, contestant.pods, word))
        await asyncio.sleep(LOOK)
        begin = time.time()
        await asyncio.to_thread(contestant.submit)
        return await running - begin


async def _delete(contestant: Contestant) -> float:
    """Until it is gone, and whoever deletes knows."""
    async with contestant.place.api() as api:
        going = asyncio.create_task(gone(api, contestant.selector))
        await asyncio.sleep(LOOK)
        begin = time.time()
        await asyncio.gather(going, asyncio.to_thread(contestant.delete))
        return time.time() - begin


async def _end(contestant: Contestant) -> dict[str, float]:
    """Seconds from the last pod's last words to each event that says so."""
    async with contestant.place.api() as api:
        saying = asyncio.create_task(stamp(api, contestant.selector, contestant.pods, ENDED))
        await asyncio.to_thread(contestant.submit)
        if isinstance(contestant, Waiting):
            at = {contestant.label: await _event(contestant.trigger())}
        else:
            at = await _raw(api, contestant)
        said = await saying
    if not isinstance(contestant, Ours):  # ours is gone by then, as its policy says
        await asyncio.to_thread(contestant.delete)
    return {label: when - said for label, when in at.items()}


async def _event(trigger: BaseTrigger) -> float:
    """When a trigger that came out of the database has its first event."""
    path, arguments = trigger.serialize()
    read: BaseTrigger = pkgutil.resolve_name(path)(**arguments)
    async for _ in read.run():
        return time.time()
    raise RuntimeError(f"{path} ended without an event")


async def _raw(api: Api, contestant: Contestant) -> dict[str, float]:
    async def pods() -> float:
        await until(
            api,
            "Pod",
            contestant.selector,
            lambda found: len(found) >= contestant.pods and all(map(terminated, found)),
        )
        return time.time()

    async def job() -> float:
        await until(api, "Job", contestant.selector, lambda found: bool(found) and all(map(complete, found)))
        return time.time()

    by_pods, by_job = await asyncio.gather(pods(), job())
    return {"raw": by_pods, "raw, the Job's condition": by_job}


def _name() -> str:
    return f"bench-{uuid.uuid4().hex[:12]}"


def _pods(count: int) -> str:
    return f"{count} pod{'s' * (count > 1)}"
