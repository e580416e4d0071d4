"""Where processor time goes while a whole Airflow works on the test cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

import psutil

from tests.cluster import target
from tests.e2e.airflow_home import Airflow

COMPONENTS = ("scheduler", "triggerer", "dag-processor")
API_SERVER, WORKERS, DATABASE, KUBERNETES = "api-server", "workers", "database", "Kubernetes' control plane"
"""Workers are what runs tasks: with LocalExecutor the scheduler's children, and theirs."""


def spent(airflow: Airflow, database: psutil.Process) -> dict[str, float]:
    """Seconds by component, with those of its children, also of those that have ended."""
    found = {DATABASE: _with_children(database)}
    for child in psutil.Process(airflow.process.pid).children():
        name = next((name for name in COMPONENTS if name in child.cmdline()), API_SERVER)  # it writes over its command
        found[name] = _with_children(child)
        if name == "scheduler":
            own = _own(child)
            found |= {name: own, WORKERS: found[name] - own}
    if processes := target.control_plane().values():
        found[KUBERNETES] = sum(_own(psutil.Process(each.pid)) for each in processes if each.alive)
    return found


def since(before: Mapping[str, float], after: Mapping[str, float], shares: int) -> dict[str, float]:
    """What was spent in between, for each of so many things that were made meanwhile; most first."""
    each = {name: round((after[name] - before[name]) / shares, 3) for name in after}
    return dict(sorted(each.items(), key=lambda item: -item[1]))


def _own(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _with_children(process: psutil.Process) -> float:
    living: Iterable[psutil.Process] = [process, *process.children(recursive=True)]
    total = 0.0
    for each in living:
        with contextlib.suppress(psutil.NoSuchProcess):  # its parent has what it took as soon as it has waited for it
            times = each.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total
