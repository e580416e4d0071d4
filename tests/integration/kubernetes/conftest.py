"""The backend of plain Python pods in a namespace of its own, and what is left there."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.labels import MANAGED
from tests.kubernetes import Namespace, plain

KINDS = "pods,jobs,configmaps,services,serviceaccounts,roles,rolebindings,networkpolicies"


@pytest.fixture
def direct(namespace: Namespace, image: Callable[[str], str]) -> KubernetesBackend:
    return plain(namespace, image("python"))


@pytest.fixture
def backend(direct: KubernetesBackend) -> KubernetesBackend:
    """The same, unless a file reaches it another way."""
    return direct


@pytest.fixture
def left(namespace: Namespace, kubectl: Callable[..., str]) -> Callable[[], list[str]]:
    """What there is of any cluster of ours."""
    selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())

    def look() -> list[str]:
        return kubectl("get", KINDS, "-n", namespace.name, "-l", selector, "-o", "name").split()

    return look
