"""A hostile job with a token that starts pods: with the admission policy, and without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import pytest

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.errors import BackendError
from practicus_provider.runtime.practicus_runtime.pods import instance
from practicus_provider.spec import Elastic
from tests.cluster.fixture import Kubectl
from tests.kubernetes import Namespace, fresh, plain
from tests.plans import PATIENCE, SLEEP, TASK, plan, role

pytestmark = pytest.mark.cluster
VERBS = ("get", "patch", "delete")
"""More than any framework of ours has, so that what is refused is so by the policy."""


def cluster() -> Any:
    """Of a driver that starts pods, with one worker."""
    worker = role("worker", SLEEP, replicas=1, elastic=Elastic(1, 3))
    return plan(role("driver", SLEEP, spawns="worker", pod_verbs=VERBS), worker)


@dataclass(frozen=True)
class Attacker:
    """Acts by the token of a cluster's driver."""

    kubectl: Kubectl
    namespace: str
    template: Manifest

    def _as(self, account: str = "mine") -> tuple[str, ...]:
        return ("-n", self.namespace, f"--as=system:serviceaccount:{self.namespace}:{account}")

    def starts(self, change: Callable[[Manifest], Any], *options: str) -> str:
        """What is said to a pod that differs from the cluster's own by a change; empty: it is taken."""
        pod = json.loads(json.dumps(instance(self.template, 7)))
        change(pod)
        return self.tries("create", "-f", "-", *options, stdin=json.dumps(pod))

    def tries(self, *command: str, stdin: str | None = None) -> str:
        """What is said to a command; empty: it is done."""
        try:
            self.kubectl(*self._as(), *command, stdin=stdin)
        except CalledProcessError as error:
            return str(error.stderr)
        return ""


@pytest.fixture(scope="module", params=["on", "off"])
def guarded(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "on")


@pytest.fixture(scope="module")
def home(kubernetes: Path, guarded: bool) -> Iterator[Namespace]:
    with fresh(str(kubernetes), guarded=guarded) as namespace:
        yield namespace


@pytest.fixture(scope="module")
def place(home: Namespace, image: Callable[[str], str]) -> KubernetesBackend:
    return plain(home, image("python"))


@pytest.fixture(scope="module")
def attacker(place: KubernetesBackend, home: Namespace, kubectl: Kubectl, guarded: bool) -> Attacker:
    for name in ("mine", "other"):
        asyncio.run(place.create(name, cluster(), task=TASK))
    found = json.loads(kubectl("-n", home.name, "get", "configmap", "mine", "-o", "json"))
    attacker = Attacker(kubectl, home.name, json.loads(found["data"]["pod-worker.json"]))
    if guarded:
        asyncio.run(refused(lambda: attacker.starts(labels, "--dry-run=server")))
    return attacker


async def refused(attempt: Callable[[], str]) -> None:
    """Wait until the API server has read the policy."""
    async with asyncio.timeout(PATIENCE):
        while "denied request" not in attempt():
            await asyncio.sleep(0.2)


def spec_of(**fields: Any) -> Callable[[Manifest], Any]:
    return lambda pod: pod["spec"].update(fields)


def meta_of(**fields: Any) -> Callable[[Manifest], Any]:
    return lambda pod: pod["metadata"].update(fields)


def container_of(**fields: Any) -> Callable[[Manifest], Any]:
    return lambda pod: pod["spec"]["containers"][0].update(fields)


def volume_of(**source: Any) -> Callable[[Manifest], Any]:
    return lambda pod: pod["spec"]["volumes"].append({"name": "theirs", **source})


def labels(pod: Manifest) -> None:
    pod["metadata"]["labels"] = {}


def another_label(pod: Manifest) -> None:
    pod["metadata"]["labels"]["may-reach"] = "the-store"


def another_network(pod: Manifest) -> None:
    pod["metadata"]["labels"]["practicus.ai/network"] = "other"


SECRET = {"valueFrom": {"secretKeyRef": {"name": "theirs", "key": "password"}}}
TOKEN = {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "token"}}]}
METADATA = {"httpGet": {"host": "169.254.169.254", "port": 80}}
ATTACKS = {
    "out of the NetworkPolicy, without labels": labels,
    "through somebody's NetworkPolicy, by its label": another_label,
    "into another cluster's network, by its label": another_network,
    "beyond the cluster's end, without an owner": meta_of(ownerReferences=[]),
    "beyond the cluster's end, by a finalizer": meta_of(finalizers=["example.com/stay"]),
    "beyond the cluster's end, by a long grace": spec_of(terminationGracePeriodSeconds=86_400),
    "in another's name": meta_of(name="other-worker-7"),
    "as another service account": spec_of(serviceAccountName="default"),
    "as another cluster's service account": spec_of(serviceAccountName="other"),
    "with a token": spec_of(automountServiceAccountToken=True),
    "with a token for another audience": volume_of(projected=TOKEN),
    "with a secret, as a volume": volume_of(secret={"secretName": "theirs"}),
    "with a secret, as a variable": container_of(env=[{"name": "P", **SECRET}]),
    "with a secret, as all variables": container_of(envFrom=[{"secretRef": {"name": "theirs"}}]),
    "with a secret, to pull images": spec_of(imagePullSecrets=[{"name": "theirs"}]),
    "with another cluster's ConfigMap": volume_of(configMap={"name": "other"}),
    "with somebody's claim": volume_of(persistentVolumeClaim={"claimName": "theirs"}),
    "to a node past the scheduler": spec_of(nodeName="node1"),
}
"""What a pod is started for -> how it differs from the cluster's own. Pod Security has nothing against these."""
FORBIDDEN = {
    "on the node's network": spec_of(hostNetwork=True),
    "among the node's processes": spec_of(hostPID=True),
    "as root": spec_of(securityContext={"runAsUser": 0}),
    "with the node's files": volume_of(hostPath={"path": "/"}),
    "with a capability": container_of(securityContext={"capabilities": {"add": ["NET_ADMIN"]}}),
    "with privileges": container_of(securityContext={"privileged": True}),
    "with a container beside that is not restricted": spec_of(initContainers=[{"name": "i", "image": "i"}]),
    "at the node's port": container_of(ports=[{"containerPort": 80, "hostPort": 80}]),
    "to have the kubelet ask the metadata server": container_of(livenessProbe=METADATA),
}


def test_a_pod_as_the_cluster_s_own_is_started(attacker: Attacker) -> None:
    assert attacker.starts(lambda pod: None, "--dry-run=server") == ""


@pytest.mark.parametrize("name", ATTACKS)
def test_a_pod_is_started(attacker: Attacker, guarded: bool, name: str) -> None:
    said = attacker.starts(ATTACKS[name], "--dry-run=server")
    assert "a pod that a replica starts: " in said if guarded else said == ""


@pytest.mark.parametrize("name", FORBIDDEN)
def test_a_pod_is_never_started(attacker: Attacker, guarded: bool, name: str) -> None:
    said = attacker.starts(FORBIDDEN[name], "--dry-run=server")
    assert "violates PodSecurity" in said or (guarded and "a pod that a replica starts: " in said)


@pytest.mark.parametrize("guarded", ["on"], indirect=True)
def test_where_pod_security_is_not_enforced_the_policy_refuses_those_too(attacker: Attacker, guarded: bool) -> None:
    label = ("label", "namespace", attacker.namespace, "--overwrite")
    attacker.kubectl(*label, "pod-security.kubernetes.io/enforce=privileged")
    try:
        said = {name: attacker.starts(change, "--dry-run=server") for name, change in FORBIDDEN.items()}
    finally:
        attacker.kubectl(*label, "pod-security.kubernetes.io/enforce=restricted")
    assert [name for name in said if "a pod that a replica starts: " not in said[name]] == []


CHANGES = {
    "its own pod's labels": ("label", "pod", "{own}", "practicus.ai/network-"),
    "its own worker's labels": ("label", "pod", "mine-worker-0", "practicus.ai/network-"),
    "its own worker's owner": ("patch", "pod", "mine-worker-0", "-p", '{"metadata": {"ownerReferences": null}}'),
    "another cluster's image": ("set", "image", "pod/other-worker-0", "main=evil"),
    "another cluster's pod": ("delete", "pod", "other-worker-0", "--wait=false"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_token_that_may_change_pods_changes_or_deletes(attacker: Attacker, guarded: bool, name: str) -> None:
    """No framework of ours may; a custom adapter's launch could ask for it."""
    selector = ("-l", "practicus.ai/cluster=mine,practicus.ai/role=driver", "-o", "jsonpath={.items[0].metadata.name}")
    own = attacker.kubectl("-n", attacker.namespace, "get", "pods", *selector)
    command = [own if word == "{own}" else word for word in CHANGES[name]]
    said = attacker.tries(*command, "--dry-run=server")
    assert "denied request" in said if guarded else said == ""


# ---- the end of what got away


@pytest.fixture
async def stray(place: KubernetesBackend, attacker: Attacker) -> AsyncIterator[tuple[Handle, Attacker]]:
    """A cluster, and a template of a pod that no label and no owner tells of, and that takes a day to end."""
    handle = await place.create("lost", cluster(), task=TASK)
    found = attacker.kubectl("-n", attacker.namespace, "get", "configmap", "lost", "-o", "json")
    template = json.loads(json.loads(found)["data"]["pod-worker.json"])
    template["metadata"] |= {"name": "stray", "labels": {}, "ownerReferences": []}
    template["spec"]["terminationGracePeriodSeconds"] = 86_400
    yield handle, Attacker(attacker.kubectl, attacker.namespace, template)
    patch = ("patch", "pod", "stray-7", "--type=merge", "-p", '{"metadata": {"finalizers": null}}')
    leftover = attacker.kubectl("-n", attacker.namespace, "get", "pods", "-o", "name")
    if "pod/stray-7" in leftover:
        attacker.kubectl("-n", attacker.namespace, *patch)
    await place.delete(handle)


def pods(attacker: Attacker) -> list[str]:
    return attacker.kubectl("-n", attacker.namespace, "get", "pods", "-o", "name").split()


@pytest.mark.parametrize("guarded", ["off"], indirect=True)
@pytest.mark.parametrize("wait", [True, False])
async def test_deletion_finds_a_pod_without_labels_and_owner(
    place: KubernetesBackend, stray: tuple[Handle, Attacker], wait: bool
) -> None:
    handle, attacker = stray
    account = f"--as=system:serviceaccount:{attacker.namespace}:lost"
    pod = json.dumps(instance(attacker.template, 7))
    attacker.kubectl("-n", attacker.namespace, account, "create", "-f", "-", stdin=pod)
    await place.delete(handle, wait=wait)
    async with asyncio.timeout(PATIENCE):
        while "pod/stray-7" in pods(attacker):
            assert not wait, "a deletion that waits has waited for it"
            await asyncio.sleep(0.5)


@pytest.mark.parametrize("guarded", ["off"], indirect=True)
async def test_deletion_says_which_pod_it_cannot_delete_and_why(
    place: KubernetesBackend, stray: tuple[Handle, Attacker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("practicus_provider.backends.kubernetes.removal.GONE_PATIENCE", 25.0)
    handle, attacker = stray
    attacker.template["metadata"]["finalizers"] = ["example.com/stay"]
    account = f"--as=system:serviceaccount:{attacker.namespace}:lost"
    pod = json.dumps(instance(attacker.template, 7))
    attacker.kubectl("-n", attacker.namespace, account, "create", "-f", "-", stdin=pod)
    why = "pod stray-7 has the finalizers example.com/stay, which somebody has to remove"
    with pytest.raises(BackendError, match=f"cluster lost is deleted, but not gone after 25 s: {why}$"):
        await place.delete(handle)
