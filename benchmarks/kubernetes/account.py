"""A service account of one's own for what is measured, so that the audit log tells its requests from all others."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml
from kubernetes import client, config

from benchmarks.kubernetes.audit import audited
from benchmarks.kubernetes.place import Place, connections
from tests.cluster import target

ACCOUNT = "triggerer"


@contextlib.contextmanager
def as_account(place: Place) -> Iterator[None]:
    """Airflow's connections are a service account's meanwhile."""
    api = config.new_client_from_config(str(place.kubeconfig))
    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    core.create_namespaced_service_account(place.namespace, {"metadata": {"name": ACCOUNT}})
    binding = {
        "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": place.namespace}],
    }
    rbac.create_namespaced_role_binding(place.namespace, binding)
    spec = {"spec": {"expirationSeconds": 6 * 3600}}
    token = core.create_namespaced_service_account_token(ACCOUNT, place.namespace, spec).status.token
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(place.kubeconfig, token)))
        connections(place, kubeconfig)
        try:
            yield
        finally:
            connections(place, place.kubeconfig)


def _kubeconfig(admin: Path, token: str) -> dict[str, object]:
    """The administrator's current cluster, by a token."""
    given = yaml.safe_load(admin.read_text())
    current = next(each for each in given["contexts"] if each["name"] == given["current-context"])["context"]["cluster"]
    cluster = next(each for each in given["clusters"] if each["name"] == current)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": ACCOUNT,
        "contexts": [{"name": ACCOUNT, "context": {"cluster": current, "user": ACCOUNT}}],
        "clusters": [cluster],
        "users": [{"name": ACCOUNT, "user": {"token": token}}],
    }


def requests_of(namespace: str, begin: float, end: float) -> dict[str, int] | None:
    """Verb and resource -> how many requests of the account came in between."""
    if target.audit_log() is None:
        return None
    user = f"system:serviceaccount:{namespace}:{ACCOUNT}"
    found: dict[str, str] = {}
    for at, event in audited(user):
        if begin <= at < end and event["user"]["username"] == user:
            of = event.get("objectRef", {})
            where = "/".join(filter(None, (of.get("resource"), of.get("subresource"))))
            found[event["auditID"]] = f"{event['verb']} {where or event['requestURI']}"
    return dict(sorted(Counter(found.values()).items()))
