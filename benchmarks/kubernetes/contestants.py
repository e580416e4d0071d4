"""Who is compared: the same user's code in so many pods, submitted and deleted in different ways, each for real.

What a user has ready before he submits (a plan, manifests, an operator) is made in ``__init__``, and is not measured.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from abc import ABC, abstractmethod
from types import SimpleNamespace
from typing import Any, ClassVar

from airflow.providers.cncf.kubernetes.operators.job import KubernetesJobOperator
from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import BaseTrigger
from kubernetes import client, config
from kubernetes.utils import create_from_dict

from benchmarks.kubernetes.place import APPLICATION, OURS, THEIRS, Place
from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import CLUSTER, MAIN
from practicus_provider.backends.kubernetes.render import render
from practicus_provider.lifecycle import Policy
from practicus_provider.plan import Here, Launch, Plan, Role
from practicus_provider.pod_settings import PodSettings
from practicus_provider.spec import Resources
from practicus_provider.triggers.job import PracticusJobTrigger

ROLE = "rank"
MEMORY = "64Mi"
TIMEOUT = 3600.0


def resources(memory: str) -> dict[str, dict[str, str]]:
    """Of every contestant's pod: a hundred of them fit on a small machine, and none is slowed down as it starts."""
    return {"requests": {"cpu": "10m", "memory": memory}, "limits": {"cpu": "2", "memory": memory}}


RESOURCES = resources(MEMORY)


class Contestant(ABC):
    """One workload.

    :param name: unique in the namespace.
    :param seconds: that the user's code lasts.
    :ivar selector: of all its objects, and of nothing else.
    """

    label: ClassVar[str]

    def __init__(self, place: Place, name: str, pods: int, seconds: float) -> None:
        self.place = place
        self.name = name
        self.pods = pods
        self.seconds = seconds
        self.selector = f"{CLUSTER}={name}"

    @abstractmethod
    def submit(self) -> None:
        """Have it run; returns once that is certain."""

    @abstractmethod
    def delete(self) -> None:
        """Have it gone; returns when whoever deletes believes that it is."""


class Waiting(Contestant):
    """One with a trigger: what a deferred task waits by."""

    @abstractmethod
    def trigger(self) -> BaseTrigger:
        """It, once the workload is submitted."""


class Planned(Contestant):
    """One whose objects are those of our plan."""

    @property
    def plan(self) -> Plan:
        """Ranks that run Python, as a user's own adapter would have them."""
        launch = Launch((Here.PYTHON, "-c", APPLICATION, str(self.seconds)))
        overrides = {"spec": {"containers": [{"name": MAIN, "resources": RESOURCES}]}}
        roles = (Role(ROLE, launch, self.pods, Resources(memory=MEMORY)),)
        return Plan("benchmark", roles, ROLE, TIMEOUT, pod=PodSettings(pod_overrides=overrides))

    @property
    def task(self) -> dict[str, Any]:
        """Facts of the task instance."""
        return {"dag_id": "benchmark", "task_id": self.name, "run_id": "r", "map_index": -1, "try_number": 1}


class Ours(Planned, Waiting):
    """Our backend, as an operator calls it: with a connection of its own, and an event loop of its own."""

    label = "ours"
    handle: Handle
    streamed: tuple[str, ...] = (ROLE,)

    def submit(self) -> None:
        """See :meth:`Contestant.submit`."""
        self.handle = asyncio.run(self.place.backend.create(self.name, self.plan, task=self.task))

    def delete(self) -> None:
        """See :meth:`Contestant.delete`."""
        asyncio.run(self.place.backend.delete(self.handle))

    def trigger(self) -> BaseTrigger:
        """See :meth:`Waiting.trigger`. As our deferrable operators make it."""
        policy = Policy(time.time() + TIMEOUT, self.streamed)
        return PracticusJobTrigger(OURS, self.handle.to_json(), policy.to_json(), ends_task=True)


class Unstreamed(Ours):
    """Ours with ``stream_logs="none"``: its end is known from the watch of its pods alone."""

    label = "ours, no log streamed"
    streamed = ()


class Kubectl(Planned):
    """The very manifests of our plan, without an owner and not suspended, by ``kubectl apply`` and ``delete``.

    Server-side and without validation by the client, which is the fastest way that kubectl has: a third of the time
    of a plain ``kubectl apply``. What pods need comes before the Job.
    """

    label = "kubectl"

    @property
    def manifests(self) -> list[Manifest]:
        """All that our backend would create, in the order in which one would write them into a file."""
        site = self.place.backend.site
        made = render(self.name, self.plan, site, self.task, lease=None, parent=None)
        root = {**made.root, "spec": {**made.root["spec"], "suspend": False}}
        return [*made.others, root]

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.file = "\n---\n".join(map(json.dumps, self.manifests))

    def submit(self) -> None:
        """See :meth:`Contestant.submit`."""
        self._run("apply", "--server-side", "--validate=false")

    def delete(self) -> None:
        """See :meth:`Contestant.delete`. It waits, by default, until what it deleted is gone."""
        self._run("delete")

    def _run(self, *verb: str) -> None:
        command = [self.place.kubectl, f"--kubeconfig={self.place.kubeconfig}", *verb, "--filename=-"]
        subprocess.run(command, input=self.file, text=True, check=True, stdout=subprocess.PIPE)


class Foreseen(Kubectl):
    """Somebody who knows beforehand when the user's code ends, and deletes each pod at that moment.

    A kubelet looks at a container when it is told to end the pod, and by itself once a second: whoever wants an exit
    code confirmed hears of it no sooner than this one.
    """

    label = "foreseen"


class Client(Kubectl):
    """The same manifests by Kubernetes' own Python client: imported and connected before, one request each."""

    label = "Python client"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.api = config.new_client_from_config(str(self.place.kubeconfig))
        client.VersionApi(self.api).get_code()

    def submit(self) -> None:
        """See :meth:`Contestant.submit`."""
        for manifest in self.manifests:
            create_from_dict(self.api, manifest)

    def delete(self) -> None:
        """See :meth:`Contestant.delete`."""
        core, where = client.CoreV1Api(self.api), self.place.namespace
        policy = client.NetworkingV1Api(self.api).delete_namespaced_network_policy
        job = client.BatchV1Api(self.api).delete_namespaced_job
        verbs = {
            "Job": lambda name: job(name, where, propagation_policy="Background"),
            "NetworkPolicy": lambda name: policy(name, where),
            "Service": lambda name: core.delete_namespaced_service(name, where),
            "ServiceAccount": lambda name: core.delete_namespaced_service_account(name, where),
            "ConfigMap": lambda name: core.delete_namespaced_config_map(name, where),
        }
        for manifest in reversed(self.manifests):
            verbs[manifest["kind"]](manifest["metadata"]["name"])


class Operated(Waiting):
    """One of cncf-kubernetes' operators: its own ``execute()``, deferrable, up to where it gives the task away."""

    operator: KubernetesPodOperator

    def submit(self) -> None:
        """See :meth:`Contestant.submit`."""
        try:
            self.operator.execute(self.context())
        except TaskDeferred as deferred:
            self.deferred: BaseTrigger = deferred.trigger

    def delete(self) -> None:
        """See :meth:`Contestant.delete`. Without the grace time, which a Python as PID 1 takes whole: 30 s."""
        self.operator.termination_grace_period = 0
        self.operator.on_kill()

    def trigger(self) -> BaseTrigger:
        """See :meth:`Waiting.trigger`."""
        return self.deferred

    def context(self) -> Any:
        names = {"dag_id": "benchmark", "task_id": self.name, "run_id": "r", "map_index": -1, "try_number": 1}
        ti = SimpleNamespace(**names, xcom_push=lambda **_: None)
        return {"ti": ti, "run_id": "r", "dag": SimpleNamespace(parent_dag=None)}

    def _arguments(self) -> dict[str, Any]:
        return {
            "task_id": self.name,
            "name": self.name,
            "namespace": self.place.namespace,
            "kubernetes_conn_id": THEIRS,
            "image": self.place.image,
            "cmds": ["python3", "-c", APPLICATION, str(self.seconds)],
            "labels": {CLUSTER: self.name},
            "container_resources": client.V1ResourceRequirements(**RESOURCES),
            "security_context": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "container_security_context": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "automount_service_account_token": False,
            "deferrable": True,
        }


class PodOperator(Operated):
    """KubernetesPodOperator: one pod, all parameters of waiting at their defaults."""

    label = "KubernetesPodOperator"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.operator = KubernetesPodOperator(**self._arguments())


class JobOperator(Operated):
    """KubernetesJobOperator: an Indexed Job, all parameters of waiting at their defaults."""

    label = "KubernetesJobOperator"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.operator = KubernetesJobOperator(
            **self._arguments(),
            completion_mode="Indexed",
            completions=self.pods,
            parallelism=self.pods,
            backoff_limit=0,
            wait_until_job_complete=True,
            discover_pods_retry_number=1000,  # it does not wait between tries; with its 3 it finds no pod yet
        )
