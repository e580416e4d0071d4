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
    Foreseen,
    JobOperator,
    Kubectl,
    Ours,
    PodOperator,
    Unstreamed,
    Waiting,
)
from benchmarks.kubernetes.place import BEGAN, ENDS, Place, complete, gone, said, stamp, started_pods, terminated, until
from benchmarks.report import Row, bounded, compared, turns
from practicus_provider.backends.kubernetes.api import Api, Manifest

Samples = defaultdict[str, list[float]]
LOOK = 0.5
"""Seconds for watches to be open before what they are to see begins."""
LEAST = 3.0
"""Seconds that user code lasts at least, where its end or its deletion is measured: a kubelet that still looks after a
pod's start comes to its deletion up to two seconds later, or does not, by chance."""
STARTING: dict[type[Contestant], float] = {PodOperator: 6.0}
"""More of it: KubernetesPodTrigger looks for a pod's start every 5 s, and for its end only thereafter."""
PERIOD: dict[type[Contestant], float] = {PodOperator: 2.0, JobOperator: 10.0}
"""Seconds between two looks of a peer's trigger. Ends are spread evenly over it, or over the kubelet's own 1 s, and so
are deletions."""


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
            time.sleep(LEAST + _spread(turn, runs))
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


def ended(place: Place, pods: int, runs: int) -> list[Row]:
    """How soon a trigger has its event after the end of user code: in seconds, and over the floor of this cluster."""
    alone: list[type[Contestant]] = [Unstreamed, PodOperator] if pods == 1 else []
    kinds: list[type[Contestant]] = [Ours, Kubectl, Foreseen, *alone, JobOperator]
    samples = Samples(list)
    for turn, kind in turns(kinds, runs):
        seconds = LEAST + STARTING.get(kind, 0.0) + PERIOD.get(kind, 1.0) * _spread(turn, runs)
        for label, took in asyncio.run(_end(kind(place, _name(), pods, seconds))).items():
            if turn:
                samples[label].append(took)
    measure = f"user code's end -> the trigger's event, {_pods(pods)}"
    floor = {"ours": samples["ours"], "raw": samples[Foreseen.label]}
    return [
        bounded(measure, samples, most=0.3, bar="at most 0.3 s; raw is a watch of the pods"),
        compared(f"{measure}, over who foresaw it", floor),
    ]


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
    """Seconds from the end of the last pod's user code to each event that says so."""
    async with contestant.place.api() as api:
        ending = asyncio.create_task(stamp(api, contestant.selector, contestant.pods, ENDS))
        await asyncio.to_thread(contestant.submit)
        if isinstance(contestant, Waiting):
            at = {contestant.label: await _event(contestant.trigger())}
        elif isinstance(contestant, Foreseen):
            at = {contestant.label: await _foreseen(api, contestant)}
        else:
            at = await _raw(api, contestant)
        last = await ending
    if not isinstance(contestant, Ours):  # ours is gone by then, as its policy says
        await asyncio.to_thread(contestant.delete)
    return {label: when - last for label, when in at.items()}


async def _event(trigger: BaseTrigger) -> float:
    """When a trigger that came out of the database has its first event."""
    path, arguments = trigger.serialize()
    read: BaseTrigger = pkgutil.resolve_name(path)(**arguments)
    async for _ in read.run():
        return time.time()
    raise RuntimeError(f"{path} ended without an event")


async def _raw(api: Api, contestant: Contestant) -> dict[str, float]:
    async def job() -> float:
        await until(api, "Job", contestant.selector, lambda found: bool(found) and all(map(complete, found)))
        return time.time()

    by_pods, by_job = await asyncio.gather(_terminated(api, contestant), job())
    return {"raw": by_pods, "raw, the Job's condition": by_job}


async def _foreseen(api: Api, contestant: Contestant) -> float:
    """When a watch has shown all its pods' containers terminated, each pod being deleted as its user's code ends."""

    async def delete(pod: str) -> None:
        await asyncio.sleep(await said(api, pod, ENDS) - time.time())
        await api.delete("Pod", pod)

    pods = await started_pods(api, contestant.selector, contestant.pods)
    async with asyncio.TaskGroup() as group:
        for pod in pods:
            group.create_task(delete(pod))
        return await _terminated(api, contestant)


async def _terminated(api: Api, contestant: Contestant) -> float:
    """When a watch has shown all its pods' containers terminated; a pod may be gone after that."""
    ended: set[str] = set()

    def all_have(found: list[Manifest]) -> bool:
        ended.update(pod["metadata"]["name"] for pod in found if terminated(pod))
        return len(ended) >= contestant.pods

    await until(api, "Pod", contestant.selector, all_have)
    return time.time()


def _spread(turn: int, runs: int) -> float:
    """Where in a period a turn's is, from 0 to 1; the first turn, which does not count, is at its start."""
    return (turn - 0.5) / runs if turn else 0.0


def _name() -> str:
    return f"bench-{uuid.uuid4().hex[:12]}"


def _pods(count: int) -> str:
    return f"{count} pod{'s' * (count > 1)}"
