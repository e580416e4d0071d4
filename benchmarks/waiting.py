"""``python -m benchmarks.waiting --json``: thousands of deferred tasks in one triggerer, and ours beside the others'.

On the real control plane, with pods on simulated nodes, Airflow's own TriggerRunner runs the triggers of so many tasks.
While all of them wait: requests to the API server a minute, by its audit log; processor and memory of the triggerer.
Then so many a second end: from the moment at which a plain watch in another process shows the pod ended to the event
of its trigger, while what tidies up behind them has the processor time that is left. Of the triggers of
KubernetesPodOperator and KubernetesJobOperator the same, in smaller numbers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import command
from benchmarks.report import Row
from tests.cluster import target

if TYPE_CHECKING:
    from benchmarks.kubernetes.crowd import Crowd
    from benchmarks.kubernetes.place import Place
    from benchmarks.kubernetes.waiting import Cost

PODS_OF_A_NODE = 1000
CORES = 0.2
MEMORY = 1024.0
"""MiB."""
P50, P99 = 0.1, 1.0
"""Seconds."""
SETTLING = 15.0
"""Seconds until the window begins, and one more for each :data:`STARTED` tasks."""
STARTED = 500
LATE = 60.0
"""Seconds after the last end in which its event must be there."""


@dataclass(frozen=True)
class Ends:
    """How soon the ends were known.

    :param seconds: of each, from the watch to the event; :data:`LATE` where there was none.
    :param rate: ends a second.
    :param lost: ends without an event.
    """

    seconds: Sequence[float]
    rate: float
    lost: int

    def quantile(self, share: float) -> float:
        """Seconds within which that share of them was known."""
        return round(statistics.quantiles(self.seconds, n=100, method="inclusive")[round(share * 100) - 1], 4)


def main() -> None:
    """Print JSON, or nothing: a table goes to standard error as it is made."""
    parser = command.parser(__doc__)
    parser.add_argument("--tasks", type=int, default=10_000, help="of ours (default 10000)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for which they are watched (default 60)")
    parser.add_argument("--ends", type=int, default=2000, help="how many of them end (default 2000)")
    parser.add_argument("--rate", type=float, default=100.0, help="how many end a second (default 100)")
    parser.add_argument("--peers", type=int, nargs="*", default=[50, 200, 1000], help="of each (default 50 200 1000)")
    parser.add_argument("--peer-seconds", type=float, default=30.0, help="likewise of the others (default 30)")
    options = parser.parse_args()
    command.on_the_test_cluster(measure, options)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Where it was measured, and a row for each question."""
    from airflow.sdk.bases.operator import ExecutorSafeguard

    from benchmarks.kubernetes.account import as_account
    from benchmarks.kubernetes.crowd import JobCrowd, OurCrowd, PodCrowd
    from benchmarks.kubernetes.place import place
    from benchmarks.kubernetes.waiting import rows

    ExecutorSafeguard.test_mode = True  # it would warn that no task runner calls the operators
    target.simulate(1 + max([options.tasks, *options.peers]) // PODS_OF_A_NODE)
    costs: dict[str, Cost] = {}
    ends: dict[str, Ends] = {}
    for kind, sizes, seconds in (
        (PodCrowd, options.peers, options.peer_seconds),
        (JobCrowd, options.peers, options.peer_seconds),
        (OurCrowd, [options.tasks], options.seconds),
    ):
        for tasks in sizes:
            who = f"{kind.label}, {tasks} tasks"
            with place(simulated=True) as here, as_account(here):  # a namespace each: what others leave is not watched
                costs[who], ends[who] = asyncio.run(_measured(here, kind(here, tasks), options, seconds))
            print(who, costs[who], _told(ends[who]), sep="\n  ", file=sys.stderr, flush=True)
    ours, own = costs.pop(who), ends.pop(who)
    made = [
        *rows(ours, costs, cores=CORES, memory=MEMORY),
        *(_row(own, ends, share, most) for share, most in ((0.5, P50), (0.99, P99))),
    ]
    print(*(row.text() for row in made), sep="\n\n", file=sys.stderr)
    where = {"kubernetes": here.version, "processors": os.cpu_count(), "load": round(os.getloadavg()[2], 1)}
    return {"where": where, "measures": [row.to_json() for row in made]}


async def _measured(place: Place, crowd: Crowd, options: argparse.Namespace, seconds: float) -> tuple[Cost, Ends]:
    from benchmarks.kubernetes.crowd import end, observed, tidied_later
    from benchmarks.kubernetes.triggerer import triggerer
    from benchmarks.kubernetes.waiting import cost

    triggers, tasks = await crowd.make(), len(crowd.names)
    begun, ending = time.time(), crowd.names[: options.ends]
    with tempfile.TemporaryDirectory() as folder, triggerer(Path(folder), dict(enumerate(triggers))) as process:
        await asyncio.sleep(SETTLING + tasks / STARTED)
        waited = await asyncio.to_thread(cost, place, process, tasks, begun, seconds)
        with tidied_later(), observed(place) as seen:
            rate = await end(place, ending, options.rate)
            events: dict[int, float] = {}
            shown: dict[str, float] = {}
            give_up = time.monotonic() + LATE
            while min(len(events), len(shown)) < len(ending) and time.monotonic() < give_up and process.alive:
                await asyncio.sleep(0.5)
                events |= {event["id"]: event["at"] for event in process.events()}
                shown = _seen(Path(seen.name))
    after = [events[number] - shown[name] for number, name in enumerate(ending) if number in events and name in shown]
    lost = len(ending) - len(after)
    return waited, Ends([*after, *[LATE] * lost], round(rate, 1), lost)


def _seen(path: Path) -> dict[str, float]:
    """Name of a workload -> when a plain watch showed its end."""
    whole = path.read_text().rpartition("\n")[0].splitlines()
    return {name: float(at) for name, at in map(str.split, whole)}


def _told(ends: Ends) -> str:
    lost = f", {ends.lost} without an event" if ends.lost else ""
    return (
        f"{len(ends.seconds)} ends, {ends.rate:g} a second{lost}: p50 {ends.quantile(0.5)}, p99 {ends.quantile(0.99)}"
    )


def _row(ours: Ends, peers: dict[str, Ends], share: float, most: float) -> Row:
    found = ours.quantile(share)
    return Row(
        f"end on the watch -> TriggerEvent while {ours.rate:g} a second end, p{round(share * 100)}",
        "s",
        found,
        None,
        {f"{who}, {his.rate:g} a second": his.quantile(share) for who, his in peers.items()},
        None,
        f"at most {most:g} s",
        found <= most and not ours.lost,
        {"without an event": [ours.lost]},
    )


if __name__ == "__main__":
    main()
