"""Where it is measured: a namespace of a real cluster, and eyes on it that cost every contestant the same.

What becomes of objects is watched, never polled, so that looking does not slow down what is looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config

from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.api import Api, Manifest, connected
from practicus_provider.backends.kubernetes.labels import MANAGED
from practicus_provider.backends.kubernetes.pod_template import Site
from tests.cluster import target
from tests.kubernetes import fresh

PATIENCE = 300.0
"""Seconds after which what is waited for will not come."""
LEAVING = 120.0
OBJECTS = ("Job", "Pod", "ConfigMap", "Service", "ServiceAccount", "NetworkPolicy")
"""What a cluster of these benchmarks consists of."""
OURS, THEIRS = "practicus_default", "kubernetes_default"
"""Connections of Airflow: ours, and that of cncf-kubernetes' operators."""
BEGAN, ENDS = "began", "ends"
APPLICATION = (
    "import sys, time; began = time.time(); ends = began + float(sys.argv[1]); "
    f"print('{BEGAN}', began, flush=True); print('{ENDS}', ends, flush=True); time.sleep(ends - time.time())"
)
"""The user's code of every contestant: it says when it began and when it will end, by the clock of its node.

Beforehand, so that nobody has to follow its log, which would load the nodes at the very moment that is measured.
"""


@dataclass(frozen=True)
class Place:
    """A namespace in which Pod Security ``restricted`` is enforced."""

    kubeconfig: Path
    namespace: str
    image: str
    kubectl: str

    @property
    def access(self) -> Access:
        """How our backend reaches it."""
        return Access(str(self.kubeconfig))

    @property
    def backend(self) -> KubernetesBackend:
        """Ours."""
        return KubernetesBackend(self.access, Site(self.namespace, self.image))

    @property
    def version(self) -> str:
        """Of the API server."""
        return str(client.VersionApi(config.new_client_from_config(str(self.kubeconfig))).get_code().git_version)

    @contextlib.asynccontextmanager
    async def api(self) -> AsyncIterator[Api]:
        """Plain requests to it."""
        async with connected(self.access, self.namespace) as api:
            yield api


@contextlib.contextmanager
def place(image: str = "python", *, simulated: bool = False) -> Iterator[Place]:
    """A fresh namespace, which is gone afterwards; Airflow has its connections.

    :param image: one of ``images/``.
    :param simulated: all pods run on simulated nodes, which need no image.
    :raises ClusterError: there is no cluster.
    """
    kubeconfig = target.kubeconfig()
    with fresh(str(kubeconfig), guarded=False) as namespace:  # others' pods have no policy that lets them meet
        named = "simulated" if simulated else target.image(image)
        found = Place(kubeconfig, namespace.name, named, target.kubectl())
        connections(found, kubeconfig)
        asyncio.run(_inhabitable(found))
        yield found


def connections(place: Place, kubeconfig: Path) -> None:
    """Have Airflow's connections, here and in child processes, lead there by that kubeconfig."""
    ours = {"kubeconfig": str(kubeconfig), "namespace": place.namespace, "image": place.image}
    theirs = {"kube_config_path": str(kubeconfig), "namespace": place.namespace}
    for name, kind, extra in ((OURS, "practicus", ours), (THEIRS, "kubernetes", theirs)):
        os.environ[f"AIRFLOW_CONN_{name.upper()}"] = json.dumps({"conn_type": kind, "extra": extra})


async def _inhabitable(place: Place) -> None:
    """A pod without a service account of its own needs the default one, which comes a moment after the namespace."""
    async with place.api() as api:
        await until(api, "ServiceAccount", "", bool)


async def until(api: Api, kind: str, selector: str, met: Callable[[list[Manifest]], bool]) -> list[Manifest]:
    """The objects of that kind and labels, as soon as they meet a condition.

    :raises TimeoutError: they do not.
    """
    async with asyncio.timeout(PATIENCE):
        listed = await api.list(kind, labelSelector=selector)
        objects = {item["metadata"]["name"]: item for item in listed["items"]}
        version = listed["metadata"]["resourceVersion"]
        if met(list(objects.values())):
            return list(objects.values())
        async with api.watch(kind, silence=PATIENCE, labelSelector=selector, resourceVersion=version) as events:
            async for event in events:
                item = event["object"]
                if event["type"] == "DELETED":
                    del objects[item["metadata"]["name"]]
                else:
                    objects[item["metadata"]["name"]] = item
                if met(list(objects.values())):
                    return list(objects.values())
    raise ConnectionError(f"the watch of each {kind} with {selector} was cut")


async def gone(api: Api, selector: str) -> None:
    """Wait until nothing is left."""
    await asyncio.gather(*(until(api, kind, selector, lambda found: not found) for kind in OBJECTS))


def left(namespace: str) -> list[str]:
    """What there is of our clusters, as ``kind/name``, after at most :data:`LEAVING` seconds."""
    labels = ",".join(map("=".join, MANAGED.items()))
    command = [target.kubectl(), f"--kubeconfig={target.kubeconfig()}", "get", ",".join(OBJECTS)]
    give_up = time.monotonic() + LEAVING
    while True:
        done = subprocess.run([*command, "-n", namespace, "-l", labels, "-o", "name"], check=True, capture_output=True)
        if not done.stdout or time.monotonic() > give_up:
            return done.stdout.decode().split()
        time.sleep(2)


async def stamp(api: Api, selector: str, pods: int, word: str) -> float:
    """The latest of the times that so many pods say after that word.

    :raises RuntimeError: one says none.
    """
    names = await started_pods(api, selector, pods)
    return max(await asyncio.gather(*(said(api, pod, word) for pod in names)))


async def started_pods(api: Api, selector: str, pods: int) -> list[str]:
    """The names of so many pods, once their containers have started."""
    found = await until(api, "Pod", selector, lambda found: len(found) >= pods and all(map(started, found)))
    return [pod["metadata"]["name"] for pod in found]


async def said(api: Api, pod: str, word: str) -> float:
    """The time that a pod says after that word.

    :raises RuntimeError: it says none.
    """
    async with asyncio.timeout(PATIENCE), api.stream(f"pods/{pod}/log", silence=PATIENCE, follow="true") as lines:
        async for line in lines:
            match line.decode().split():
                case [what, at] if what == word:
                    return float(at)
    raise RuntimeError(f"pod {pod} never said {word!r}")


def started(pod: Manifest) -> bool:
    """Whether its container has, and may have ended since."""
    return any({"running", "terminated"} & state.keys() for state in _states(pod))


def terminated(pod: Manifest) -> bool:
    """Whether its container has."""
    return any("terminated" in state for state in _states(pod))


def complete(job: Manifest) -> bool:
    """Whether a Job has its condition ``Complete``."""
    conditions = job.get("status", {}).get("conditions", ())
    return any(condition["type"] == "Complete" and condition["status"] == "True" for condition in conditions)


def _states(pod: Manifest) -> Iterable[dict[str, Any]]:
    return [status["state"] for status in pod["status"].get("containerStatuses", ())]
