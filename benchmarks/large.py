"""``python -m benchmarks.large --json``: what one large cluster costs whoever follows it, beside a small one.

On the real control plane, with pods on simulated nodes, Airflow's own TriggerRunner follows one cluster of so many
replicas from its submission to the event of its end: how soon it says that all run and that all ended, what it takes of
the processor for each replica, its memory, and the longest step of its event loop, in which all other tasks of that
triggerer wait. And how long the page takes that shows the cluster.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import command
from benchmarks.report import Row
from tests.cluster import target

if TYPE_CHECKING:
    from benchmarks.kubernetes.place import Place
    from benchmarks.kubernetes.steps import Step
    from practicus_provider.backends.kubernetes.api import Api

PODS_OF_A_NODE = 1000
PROCESSOR = 2.0
"""Milliseconds for each replica: 10 s for 5,000."""
STEP = 50.0
"""Milliseconds."""
ALIKE = 1.3
"""How much more a replica of a large cluster may cost than one of a small one."""
AT_ONCE = 32
"""Pods that are told to have ended, side by side."""
PATIENCE = 3600.0
"""Seconds after which what is waited for will not come."""
SILENCE = 600.0


@dataclass(frozen=True)
class Cost:
    """Of one cluster. Seconds, but for what says otherwise.

    :param started: from the submission until all of its pods run, by a plain watch.
    :param start_told: after that, until the follower has said it.
    :param end_told: from the last pod's end to the event.
    :param cpu: of the triggerer, of the processor.
    :param memory: MiB, of the triggerer at its end, and before this cluster.
    :param step: the longest of the triggerer's event loop.
    :param page: to look at the namespace, and make the page of that cluster.
    :param page_step: the longest of the event loop meanwhile.
    """

    replicas: int
    started: float
    start_told: float
    end_told: float
    cpu: float
    memory: tuple[float, float]
    step: Step
    page: float
    page_step: Step

    @property
    def each(self) -> float:
        """Milliseconds of the processor for each replica."""
        return round(1000 * self.cpu / self.replicas, 3)


def main() -> None:
    """Print JSON, or nothing: a table goes to standard error as it is made."""
    parser = command.parser(__doc__)
    parser.add_argument("--replicas", type=int, nargs="*", default=[100, 5000], help="of each (default 100 5000)")
    options = parser.parse_args()
    command.on_the_test_cluster(measure, options)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Where it was measured, and a row for each question."""
    from benchmarks.kubernetes.place import place

    target.simulate(1 + max(options.replicas) // PODS_OF_A_NODE)
    costs = []
    for replicas in options.replicas:
        with place(simulated=True) as here:
            costs.append(asyncio.run(_measured(here, replicas)))
        print(costs[-1], file=sys.stderr, flush=True)
    made = [row for cost in costs for row in _rows(cost)] + _alike(costs)
    print(*(row.text() for row in made), sep="\n\n", file=sys.stderr)
    where = {"kubernetes": here.version, "processors": os.cpu_count(), "load": round(os.getloadavg()[2], 1)}
    return {"where": where, "measures": [row.to_json() for row in made]}


async def _measured(place: Place, replicas: int) -> Cost:
    from benchmarks.kubernetes.contestants import TIMEOUT
    from benchmarks.kubernetes.crowd import Simulated
    from benchmarks.kubernetes.steps import Step
    from benchmarks.kubernetes.triggerer import LINES, STEPS, triggerer

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each in (LINES, STEPS):
            (folder / each).touch()
        first, large = (Simulated(place, name, number, TIMEOUT) for name, number in (("first", 1), ("large", replicas)))
        first.handle = await place.backend.create(first.name, first.plan, task=first.task)
        # In earnest a triggerer has imported all, and connected, for another one.
        with triggerer(folder, {1: first.trigger()}) as process:
            async with place.api() as api:
                async with _pods(api, "first") as pods:
                    await _end(api, await pods.running(1))
                await _told(lambda: process.events())
                process.lines()
                (folder / STEPS).unlink()
                before, memory = process.cpu, process.memory
                async with _pods(api, "large") as pods:
                    begun = time.time()
                    large.handle = await place.backend.create(large.name, large.plan, task=large.task)
                    process.give({2: large.trigger()})
                    names = await pods.running(replicas)
                    running = time.time()
                    await _told(lambda: [line for line in process.lines() if line["event"].startswith("running: ")])
                    told = time.time()
                page, page_step = await _page(place)
                last = await _end(api, names)
            [event] = await _told(lambda: process.events())
            step = Step.read(folder / STEPS)
            return Cost(
                replicas,
                round(running - begun, 1),
                round(told - running, 2),
                round(event["at"] - last, 2),
                round(process.cpu - before, 2),
                (memory, process.memory),
                step,
                page,
                page_step,
            )


@dataclass
class _Pods:
    """Of one cluster, by a plain watch."""

    started: dict[str, None] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def running(self, count: int) -> list[str]:
        """Their names, once so many run."""
        async with asyncio.timeout(PATIENCE):
            while len(self.started) < count:
                self.changed.clear()
                await self.changed.wait()
        return list(self.started)

    async def watch(self, api: Api, cluster: str, version: str) -> None:
        """Until it is cancelled."""
        from benchmarks.kubernetes.place import started
        from practicus_provider.backends.kubernetes.labels import CLUSTER

        selector = f"{CLUSTER}={cluster}"
        while True:
            query = {"labelSelector": selector, "resourceVersion": version, "allowWatchBookmarks": "true"}
            async with api.watch("Pod", silence=SILENCE, **query) as events:
                async for event in events:
                    pod = event["object"]
                    version = pod["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK" and started(pod):
                        self.started[pod["metadata"]["name"]] = None
                        self.changed.set()


@asynccontextmanager
async def _pods(api: Api, cluster: str) -> AsyncIterator[_Pods]:
    listed = await api.list("Pod")
    pods = _Pods()
    watching = asyncio.create_task(pods.watch(api, cluster, listed["metadata"]["resourceVersion"]))
    try:
        from benchmarks.kubernetes.place import started
        from practicus_provider.backends.kubernetes.labels import CLUSTER

        for pod in listed["items"]:
            if pod["metadata"]["labels"].get(CLUSTER) == cluster and started(pod):
                pods.started[pod["metadata"]["name"]] = None
        yield pods
    finally:
        watching.cancel()
        await asyncio.wait((watching,))


async def _told(ask: Any) -> list[dict[str, Any]]:
    """What the triggerer has told, as soon as that is something."""
    async with asyncio.timeout(PATIENCE):
        while not (found := ask()):
            await asyncio.sleep(0.05)
    return list(found)


async def _end(api: Api, names: Sequence[str]) -> float:
    """Have these pods end well, the last one after all others; returns when that one did."""
    from benchmarks.kubernetes.crowd import ended
    from practicus_provider.backends.kubernetes.labels import MAIN

    turn = asyncio.Semaphore(AT_ONCE)

    async def end(name: str) -> None:
        async with turn:
            await api.patch("Pod", name, ended(MAIN), "status")

    await asyncio.gather(*map(end, names[:-1]))
    at = time.time()
    await end(names[-1])
    return at


async def _page(place: Place) -> tuple[float, Step]:
    """How long the page takes that shows the cluster."""
    from benchmarks.kubernetes.steps import Step, watched_steps
    from practicus_provider.plugins.board import Look
    from practicus_provider.plugins.board import Place as Where
    from practicus_provider.plugins.rows import page_of

    begun = time.time()
    with tempfile.TemporaryDirectory() as folder, watched_steps(Path(folder) / "steps"):
        listings = await place.backend.list()
        listing = next(one for one in listings if one.handle.name == "large")
        json.dumps(page_of(Where("practicus_default"), listing, Look(time.time(), listings)))
        await asyncio.sleep(0)
        return round(time.time() - begun, 2), Step.read(Path(folder) / "steps")


def _rows(cost: Cost) -> list[Row]:
    of = f"of a cluster of {cost.replicas} replicas"
    step, page_step = (round(1000 * each.cpu, 1) for each in (cost.step, cost.page_step))
    clock, page_clock = ({f"{each.of}; by the clock, s": [each.wall]} for each in (cost.step, cost.page_step))
    return [
        _row(f"submission -> all run, {of}", "s", cost.started, None, None),
        _row(f"all run -> its follower says so, {of}", "s", cost.start_told, None, None),
        _row(f"the last pod's end -> TriggerEvent, {of}", "s", cost.end_told, None, None),
        _row(f"processor time {of} in the triggerer, each", "ms", cost.each, PROCESSOR, {"in all, s": [cost.cpu]}),
        _row(f"memory of the triggerer {of}", "MiB", cost.memory[1], None, {"before": [cost.memory[0]]}),
        _row(f"longest step of the triggerer {of}", "ms", step, STEP, clock),
        _row(f"the page {of}", "s", cost.page, None, None),
        _row(f"longest step as the page is made, {of}", "ms", page_step, STEP, page_clock),
    ]


def _alike(costs: Sequence[Cost]) -> list[Row]:
    if len(costs) < 2:
        return []
    small, large = costs[0], costs[-1]
    ratio = round(large.each / small.each, 2)
    what = f"processor time of a replica among {large.replicas} and among {small.replicas}"
    figures = {"large": [large.each], "small": [small.each]}
    return [Row(what, "", ratio, None, {}, None, f"at most {ALIKE:g}", ratio <= ALIKE, figures)]


def _row(what: str, unit: str, found: float, most: float | None, samples: dict[str, list[float]] | None) -> Row:
    bar = None if most is None else f"at most {most:g} {unit}"
    return Row(what, unit, found, None, {}, None, bar, None if most is None else found <= most, samples or {})


if __name__ == "__main__":
    main()
