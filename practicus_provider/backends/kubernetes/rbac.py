"""What the connection's user needs in the namespace: one table for the check, the Role and the documentation. Pure."""

from __future__ import annotations

from practicus_provider.backends.kubernetes.admission import ADMITS, RESOURCE, STARTS
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import DOMAIN

NEEDED = {
    "jobs.batch": ("get", "list", "watch", "create", "patch", "delete"),
    "pods": ("get", "list", "watch", "create", "patch", "delete", "deletecollection"),
    "pods/log": ("get",),
    "pods/portforward": ("get", "create"),
    "events": ("list", "watch"),
    "namespaces": ("get",),
    "configmaps": ("get", "create", "patch"),
    "secrets": ("create",),
    "services": ("create", "patch"),
    "serviceaccounts": ("create", "patch"),
    "networkpolicies.networking.k8s.io": ("create", "patch"),
    "roles.rbac.authorization.k8s.io": ("create", "patch"),
    "rolebindings.rbac.authorization.k8s.io": ("create", "patch"),
    f"{RESOURCE}.{DOMAIN}": (STARTS, ADMITS),
}
"""Resource, with its group, -> what the backend does with it.

A port is forwarded by a WebSocket's GET, which Kubernetes 1.35 and later also take for a create
(``AuthorizePodWebsocketUpgradeCreatePermission``). There is no such resource as the last one: clusters' Roles say by it
what the admission policy reads (:mod:`.admission`), and nobody may grant more than they have.
"""
OPTIONAL = {
    "pods/portforward": "dashboards do not open",
    "namespaces": "nobody looks whether the namespace enforces Pod Security",
    "secrets": "elastic trainings, and those with progress_timeout=, do not start",
}
"""What jobs do without -> what is lost."""
GROUP = "rbac.authorization.k8s.io"
NAME = "practicus"


def role_of_the_user(namespace: str, user_namespace: str, account: str) -> tuple[Manifest, Manifest]:
    """The one Role, and its binding to a service account, which may be of another namespace."""
    rules: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for resource, verbs in NEEDED.items():
        name, _, group = resource.partition(".")
        rules.setdefault((group, verbs), []).append(name)
    meta = {"name": NAME, "namespace": namespace}
    role = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Role",
        "metadata": meta,
        "rules": [
            {"apiGroups": [group], "resources": resources, "verbs": list(verbs)}
            for (group, verbs), resources in rules.items()
        ],
    }
    binding = {
        "apiVersion": f"{GROUP}/v1",
        "kind": "RoleBinding",
        "metadata": meta,
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": user_namespace}],
    }
    return role, binding
