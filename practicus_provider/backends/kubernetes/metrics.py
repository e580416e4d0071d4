"""What pods use, as the metrics API (``metrics.k8s.io``) says it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from practicus_provider.backends.base import Usage
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import cluster_of
from practicus_provider.backends.kubernetes.pod import Pod
from practicus_provider.backends.kubernetes.quota import quantity

FINE = {"n": Decimal("1e-9"), "u": Decimal("1e-6")}
"""Units of what is measured; nobody asks for so little."""


def usage_of(items: Iterable[Manifest]) -> Mapping[str, Mapping[str, Usage]]:
    """Cluster -> ``role-index`` -> what all of the pod's containers use.

    :param items: of a ``PodMetricsList``, which have the labels of their pods.
    """
    found: dict[str, dict[str, Usage]] = {}
    for item in items:
        pod, used = Pod(item), [container["usage"] for container in item["containers"]]
        cpu, memory = (float(sum(_amount(one.get(name, "0")) for one in used)) for name in ("cpu", "memory"))
        found.setdefault(cluster_of(item), {})[f"{pod.role}-{pod.index}"] = Usage(cpu, memory)
    return found


def _amount(text: str) -> Decimal:
    unit = text[-1:]
    return Decimal(text[:-1]) * FINE[unit] if unit in FINE else quantity(text)
