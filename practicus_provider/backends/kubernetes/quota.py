"""What manifests take of a namespace's ResourceQuotas, and what nodes have to give. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from decimal import Decimal

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.spec import parse_quantity

COUNTED = {
    "Pod": ("pods", "count/pods"),
    "Job": ("count/jobs.batch",),
    "ConfigMap": ("configmaps", "count/configmaps"),
    "Service": ("services", "count/services"),
}
"""Kind -> the names that a quota counts it under (*Resource Quotas* in the Kubernetes docs)."""


def quantity(text: str) -> Decimal:
    """The number that a quantity stands for; a quota may also have none left."""
    return Decimal(0) if text.strip("0.") in ("", "m") else parse_quantity("quota", text)


def needed_of_quota(manifests: Iterable[Manifest]) -> dict[str, Decimal]:
    """Name of a quota's resource -> how much of it these objects, and the pods of the Jobs, take."""
    needs: dict[str, Decimal] = {}
    for manifest in manifests:
        for name, amount in _of(manifest):
            needs[name] = needs.get(name, Decimal(0)) + amount
    return needs


def exceeded(quotas: Iterable[Manifest], manifests: Iterable[Manifest]) -> list[str]:
    """Each resource of these quotas that the objects would not fit into, with what is used and what they need."""
    needs = needed_of_quota(manifests)
    return [
        f"quota {quota['metadata']['name']}: {resource} {needs[resource]:f} more on {used} of {limit}"
        for quota in quotas
        for resource, limit in quota["status"].get("hard", {}).items()
        if resource in needs
        and needs[resource] + quantity(used := quota["status"].get("used", {}).get(resource, "0")) > quantity(limit)
    ]


def largest(nodes: Iterable[Manifest]) -> dict[str, str]:
    """Resource -> the most of it that one node has for pods, as people read it."""
    most: dict[str, Decimal] = {}
    for node in nodes:
        for name, amount in node["status"].get("allocatable", {}).items():
            most[name] = max(most.get(name, Decimal(0)), quantity(amount))
    return {name: _readable(name, amount) for name, amount in most.items()}


def _readable(resource: str, amount: Decimal) -> str:
    return f"{amount / 2**30:.1f}Gi" if resource in ("memory", "ephemeral-storage") else f"{amount.normalize():f}"


def _of(manifest: Manifest) -> Iterator[tuple[str, Decimal]]:
    yield from ((name, Decimal(1)) for name in COUNTED.get(manifest["kind"], ()))
    if manifest["kind"] == "Job":
        pod = {"kind": "Pod", "spec": manifest["spec"]["template"]["spec"]}
        for name, amount in _of(pod):
            yield name, amount * int(manifest["spec"]["parallelism"])
    if manifest["kind"] == "Pod":
        for container in manifest["spec"]["containers"]:
            for bound in ("requests", "limits"):
                for resource, amount in container.get("resources", {}).get(bound, {}).items():
                    yield f"{bound}.{resource}", quantity(str(amount))
                    if bound == "requests" and resource in ("cpu", "memory"):
                        yield resource, quantity(str(amount))
