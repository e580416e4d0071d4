"""``python -m benchmarks.backfill --json``: a year by ``airflow backfill create``, each day's task mapped.

A real Airflow: API server, scheduler with LocalExecutor, triggerer, DAG processor, on a PostgreSQL of its own. A real
control plane, with pods on simulated nodes unless there are none. A third of the jobs fail, as their dates say. Told
are the clusters that were created a minute, by the API server's audit log; where the processor time went; task
instances for which another than one root Job was ever created; those whose state is not what their date says; and what
is left in the namespace.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil

from benchmarks import command, processor
from benchmarks.kubernetes.audit import audited
from benchmarks.kubernetes.place import left as left_in
from benchmarks.postgres import postgres
from benchmarks.report import Row, left, listed, none
from tests.cluster import target
from tests.cluster.simulation import SELECTOR, TOLERATION
from tests.e2e.airflow_home import REPO, Airflow, eventually, running
from tests.kubernetes import MAIN, fresh

FIRST = date(2013, 1, 1)
FILES = ("benchmarks/dags/backfill.py", "benchmarks/dags/exits.py", "tests/e2e/dags/single.py")
ENDED = ("success", "failed")
PAGE = 100
"""Task instances that are asked for at a time."""
SAID = 60.0
"""Seconds between two lines about how far it is."""


@dataclass(frozen=True)
class Backfill:
    """What was found.

    :param seconds: from the command to the end of the last run.
    :param busy: share of this machine's processors that was in use meanwhile, by whomever.
    :param spent: component -> processor seconds for each task instance.
    :param states: day and map index -> the task instance's state.
    :param created: name of a root Job -> when it was created, each time; empty if there is no audit log to tell.
    """

    seconds: float
    busy: float
    spent: Mapping[str, float]
    states: Mapping[tuple[date, int], str]
    created: Mapping[str, list[float]]
    left: list[str]


def main() -> None:
    """Print JSON, or nothing: a table goes to standard error."""
    parser = command.parser(__doc__)
    parser.add_argument("--days", type=int, default=365, help="runs (default 365)")
    parser.add_argument("--mapped", type=int, default=4, help="instances of the task in each (default 4)")
    parser.add_argument("--active", type=int, default=16, help="runs at once (default 16)")
    parser.add_argument("--parallelism", type=int, default=4, help="tasks that workers run at once (default 4)")
    parser.add_argument("--simulated-nodes", type=int, default=2, help="0: real pods (default 2)")
    options = parser.parse_args()
    command.end_by_sigterm()
    with target.as_found():
        found = measure(options)
    rows = _rows(found, options)
    print(*(row.text() for row in rows), sep="\n\n", file=sys.stderr)
    if options.json:
        where = {
            "processors": os.cpu_count(),
            "in use": round(found.busy, 2),
            "minutes": round(found.seconds / 60, 1),
            "states": dict(Counter(found.states.values())),
        }
        print(json.dumps({"where": where, "measures": [row.to_json() for row in rows]}, indent=2))


def measure(options: argparse.Namespace) -> Backfill:
    """All of it."""
    kubeconfig = target.kubeconfig()
    if options.simulated_nodes:
        target.simulate(options.simulated_nodes)
    with tempfile.TemporaryDirectory() as folder, fresh(str(kubeconfig)) as namespace, postgres() as database:
        home, dags = Path(folder) / "home", Path(folder) / "dags"
        home.mkdir()
        dags.mkdir()
        for file in FILES:
            shutil.copy(REPO / file, dags)
        settings = {
            **database.settings,
            "AIRFLOW__CORE__PARALLELISM": str(options.parallelism),
            "BACKFILL_MAPPED": str(options.mapped),
        }
        extra = {
            "namespace": namespace.name,
            "kubeconfig": namespace.kubeconfig,
            **_pods(bool(options.simulated_nodes)),
        }
        with running(home, [dags], extra, more=settings) as airflow:
            airflow.unpause("backfill")
            before, begun = processor.spent(airflow, database.process), time.monotonic()
            psutil.cpu_percent()  # the next call tells of the time since
            _backfill(airflow, options)
            seconds, busy = time.monotonic() - begun, psutil.cpu_percent() / 100
            spent = processor.since(before, processor.spent(airflow, database.process), options.days * options.mapped)
            states = dict(_states(airflow))
            remaining = left_in(namespace.name)
        return Backfill(seconds, busy, spent, states, dict(_roots(namespace.name)), remaining)


def _pods(simulated: bool) -> dict[str, Any]:
    if not simulated:
        return {"image": target.image("python"), "pod_overrides": {"spec": {"containers": [MAIN]}}}
    return {"image": "simulated", "pod_overrides": {"spec": {"nodeSelector": SELECTOR, "tolerations": [TOLERATION]}}}


def _backfill(airflow: Airflow, options: argparse.Namespace) -> None:
    """As a user does it; returns once the last run has ended."""
    last = FIRST + timedelta(days=options.days - 1)
    between = ("--from-date", str(FIRST), "--to-date", str(last))
    airflow.cli("backfill", "create", "--dag-id=backfill", *between, "--max-active-runs", str(options.active))
    told = time.monotonic()

    def ended() -> bool:
        nonlocal told
        try:
            counts = {state: _count(airflow, state) for state in ENDED}
        except TimeoutError:  # it has more to do than to answer us
            return False
        if time.monotonic() > told + SAID:
            told = time.monotonic()
            print(f"{counts} of {options.days} runs", file=sys.stderr, flush=True)
        return bool(sum(counts.values()) == options.days)

    eventually("all runs end", ended, 300.0 + 60.0 * options.days)


def _count(airflow: Airflow, state: str) -> int:
    path = f"/api/v2/dags/backfill/dagRuns?run_type=backfill&state={state}&limit=1"
    return int(airflow.call("GET", path)["total_entries"])


def _states(airflow: Airflow) -> Iterator[tuple[tuple[date, int], str]]:
    offset = 0
    while True:
        path = f"/api/v2/dags/backfill/dagRuns/~/taskInstances?limit={PAGE}&offset={offset}&order_by=id"
        found = airflow.call("GET", path)["task_instances"]
        for instance in found:
            day = datetime.fromisoformat(instance["logical_date"]).date()
            yield (day, instance["map_index"]), instance["state"]
        if len(found) < PAGE:
            return
        offset += PAGE


def _roots(namespace: str) -> Iterator[tuple[str, list[float]]]:
    found: dict[str, dict[str, float]] = {}
    for at, event in audited(namespace, '"verb":"create"'):
        of, answer = event.get("objectRef", {}), event.get("responseStatus", {})
        if (of.get("resource"), of.get("namespace"), answer.get("code")) == ("jobs", namespace, 201):
            found.setdefault(of["name"], {})[event["auditID"]] = at
    for name, times in found.items():
        yield name, sorted(times.values())


def _wrong(states: Mapping[tuple[date, int], str], options: argparse.Namespace) -> list[str]:
    """The task instances whose state is not what their date says, and those that there should be and are not."""
    wrong = []
    for day in (FIRST + timedelta(days=number) for number in range(options.days)):
        for part in range(options.mapped):
            state = states.get((day, part))
            if state != ("failed" if (day.day + part) % 3 == 0 else "success"):
                wrong.append(f"{day} {part}: {state}")
    return wrong


def _rows(found: Backfill, options: argparse.Namespace) -> list[Row]:
    times = sorted(at for each in found.created.values() for at in each)
    minutes = (times[-1] - times[0]) / 60 if len(times) > 1 else 0.0
    rate = round((len(times) - 1) / minutes, 1) if minutes else None
    instances = options.days * options.mapped
    of = f"of {options.days} days x {options.mapped}"
    known = bool(found.created)  # else there is no audit log to tell
    wrong = _wrong(found.states, options)
    return [
        Row(f"clusters created, {of}", "a minute", rate, None, {}, None, None, None, {}),
        Row(f"processor time for each, {of}", "s", round(sum(found.spent.values()), 3), None, found.spent, None, None,
            None, {}),
        none(f"clusters created twice for one task instance, {of}", len(times) - len(found.created) if known else None,
             {}),
        none(f"task instances without a cluster, {of}", instances - len(found.created) if known else None, {}),
        listed(f"wrong outcomes, {of}", wrong),
        left(f"objects left, {of}", found.left),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
