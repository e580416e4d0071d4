"""The arguments of a job that only pods take, as one frozen value that refuses what cannot work. Pure.

It is made once, from the operator's arguments of the same names, and travels in the spec and the plan as it is, so that
a further one is a field here, an argument of :class:`~practicus_provider.operators.arguments.ClusterArguments`, and
what the Kubernetes backend makes of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from ipaddress import ip_network
from typing import Any

from practicus_provider.checks import ENV_NAME, LABEL_NAME, OBJECT_NAME, instance, keyed, strings
from practicus_provider.errors import SpecError

SHARED = ("image", "image_pull_policy", "run_as_uid", "scheduler_name", "priority_class")
"""Those that a job on a shared cluster has of the cluster, where it gives none itself."""

OF_CONNECTIONS = ("image_pull_policy", "run_as_uid", "secrets", "egress", "scheduler_name", "priority_class")
"""Those that a connection may give for all of its jobs, as they are; of images and overrides it says more."""
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
LAST_USER = 2**31 - 1
"""The largest number that Kubernetes takes for a user (``IsValidUserID`` in ``k8s.io/apimachinery``)."""
_SECRET = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[-._a-zA-Z0-9]+")


def _is_user(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LAST_USER


@dataclass(frozen=True, kw_only=True)
class PodSettings:
    """What replicas take where they are pods. Where they are not, the backend refuses what a job cannot do without.

    :param image: of the containers; None: the backend's own choice.
    :param image_pull_policy: when a node pulls it, one of :data:`PULL_POLICIES` (``imagePullPolicy``); None:
        Kubernetes' default, by the image's tag.
    :param run_as_uid: number of the user that the containers run as (``runAsUser``), who may not be root; None: the
        image's own.
    :param secrets: environment variable of every replica -> ``"secret-name/key"``, a Kubernetes secret by reference.
    :param egress: CIDRs outside the cluster that replicas may reach.
    :param pod_overrides: part of a pod template (``metadata``, ``spec``) that changes every pod.
    :param queue_name: a LocalQueue of Kueue's, which decides when the cluster starts; None: it starts at once.
    :param scheduler_name: of who places the pods (``schedulerName``); None: the cluster's own scheduler.
    :param priority_class: of the pods (``priorityClassName``).
    :raises SpecError: naming the field, for anything that cannot work.
    """

    image: str | None = None
    image_pull_policy: str | None = None
    run_as_uid: int | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    egress: tuple[str, ...] = ()
    pod_overrides: Mapping[str, Any] = field(default_factory=dict)
    queue_name: str | None = None
    scheduler_name: str | None = None
    priority_class: str | None = None

    def __post_init__(self) -> None:
        if self.image is not None:
            instance("image", self.image, str, "give an image's name, such as 'registry/spark:4'")
        if self.image_pull_policy is not None and self.image_pull_policy not in PULL_POLICIES:
            raise SpecError("image_pull_policy", self.image_pull_policy, f"choose one of {', '.join(PULL_POLICIES)}")
        if self.run_as_uid is not None and not _is_user(self.run_as_uid):
            way_out = f"give a user's number, from 1 to {LAST_USER}: Kubernetes takes no name, and root is refused"
            raise SpecError("run_as_uid", self.run_as_uid, way_out)
        keyed("secrets", self.secrets)
        for variable, secret in self.secrets.items():
            if not ENV_NAME.fullmatch(variable) or not isinstance(secret, str) or not _SECRET.fullmatch(secret):
                raise SpecError("secrets", {variable: secret}, "give {'VARIABLE': 'secret-name/key'}")
        strings("egress", self.egress)
        for cidr in self.egress:
            try:
                if f"/{ip_network(cidr).prefixlen}" not in cidr:
                    raise ValueError(f"{cidr!r} has no length after a /")
            except ValueError as error:
                raise SpecError("egress", cidr, f"give a list of CIDRs such as '10.0.0.0/8': {error}") from error
        keyed("pod_overrides", self.pod_overrides)
        check_pod_overrides(self.pod_overrides)
        for name, form, what in (
            ("queue_name", LABEL_NAME, "a LocalQueue of Kueue's by its name, such as 'team-a'"),
            ("scheduler_name", OBJECT_NAME, "a scheduler's name, such as 'volcano'"),
            ("priority_class", OBJECT_NAME, "a PriorityClass by its name, such as 'batch-low'"),
        ):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and form.fullmatch(value)):
                raise SpecError(name, value, f"give {what}")

    def over(self, others: PodSettings) -> PodSettings:
        """These, and of the others what these do not say: each variable of secrets by itself, and all of egress."""
        missing = {name: getattr(others, name) for name in OF_CONNECTIONS if getattr(self, name) is None}
        secrets = {**others.secrets, **self.secrets}
        return replace(self, **missing, secrets=secrets, egress=tuple(dict.fromkeys((*others.egress, *self.egress))))

    @property
    def secret_keys(self) -> dict[str, tuple[str, str]]:
        """Environment variable -> the name of its secret, and the key there; in the order of the variables."""
        return {
            variable: (text.partition("/")[0], text.partition("/")[2])
            for variable, text in sorted(self.secrets.items())
        }


def check_pod_overrides(value: Mapping[str, Any]) -> None:
    """Refuse what is not part of a pod template.

    :raises SpecError: naming the part.
    """
    for name, parts in (("pod_overrides", ("metadata", "spec")), ("metadata", ("labels", "annotations"))):
        found = value if name == "pod_overrides" else value.get(name, {})
        if not isinstance(found, Mapping) or not set(found) <= set(parts):
            raise SpecError(
                "pod_overrides", dict(value), f"give {name} a dict with {' and '.join(map(repr, parts))} only"
            )
    if not isinstance(value.get("spec", {}), Mapping):
        raise SpecError("pod_overrides", dict(value), "give 'spec' a dict: a part of a PodSpec")
