"""``python -m benchmarks.failures --json``: what becomes of a training whose rank 1 is killed at a random moment.

Of each framework and backend, so many trainings of two workers: SIGKILL ends rank 1 at any time from its script's first
line on, as it imports, as ranks meet, or as they train. Counted is how often rank 1 is named, how often the verdict
comes within 5 s, and how often nothing is left then, no process and no object; timed, from the kill to the verdict, and
until the cluster is deleted.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.scripts import SCRIPTS
from practicus_provider import lifecycle
from practicus_provider.adapters import make_plan
from practicus_provider.backends.base import Backend, Handle
from practicus_provider.backends.kubernetes.labels import CLUSTER, INDEX
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.processes import marked
from practicus_provider.lifecycle import Policy
from practicus_provider.plan import Here, Plan
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import JobSpec
from tests.cluster import target

SOON = 5.0
"""Seconds in which the job has to end."""
SPAN = 15.0
"""Seconds after the script's first line in which rank 1 is killed: imports take most of them on a busy machine."""
PATIENCE = 300.0
LEASE = 30.0
"""Seconds that a training, which has no end of its own, goes on should we be killed."""
OBJECTS = ("jobs", "pods", "configmaps", "services", "serviceaccounts", "networkpolicies")
FIRST = "import os\nprint('rank', os.environ['RANK'], 'is', os.getpid(), flush=True)\n"


@dataclass(frozen=True)
class Place:
    """Where trainings run.

    :param kill: ends a process of ``worker-1``; returns when, in seconds since the epoch.
    :param left: names what there is of a cluster: processes, folders, objects.
    """

    backend: Backend
    kill: Callable[[Handle, int], float]
    left: Callable[[Handle], list[str]]


@dataclass(frozen=True)
class End:
    """How one training ended.

    :param after: seconds from the script's first line to the kill.
    :param seconds: from the kill to the verdict.
    :param gone: from the kill until the cluster is deleted.
    :param left: what there is of it then.
    """

    after: float
    seconds: float
    gone: float
    left: list[str]
    message: str

    @property
    def named(self) -> bool:
        """Whether it is rank 1 that is said to have been killed."""
        return self.message == "rank 1 (worker-1) was killed by SIGKILL"


def main() -> None:
    """Print JSON, or nothing: each row is said on standard error as it is known."""
    parser = command.parser(__doc__)
    parser.add_argument("--runs", type=int, default=20, help="of each framework and backend (default 20)")
    parser.add_argument("--frameworks", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    parser.add_argument("--backends", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    command.end_by_sigterm()
    moments = random.Random(options.seed)
    rows = []
    with target.as_found():
        for backend, framework in itertools.product(options.backends, options.frameworks):
            after = [moments.uniform(0, SPAN) for _ in range(options.runs)]
            rows.append(asyncio.run(_row(backend, framework, after)))
            print(json.dumps({key: value for key, value in rows[-1].items() if key != "ends"}), file=sys.stderr)
    if options.json:
        print(json.dumps({"rows": rows, "load": round(os.getloadavg()[2], 1)}, indent=2))


async def _row(backend: str, framework: str, moments: list[float]) -> dict[str, Any]:
    async with PLACES[backend]() as place:
        ends = [await _end(place, framework, f"job-{number}", after) for number, after in enumerate(moments)]
    return {
        "framework": framework,
        "backend": backend,
        "runs": len(ends),
        "named": sum(end.named for end in ends),
        f"within {SOON:g} s": sum(end.seconds <= SOON for end in ends),
        "seconds, median": round(statistics.median(end.seconds for end in ends), 2),
        "seconds, most": round(max(end.seconds for end in ends), 2),
        "nothing left": sum(not end.left for end in ends),
        "gone after, most": round(max(end.gone for end in ends), 2),
        "ends": [vars(end) for end in ends],
    }


async def _end(place: Place, framework: str, name: str, after: float) -> End:
    backend, plan = place.backend, _plan(framework)
    said: list[str] = []
    async with backend.session():
        handle = await backend.create(name, plan, task={}, lease=LEASE)
        policy = Policy(time.time() + PATIENCE, ("worker-0", "worker-1"), lease=LEASE)
        following = asyncio.create_task(lifecycle.follow(backend, handle, policy, lambda line, *_: said.append(line)))
        async with asyncio.timeout(PATIENCE):
            while not (pids := [found[1] for line in said if (found := RANK_1.search(line))]):
                await asyncio.sleep(0.05)
        await asyncio.sleep(after)
        killed = await asyncio.to_thread(place.kill, handle, int(pids[0]))
        outcome = await following
        told = time.time() - outcome.seconds["teardown"]
        await backend.delete(handle)
        gone = time.time()
        left = await asyncio.to_thread(place.left, handle)
    return End(round(after, 2), round(told - killed, 2), round(gone - killed, 2), left, outcome.verdict.message)


RANK_1 = re.compile(r"rank 1 is (\d+)$")


def _plan(framework: str) -> Plan:
    spec, script = JobSpec(adapter=framework, workers=2), SCRIPTS[framework]
    code = f"{FIRST}{script.imports}{script.meet}{script.prepare}while True:\n    {script.step}"
    return make_plan(spec, (Here.PYTHON, (Here.APP, "/job.py")), {"job.py": code.encode()})


@contextlib.asynccontextmanager
async def _local() -> AsyncIterator[Place]:
    from tests.training import environment

    def kill(handle: Handle, pid: int) -> float:
        at = time.time()
        os.kill(pid, signal.SIGKILL)
        return at

    def left(handle: Handle) -> list[str]:
        processes = [f"process {process.pid}" for process in marked(Env.CLUSTER, handle.uid)]
        return [*processes, *map(str, Path(folder).glob(handle.name))]

    with tempfile.TemporaryDirectory() as folder:
        yield Place(LocalBackend(Path(folder), python=str(environment.python())), kill, left)


@contextlib.asynccontextmanager
async def _kubernetes() -> AsyncIterator[Place]:
    from tests.cluster.fixture import Kubectl
    from tests.kubernetes import fresh, pods

    kubeconfig = target.kubeconfig()
    kubectl = Kubectl((target.kubectl(), f"--kubeconfig={kubeconfig}"))
    with fresh(str(kubeconfig)) as namespace:

        def kill(handle: Handle, pid: int) -> float:
            """By the clock of the node, which is this machine's on the test cluster."""
            labels = f"{CLUSTER}={handle.name},{INDEX}=1"
            pod = kubectl("get", "pods", "-n", namespace.name, "-l", labels, "-o", "name").strip()
            code = f"import os, time; print(time.time()); os.kill({pid}, 9)"
            return float(kubectl("exec", "-n", namespace.name, pod, "--", "python3", "-c", code))

        def left(handle: Handle) -> list[str]:
            objects = ("get", ",".join(OBJECTS), "-n", namespace.name, "-l", f"{CLUSTER}={handle.name}", "-o", "name")
            return kubectl(*objects).split()

        yield Place(pods(namespace, target.image("training")), kill, left)


PLACES = {"local": _local, "kubernetes": _kubernetes}


if __name__ == "__main__":
    main()
