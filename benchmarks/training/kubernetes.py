"""How soon all ranks of a training have met in pods: ours, our own manifests by kubectl, and some written by hand."""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict

from benchmarks.kubernetes.contestants import TIMEOUT, Kubectl, Ours, Planned, resources
from benchmarks.kubernetes.life import submitted
from benchmarks.kubernetes.place import Place
from benchmarks.report import Row, compared, turns
from benchmarks.training.program import MET, RANKS, program
from practicus_provider.adapters import make_plan
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import INDEX, MAIN
from practicus_provider.plan import Here, Plan
from practicus_provider.pod_settings import PodSettings
from practicus_provider.spec import JobSpec

STEPS = 1
RESOURCES = resources("2Gi")
PORT = "29500"


class Training(Planned):
    """One of a framework's trainings."""

    def __init__(self, place: Place, name: str, framework: str) -> None:
        self.framework = framework
        super().__init__(place, name, RANKS, TIMEOUT)

    @property
    def plan(self) -> Plan:
        """What an operator would make."""
        overrides = {"spec": {"containers": [{"name": MAIN, "resources": RESOURCES}]}}
        spec = JobSpec(adapter=self.framework, workers=RANKS, pod=PodSettings(pod_overrides=overrides))
        files = {"job.py": program(self.framework, STEPS).encode()}
        return make_plan(spec, (Here.PYTHON, (Here.APP, "/job.py")), files)


class Submitted(Training, Ours):
    """By our backend."""

    label = "ours"


class Rendered(Training, Kubectl):
    """Our manifests by ``kubectl apply``."""

    label = "kubectl, our manifests"


class ByHand(Training, Kubectl):
    """What one would write who needs no more than this training: a ConfigMap, a Service, and an Indexed Job."""

    label = "raw"

    @property
    def manifests(self) -> list[Manifest]:
        """See :attr:`Kubectl.manifests`."""
        labels = dict([self.selector.split("=")])
        meta = {"name": self.name, "namespace": self.place.namespace, "labels": labels}
        env, code = self._env(), program(self.framework, STEPS)
        if self.framework == "horovod":
            env, code = self._horovod_env(), RENDEZVOUS + code
        service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": labels}
        container = {
            "name": MAIN,
            "image": self.place.image,
            "command": ["python3", "/job/job.py"],
            "env": env,
            "resources": RESOURCES,
            "volumeMounts": [{"name": "job", "mountPath": "/job"}],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
        pod = {
            "restartPolicy": "Never",
            "subdomain": self.name,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "job", "configMap": {"name": self.name}}],
        }
        job = {
            "completionMode": "Indexed",
            "completions": RANKS,
            "parallelism": RANKS,
            "backoffLimit": 0,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        }
        return [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": meta,
                "data": {"job.py": code},
            },
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
            {"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": job},
        ]

    def _env(self) -> list[Manifest]:
        """What torchrun would tell."""
        told = {"WORLD_SIZE": str(RANKS), "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        told |= {"MASTER_ADDR": f"{self.name}-0.{self.name}", "MASTER_PORT": PORT, "GLOO_SOCKET_IFNAME": "eth0"}
        return [_index("RANK"), *_env(told)]

    def _horovod_env(self) -> list[Manifest]:
        """What horovodrun would tell."""
        told = {"SIZE": str(RANKS), "LOCAL_RANK": "0", "LOCAL_SIZE": "1", "CROSS_SIZE": str(RANKS)}
        told |= {"HOSTNAME": "$(HOROVOD_RANK)"}
        told |= {"CONTROLLER": "gloo", "CPU_OPERATIONS": "gloo", "GLOO_IFACE": "eth0"}
        told |= {"GLOO_RENDEZVOUS_ADDR": f"{self.name}-0.{self.name}", "GLOO_RENDEZVOUS_PORT": PORT}
        own = {f"HOROVOD_{name}": value for name, value in told.items()}
        return [_index("HOROVOD_RANK"), _index("HOROVOD_CROSS_RANK"), *_env(own)]


RENDEZVOUS = f"""import os, socket, threading, time
if os.environ["HOROVOD_RANK"] == "0":
    from horovod.runner.common.util.hosts import get_host_assignments, parse_hosts
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    server = RendezvousHTTPServer(("", {PORT}), RendezvousHandler, 0)
    server.init(get_host_assignments(parse_hosts("0:1,1:1"), 2))
    threading.Thread(target=server.serve_forever, daemon=True).start()
while True:
    try:
        socket.create_connection((os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], {PORT}), 1).close()
        break
    except OSError:
        time.sleep(0.05)
"""
"""Before Horovod's script, as nobody else starts its ranks: serve what horovodrun serves, and wait for it."""


def started(place: Place, framework: str, runs: int) -> Row:
    """The row of one framework."""
    samples: defaultdict[str, list[float]] = defaultdict(list)
    kinds: list[type[Training]] = [Submitted, ByHand, Rendered]
    for turn, kind in turns(kinds, runs):
        contestant = kind(place, f"training-{uuid.uuid4().hex[:12]}", framework)
        took = asyncio.run(submitted(contestant, MET))
        contestant.delete()
        if turn:
            samples[kind.label].append(took)
    measure = f"submit -> all ranks have met, {framework}, kubernetes"
    return compared(measure, samples, most=1.10, bar="at most 1.10 x kubectl apply of what is written by hand")


def _index(variable: str) -> Manifest:
    return {"name": variable, "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}}


def _env(variables: dict[str, str]) -> list[Manifest]:
    return [{"name": name, "value": value} for name, value in {"OMP_NUM_THREADS": "1", **variables}.items()]
