"""Thousands of workloads on simulated nodes, which run until they are told to end, and the triggers that wait for them.

Nodes are simulated, and so are containers; Jobs, pods, and all that the control plane does with them are real.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, ClassVar

from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.triggers.base import BaseTrigger
from kubernetes import client

from benchmarks.kubernetes.contestants import TIMEOUT, JobOperator, Operated, PodOperator, Unstreamed
from benchmarks.kubernetes.place import PATIENCE, Place, started
from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes.api import Api, Manifest
from practicus_provider.backends.kubernetes.labels import CLUSTER
from practicus_provider.backends.kubernetes.render import render
from practicus_provider.plan import Plan
from practicus_provider.pod_settings import PodSettings
from tests.cluster import target
from tests.cluster.simulation import RUNS_FOR, SELECTOR, TOLERATION

AT_ONCE = 16
"""Requests of ours side by side, as the crowd is made."""
LONG = "24h"
NAME = "crowd"
FIRST = f"{NAME}-first"


class Crowd(ABC):
    """Workloads of one kind, one pod each, and their triggers."""

    label: ClassVar[str]

    def __init__(self, place: Place, tasks: int) -> None:
        self.place = place
        self.names = [f"{NAME}-{self.label.lower()}-{number}" for number in range(tasks)]

    @abstractmethod
    def manifest(self, name: str) -> Manifest:
        """What makes one of them."""

    @abstractmethod
    def trigger(self, made: Manifest) -> BaseTrigger:
        """What waits for it."""

    async def make(self) -> list[BaseTrigger]:
        """All of them, until all of them run; the triggers are in the order of their names."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def make(name: str) -> Manifest:
            async with turn:
                return await api.create(self.manifest(name))

        async with self.place.api() as api:
            made = await asyncio.gather(*map(make, self.names))
            await self._run(api)
        return [self.trigger(one) for one in made]

    async def _run(self, api: Api) -> None:
        """Looked for less often the more of them there are, since each look is a list of all pods."""
        give_up = time.monotonic() + PATIENCE + len(self.names) / 10
        while len(await pods(api, self.names, running=True)) < len(self.names):
            if time.monotonic() > give_up:
                raise TimeoutError(f"not all pods of {len(self.names)} workloads run")
            await asyncio.sleep(1 + len(self.names) / 1000)


class OurCrowd(Crowd):
    """Clusters of ours, whose logs are not streamed: simulated pods have none. Of each there is the root Job alone.

    What else belongs to a cluster is nothing that a trigger looks at, or that a simulated pod needs.
    """

    label = "ours"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        one = Simulated(self.place, NAME, 1, TIMEOUT)
        root = render(NAME, one.plan, self.place.backend.site, one.task, lease=None, parent=None).root
        root["spec"]["suspend"] = False
        del root["spec"]["template"]["spec"]["serviceAccountName"]  # of its own, which is one of the others
        self._text = json.dumps(root)

    def manifest(self, name: str) -> Manifest:
        """See :meth:`Crowd.manifest`."""
        made: Manifest = json.loads(self._text.replace(f'"{NAME}"', f'"{name}"'))
        return made

    def trigger(self, made: Manifest) -> BaseTrigger:
        """See :meth:`Crowd.trigger`."""
        one = Simulated(self.place, made["metadata"]["name"], 1, TIMEOUT)
        one.handle = Handle(made["metadata"]["name"], made["metadata"]["uid"])
        return one.trigger()


class Simulated(Unstreamed):
    """Ours on simulated nodes, which have no logs."""

    @property
    def plan(self) -> Plan:
        """As that of all of ours, on simulated nodes."""
        plan = super().plan
        metadata = {"annotations": {RUNS_FOR: LONG}}
        spec = {**plan.pod.pod_overrides["spec"], "nodeSelector": SELECTOR, "tolerations": [TOLERATION]}
        return replace(plan, pod=PodSettings(pod_overrides={"metadata": metadata, "spec": spec}))


class _OperatedCrowd(Crowd):
    """The first one is an operator's own; the others are copies of it, and so are their triggers."""

    kind: ClassVar[type[Operated]]
    named: ClassVar[str]
    """The trigger's argument that names what it waits for."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        first = self.kind(self.place, FIRST, 1, TIMEOUT)
        operator = first.operator
        operator.node_selector, operator.annotations = SELECTOR, {RUNS_FOR: LONG}
        operator.tolerations = [client.V1Toleration(**TOLERATION)]
        first.submit()
        self._trigger = first.trigger().serialize()[1]
        self._class = type(first.trigger())
        self._text = json.dumps(client.ApiClient().sanitize_for_serialization(self._built(first)))

    @abstractmethod
    def _built(self, first: Any) -> object:
        """What the operator has sent."""

    def manifest(self, name: str) -> Manifest:
        """See :meth:`Crowd.manifest`. An own number, where operators add something random."""
        made: Manifest = json.loads(self._text.replace(FIRST, name))
        made["metadata"]["name"] = name
        return made

    def trigger(self, made: Manifest) -> BaseTrigger:
        """See :meth:`Crowd.trigger`."""
        return self._class(**{**self._trigger, self.named: made["metadata"]["name"]})


class PodCrowd(_OperatedCrowd):
    """KubernetesPodOperator's."""

    label = "KubernetesPodTrigger"
    kind = PodOperator
    named = "pod_name"

    def _built(self, first: PodOperator) -> object:
        return first.operator.build_pod_request_obj(first.context())


class JobCrowd(_OperatedCrowd):
    """KubernetesJobOperator's."""

    label = "KubernetesJobTrigger"
    kind = JobOperator
    named = "job_name"

    def _built(self, first: JobOperator) -> object:
        assert isinstance(first.operator, KubernetesJobOperator)
        return first.operator.build_job_request_obj(first.context())


async def pods(api: Api, names: Sequence[str], *, running: bool = False) -> Mapping[str, tuple[str, str]]:
    """Name of a workload -> its pod, and the container in there."""
    wanted, query = set(names), {"labelSelector": CLUSTER, "limit": "500"}
    found: dict[str, tuple[str, str]] = {}
    while True:
        listed = await api.list("Pod", **query)
        for pod in listed["items"]:
            name = pod["metadata"]["labels"][CLUSTER]
            if name in wanted and (started(pod) or not running):
                found[name] = pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]
        if not (following := listed["metadata"].get("continue")):
            return found
        query["continue"] = following


TIDIES = ("kube-controller-manager", "kube-scheduler", "kwok")
"""Processes that remove what has ended, and that nobody waits for."""
LEFT_OVER = 19
"""Their niceness meanwhile."""


@contextmanager
def tidied_later() -> Iterator[None]:
    """What follows an end, the Job controller's and the garbage collector's, has the processor time that is left over:
    in earnest they have machines of their own. Somebody else's cluster has, and is left alone."""
    processes = target.control_plane()
    tidies = [processes[name].pid for name in TIDIES if name in processes]
    for pid in tidies:
        _nice(pid, LEFT_OVER)
    try:
        yield
    finally:
        for pid in tidies:
            _nice(pid, 0)


def _nice(pid: int, niceness: int) -> None:
    """All of a process that leads a session: sessions have shares, and threads in them (sched(7), *autogroup*)."""
    with suppress(FileNotFoundError):
        Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(task.name), niceness)


async def end(place: Place, names: Sequence[str], rate: float) -> float:
    """Have the pods of these end well, so many a second; returns how many a second it were."""
    async with place.api() as api:
        found = await pods(api, names)
        begun, patches = time.monotonic(), []
        for number, name in enumerate(names):
            await asyncio.sleep(begun + number / rate - time.monotonic())
            pod, container = found[name]
            patches.append(asyncio.create_task(api.patch("Pod", pod, ended(container), "status")))
        await asyncio.gather(*patches)
        return len(names) / (time.monotonic() - begun)


def ended(container: str) -> Manifest:
    """What a kubelet says of a pod whose container ended well."""
    common = {"image": "simulated", "imageID": "", "ready": False, "restartCount": 0}
    state = {"terminated": {"exitCode": 0, "reason": "Completed"}}
    return {"status": {"phase": "Succeeded", "containerStatuses": [{"name": container, **common, "state": state}]}}


@contextmanager
def observed(place: Place) -> Iterator[IO[str]]:
    """A plain watch in a process of its own: a file with the name and the time of each workload's end that it saw."""
    with tempfile.NamedTemporaryFile("r") as seen:
        command = [sys.executable, "-m", "benchmarks.kubernetes.observer"]
        arguments = (str(place.kubeconfig), place.namespace, seen.name)
        with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE) as process:
            try:
                assert process.stdout is not None
                if not process.stdout.readline():
                    raise RuntimeError("the observer did not start")
                yield seen
            finally:
                process.kill()
