"""A namespace of a real cluster for one test."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
UNRESERVED = {"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "10m"}}}]}}
"""Changes pods so that little of a processor is set aside for each, and many fit into a small cluster."""


@dataclass(frozen=True)
class Namespace:
    """A namespace in which Pod Security ``restricted`` is enforced."""

    kubeconfig: str
    name: str

    @property
    def core(self) -> Any:
        """The plain client of core objects."""
        from kubernetes import client, config

        return client.CoreV1Api(config.new_client_from_config(self.kubeconfig))


@contextlib.contextmanager
def fresh(kubeconfig: str) -> Iterator[Namespace]:
    """A namespace that is gone afterwards."""
    namespace = Namespace(kubeconfig, f"practicus-{uuid.uuid4().hex[:8]}")
    namespace.core.create_namespace({"metadata": {"name": namespace.name, "labels": RESTRICTED}})
    try:
        yield namespace
    finally:
        namespace.core.delete_namespace(namespace.name)
