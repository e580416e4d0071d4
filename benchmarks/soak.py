"""``python -m benchmarks.soak --json --minutes 30``: jobs come and go while what they depend on is cut.

Two triggerers follow them, by Airflow's own TriggerRunner, through a proxy before the API server. Most jobs are pods on
simulated nodes, some of which fail; the others are real pods that write numbered lines. Meanwhile, at random moments,
the connections are cut, the API server is killed and comes back, or the second triggerer is ended (by SIGTERM, as a
service is) and another takes its place. Told are jobs whose event is lost, or came twice, or is not the one due; lines
that are missing or came twice; what is left in the namespace; and the first triggerer's memory, early and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import command
from benchmarks.report import Row, left, listed, none
from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.errors import BackendError
from practicus_provider.lifecycle import Outcome, Policy
from practicus_provider.plan import Here, Launch, Plan, Role
from practicus_provider.pod_settings import PodSettings
from practicus_provider.spec import Resources
from practicus_provider.status import State
from tests.cluster import target
from tests.cluster.fixture import Kubectl
from tests.cluster.simulation import EXIT_CODE, RUNS_FOR, SELECTOR, TOLERATION
from tests.kubernetes import MAIN, fresh
from tests.proxy import Proxy, proxied

if TYPE_CHECKING:
    from benchmarks.kubernetes.triggerer import Triggerer

CONNECTION = "practicus_default"
ROLE = "driver"
TALK = """
import sys, time, practicus_runtime as p
lines = int(sys.argv[1])
for number in range(lines):
    print("line", number, flush=True)
    time.sleep(0.1)
p.set_result(lines)
"""
CODE = 3
"""With which some simulated pods fail."""
LONGEST = 30.0
"""Seconds that a job runs at most."""
FAULTS = (10.0, 30.0)
"""Seconds between one fault, once it is repaired, and the next."""
EARLY = 300.0
"""Seconds after which memory is looked at first, or after a third of all the time if that is less."""
GROWN = 1.1
"""By how much it may have grown at the end."""
LAST = 300.0
"""Seconds in which a job's event must have come."""
TIMEOUT = 900.0


@dataclass
class Job:
    """One of them.

    :param lines: that it writes; 0: it is simulated.
    :param code: exit code.
    :param payloads: of its events.
    """

    name: str
    lines: int
    code: int
    payloads: list[Any] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def plan(self, seconds: float) -> Plan:
        """Of its one pod."""
        if self.lines:
            role = Role(ROLE, Launch((Here.PYTHON, "-c", TALK, str(self.lines))), resources=Resources(memory="64Mi"))
            return Plan("soak", (role,), ROLE, TIMEOUT, pod=PodSettings(pod_overrides={"spec": {"containers": [MAIN]}}))
        notes = {RUNS_FOR: f"{seconds:.1f}s", EXIT_CODE: str(self.code)}
        overrides = {
            "metadata": {"annotations": notes},
            "spec": {"nodeSelector": SELECTOR, "tolerations": [TOLERATION]},
        }
        return Plan(
            "soak", (Role(ROLE, Launch((Here.PYTHON,))),), ROLE, TIMEOUT, pod=PodSettings(pod_overrides=overrides)
        )

    @property
    def wrong(self) -> str | None:
        """What is not as it should be of its event."""
        for outcome in map(Outcome.from_json, self.payloads):
            good = outcome.verdict.state is State.SUCCEEDED
            if good is bool(self.code) or (self.lines and outcome.result != str(self.lines)):
                return f"{self.name}: {outcome.verdict.text()}; result {outcome.result}"
        return None

    @property
    def missing(self) -> int:
        """Lines that were not logged."""
        return len({f"line {number}" for number in range(self.lines)} - set(self.said))

    @property
    def doubled(self) -> int:
        """Lines that were, more often than once."""
        return sum(count - 1 for count in Counter(self.said).values())


def main() -> None:
    """Print JSON, or nothing: each fault goes to standard error, and a table."""
    parser = command.parser(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="for which jobs are begun (default 30)")
    parser.add_argument("--simulated", type=int, default=20, help="simulated jobs at a time (default 20)")
    parser.add_argument("--real", type=int, default=2, help="real ones (default 2)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with command.airflow_home(), target.as_found():
        rows, where = asyncio.run(_measured(options))
    print(*(row.text() for row in rows), sep="\n\n", file=sys.stderr)
    if options.json:
        print(json.dumps({"where": where, "measures": [row.to_json() for row in rows]}, indent=2))


async def _measured(options: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    from benchmarks.kubernetes.place import left as left_in

    kubeconfig = target.kubeconfig()
    target.simulate(1)
    kubectl = Kubectl((target.kubectl(), f"--kubeconfig={kubeconfig}"))
    with fresh(str(kubeconfig)) as namespace:
        place = KubernetesBackend(Access(str(kubeconfig)), Site(namespace.name, target.image("python")))
        async with proxied(kubectl) as (proxy, inline), _triggerers(namespace.name, inline) as triggerers:
            soak = Soak(place, proxy, triggerers, options)
            await soak.run()
        found = await asyncio.to_thread(left_in, namespace.name)
    where = {
        "processors": os.cpu_count(),
        "load": round(os.getloadavg()[2], 1),
        "minutes": options.minutes,
        "jobs": len(soak.jobs),
        "with lines": sum(bool(job.lines) for job in soak.jobs.values()),
        "faults": dict(soak.faults),
    }
    return _rows(soak, found), where


@contextlib.asynccontextmanager
async def _triggerers(namespace: str, kubeconfig: str) -> AsyncIterator[list[Triggerer]]:
    from benchmarks.kubernetes.triggerer import LINES, Triggerer

    extra = {"kubeconfig": kubeconfig, "namespace": namespace, "image": "none"}
    os.environ[f"AIRFLOW_CONN_{CONNECTION.upper()}"] = json.dumps({"conn_type": "practicus", "extra": extra})
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        made = []
        for name in ("first", "second"):
            own = Path(folder) / name
            own.mkdir()
            (own / LINES).touch()
            made.append(Triggerer(own))
            await asyncio.to_thread(made[-1].start)
            stack.callback(made[-1].kill)
        yield made


class Soak:
    """What goes on, and what came of it."""

    def __init__(
        self, place: KubernetesBackend, proxy: Proxy, triggerers: list[Triggerer], options: argparse.Namespace
    ) -> None:
        self.jobs: dict[int, Job] = {}
        self.faults: Counter[str] = Counter()
        self.memory: list[tuple[float, float]] = []
        """Seconds since the begin, and MiB of the first triggerer."""
        self.seconds = 60 * options.minutes
        self._place = place
        self._proxy = proxy
        self._triggerers = triggerers
        self._options = options
        self._random = random.Random(options.seed)
        self._numbers: Iterator[int] = itertools.count()
        self._begun = time.monotonic()

    async def run(self) -> None:
        """All of it, until every job that was begun has had its event, or had time for it."""
        beside = [asyncio.create_task(each) for each in (self._read(), self._break())]
        begins = [(False, self._options.simulated), (True, self._options.real)]
        await asyncio.gather(*(self._begin(real) for real, count in begins for _ in range(count)))
        for task in beside:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.sleep(2)  # what comes a second time may come a little later
        self._look()

    @property
    def _age(self) -> float:
        return time.monotonic() - self._begun

    async def _begin(self, real: bool) -> None:
        """One job after the other."""
        from practicus_provider.triggers.job import PracticusJobTrigger

        while self._age < self.seconds:
            number, seconds = next(self._numbers), self._random.uniform(1, LONGEST)
            code = CODE if not real and self._random.random() < 0.2 else 0
            job = self.jobs[number] = Job(f"soak-{number}", max(1, round(seconds / 0.1)) if real else 0, code)
            handle = await self._created(job, seconds)
            policy = Policy(time.time() + LAST, (ROLE,) if real else ())
            trigger = PracticusJobTrigger(CONNECTION, handle.to_json(), policy.to_json())
            self._random.choice(self._triggerers).give({number: trigger})
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST):
                    await job.ended.wait()

    async def _created(self, job: Job, seconds: float) -> Handle:
        """As Airflow's retries do it, for as long as an API server may take to come back."""
        task = {"dag_id": "soak", "task_id": job.name, "run_id": "r", "map_index": -1, "try_number": 1}
        give_up = time.monotonic() + LAST
        while True:
            try:
                return await self._place.create(job.name, job.plan(seconds), task=task)
            except BackendError:
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(1)

    async def _read(self) -> None:
        while True:
            self._look()
            self.memory.append((self._age, self._triggerers[0].memory))
            await asyncio.sleep(0.5)

    def _look(self) -> None:
        for triggerer in self._triggerers:
            for line in triggerer.lines():
                if line["event"].startswith("line "):
                    self.jobs[line["trigger_id"]].said.append(line["event"])
            for event in triggerer.events():
                job = self.jobs[event["id"]]
                job.payloads.append(event["payload"])
                job.ended.set()

    async def _break(self) -> None:
        """One fault at a time: nobody could say where a log was read to while there is no server to tell."""
        faults = {"connections cut": self._cut, "API server killed": self._kill, "triggerer ended": self._end}
        while self._age < self.seconds:
            await asyncio.sleep(self._random.uniform(*FAULTS))
            name = self._random.choice(list(faults))
            print(f"{self._age:.0f} s: {name}", file=sys.stderr, flush=True)
            await faults[name]()
            self.faults[name] += 1

    async def _cut(self) -> None:
        self._proxy.cut()

    async def _kill(self) -> None:
        target.control_plane()["kube-apiserver"].kill()
        await asyncio.to_thread(target.kubeconfig)

    async def _end(self) -> None:
        second = self._triggerers[1]
        await asyncio.to_thread(second.stop)
        await asyncio.to_thread(second.start)


def _rows(soak: Soak, remaining: list[str]) -> list[Row]:
    jobs = soak.jobs.values()
    early = min(EARLY, soak.seconds / 3)
    before = next((mib for at, mib in soak.memory if at >= early), None)
    after = soak.memory[-1][1] if soak.memory else None
    flat = before is not None and after is not None and after <= GROWN * before
    wrong = [job.wrong for job in jobs if job.wrong]
    lost = [job.name for job in jobs if not job.payloads]
    return [
        listed("lost events", lost),
        none("events that came twice", sum(len(job.payloads) > 1 for job in jobs), {}),
        listed("wrong outcomes", wrong),
        none("lines that are missing", sum(job.missing for job in jobs), {}),
        none("lines that came twice", sum(job.doubled for job in jobs), {}),
        left("objects left", remaining),
        Row("memory of the triggerer that stayed, at the end", "MiB", after, before, {}, None,
            f"at most {GROWN:g} times what it was after {early:.0f} s", flat, {}),
    ]  # fmt: skip


if __name__ == "__main__":
    main()
