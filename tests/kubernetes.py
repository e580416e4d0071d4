"""A namespace of a real cluster for one test, and the backend of its pods."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.admission import default_deny, name_of
from practicus_provider.backends.kubernetes.admission import policy as admission_policy
from practicus_provider.backends.kubernetes.pod_template import Site

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
"""Options for jobs that take seconds: to compile their code well, or to verify Spark's, takes longer than to run it."""
MAIN: dict[str, Any] = {
    "name": "main",
    "resources": {"requests": {"cpu": "10m"}, "limits": {"cpu": "2"}},
    "env": [{"name": "JAVA_TOOL_OPTIONS", "value": QUICK_JAVA}],
}
"""Changes a container so that many fit into a small cluster, since little of a processor is set aside for each, and
that it starts quickly, since it may use what nobody else does."""


@dataclass(frozen=True)
class Namespace:
    """A namespace in which Pod Security ``restricted`` is enforced."""

    kubeconfig: str
    name: str

    @property
    def core(self) -> Any:
        """The plain client of core objects."""
        from kubernetes import client

        return client.CoreV1Api(self._client)

    @property
    def _client(self) -> Any:
        from kubernetes import config

        return config.new_client_from_config(self.kubeconfig)

    def deny_by_default(self) -> None:
        """As the documentation has an administrator do."""
        from kubernetes import client

        client.NetworkingV1Api(self._client).create_namespaced_network_policy(self.name, default_deny(self.name))

    @contextlib.contextmanager
    def admitting_by_policy(self) -> Iterator[None]:
        """As the documentation has an administrator do; the policy is no part of the namespace."""
        from kubernetes import client

        api, (policy, binding) = client.AdmissionregistrationV1Api(self._client), admission_policy(self.name)
        api.create_validating_admission_policy(policy)
        try:
            api.create_validating_admission_policy_binding(binding)
            yield
        finally:
            api.delete_validating_admission_policy(name_of(self.name))
            with contextlib.suppress(client.ApiException):  # it may not have been made
                api.delete_validating_admission_policy_binding(name_of(self.name))


def plain(namespace: Namespace, image: str) -> KubernetesBackend:
    """The backend of pods there, for which nothing is set but their image."""
    return KubernetesBackend(Access(namespace.kubeconfig), Site(namespace.name, image))


def account(namespace: Namespace, kubectl: Callable[..., str], name: str, *options: str) -> Access:
    """How a service account there reaches the cluster, by a token that kubectl creates with these options."""
    token = kubectl("create", "token", name, "-n", namespace.name, *options).strip()
    config = json.loads(kubectl("config", "view", "--raw", "--flatten", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": token}
    return Access(inline=json.dumps(config))


def pods(namespace: Namespace, image: str) -> KubernetesBackend:
    """The backend of pods there, which leave room for others."""
    return KubernetesBackend(
        Access(namespace.kubeconfig), Site(namespace.name, image, pod_overrides={"spec": {"containers": [MAIN]}})
    )


@contextlib.contextmanager
def fresh(kubeconfig: str, *, guarded: bool = True) -> Iterator[Namespace]:
    """A namespace that is gone afterwards.

    :param guarded: whether it has all that the documentation has an administrator do for jobs that may be hostile.
    """
    namespace = Namespace(kubeconfig, f"practicus-{uuid.uuid4().hex[:8]}")
    namespace.core.create_namespace({"metadata": {"name": namespace.name, "labels": RESTRICTED}})
    try:
        with namespace.admitting_by_policy() if guarded else contextlib.nullcontext():
            if guarded:
                namespace.deny_by_default()
            yield namespace
    finally:
        namespace.core.delete_namespace(namespace.name)


@contextlib.contextmanager
def claimed(namespace: Namespace, kubectl: Callable[..., str], folder: Path) -> Iterator[None]:
    """A claim ``data`` in a namespace, on a folder of this machine, which our own cluster's nodes have too."""
    name = f"{namespace.name}-data"
    what = {"accessModes": ["ReadWriteMany"], "storageClassName": name}
    linux = [{"matchExpressions": [{"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}]}]
    place = {"local": {"path": str(folder)}, "nodeAffinity": {"required": {"nodeSelectorTerms": linux}}}
    volume = {"kind": "PersistentVolume", "spec": {**what, **place, "capacity": {"storage": "1Gi"}}}
    claim = {"kind": "PersistentVolumeClaim", "spec": {**what, "resources": {"requests": {"storage": "1Gi"}}}}
    for manifest, meta in ((volume, {"name": name}), (claim, {"name": "data", "namespace": namespace.name})):
        kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "metadata": meta, **manifest}))
    try:
        yield
    finally:
        kubectl("delete", "persistentvolume", name, "--wait=false")
