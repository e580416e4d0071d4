"""What the user asks for, as frozen values that refuse what cannot work. No I/O here."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from ipaddress import ip_network
from math import inf
from typing import Any, Literal, get_args

from practicus_provider.errors import SpecError

Teardown = Literal["always", "on_success", "never"]
StreamLogs = Literal["coordinator", "all", "none"]

GPU = "nvidia.com/gpu"
"""Kubernetes' name of what ``Resources(gpu=)`` asks for."""

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|[kMGTPE]|[KMGTPE]i)?")
_FACTOR = {None: Decimal(1), "m": Decimal(1) / 1000, "k": Decimal(1000)} | {
    unit + suffix: Decimal(base) ** power
    for base, suffix in ((1000, ""), (1024, "i"))
    for power, unit in enumerate("KMGTPE", start=1)
}
_SECRET = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[-._a-zA-Z0-9]+")
_DEVICE = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_quantity(field_name: str, value: str | float) -> Decimal:
    """The number that a Kubernetes quantity stands for.

    :param value: e.g. ``"500m"``, ``2``, ``"16Gi"`` (see *resource units* in the Kubernetes docs).
    :raises SpecError: malformed, negative or zero.
    """
    match = _QUANTITY.fullmatch(str(value))
    number = Decimal(match[1]) * _FACTOR[match[2]] if match else None
    if isinstance(value, bool) or not number:
        raise SpecError(
            field_name, value, "give a positive Kubernetes quantity without spaces, such as 2, '500m' or '16Gi'"
        )
    return number


@dataclass(frozen=True)
class Resources:
    """What one replica may use.

    :param cpu: cores, a number or a Kubernetes quantity such as ``"500m"``.
    :param memory: bytes as a Kubernetes quantity such as ``"16Gi"``.
    :param gpu: NVIDIA GPUs, on Kubernetes as ``nvidia.com/gpu``; of others, and of parts of one, see ``extra``.
    :param shm: size of ``/dev/shm`` on Kubernetes, as ``memory``, a part of which it is; None: the container runtime's
        choice, mostly 64 MiB, or the adapter's.
    :param extra: extended resources on Kubernetes -> how many, such as ``{"amd.com/gpu": 1}``.
    :raises SpecError: a malformed quantity, or more of ``shm`` than of ``memory``.
    """

    cpu: float | str = 1
    memory: str = "2Gi"
    gpu: int = 0
    shm: str | None = None
    extra: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parse_quantity("cpu", self.cpu)
        if self.memory_bytes < 1 << 20:
            raise SpecError("memory", self.memory, "that is under one MiB; did you forget the unit, as in '16Gi'?")
        if self.gpu != 0:
            _positive_int("gpu", self.gpu, "or 0")
        if self.shm is not None and parse_quantity("shm", self.shm) > self.memory_bytes:
            raise SpecError(
                "shm", self.shm, f"it is a part of memory={self.memory!r}: give less of it, or more of that"
            )
        if not isinstance(self.extra, Mapping):
            raise SpecError("extra", self.extra, "give a dict such as {'amd.com/gpu': 1}")
        for name, number in self.extra.items():
            if not isinstance(name, str) or not _DEVICE.fullmatch(name) or name == GPU:
                raise SpecError("extra", name, f"name a device such as 'amd.com/gpu'; {GPU!r} is what gpu= asks for")
            _positive_int(f"extra[{name!r}]", number)

    @property
    def cores(self) -> int:
        """Whole cores, at least 1: what a framework is told to use."""
        return max(1, int(parse_quantity("cpu", self.cpu)))

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return int(parse_quantity("memory", self.memory))


@dataclass(frozen=True)
class Elastic:
    """Between ``min`` and ``max`` workers, following the job's demand.

    :raises SpecError: ``min`` < 1 or ``min`` > ``max``.
    """

    min: int
    max: int

    def __post_init__(self) -> None:
        for name in ("min", "max"):
            _positive_int(f"workers.{name}", getattr(self, name))
        if self.min > self.max:
            raise SpecError("workers", self, f"min ({self.min}) is over max ({self.max}); swap them")


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One run of the user's application on a cluster of its own (or, without application, that cluster alone).

    Field names are the operators' arguments. Times are in seconds.

    :raises SpecError: naming the field, for anything that cannot work.
    """

    adapter: str
    application: str | None = None
    application_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    workers: int | Elastic = 1
    worker_resources: Resources = Resources()
    coordinator_resources: Resources = Resources()
    procs_per_worker: int | None = None
    conf: Mapping[str, Any] | str = field(default_factory=dict)
    image: str | None = None
    secrets: Mapping[str, str] = field(default_factory=dict)
    egress: tuple[str, ...] = ()
    pod_overrides: Mapping[str, Any] = field(default_factory=dict)
    timeout: float = 24 * 3600
    start_timeout: float = 600
    teardown: Teardown = "always"
    stream_logs: StreamLogs = "coordinator"

    def __post_init__(self) -> None:
        _instance("adapter", self.adapter, str, "give an adapter's name or 'module.Class'")
        if self.application is not None:
            _instance("application", self.application, str, "give a path, a local:///path or a URL")
            if not self.application:
                raise SpecError("application", self.application, "give a path, a local:///path or a URL")
        for name in ("application_args", "files", "egress"):
            value = getattr(self, name)
            if isinstance(value, str) or not (
                isinstance(value, Sequence) and all(isinstance(item, str) for item in value)
            ):
                raise SpecError(name, value, "give a list of strings")
        for name in ("env", "conf", "secrets", "pod_overrides"):
            value = getattr(self, name)
            if name == "conf" and isinstance(value, str) and value.startswith("local:///"):
                continue
            if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
                raise SpecError(name, value, "give a dict whose keys are strings")
        for key, text in self.env.items():
            if not _ENV_NAME.fullmatch(key) or not isinstance(text, str):
                raise SpecError("env", {key: text}, "names are letters, digits and _; values are strings")
        for variable, secret in self.secrets.items():
            if not _ENV_NAME.fullmatch(variable) or not isinstance(secret, str) or not _SECRET.fullmatch(secret):
                raise SpecError("secrets", {variable: secret}, "give {'VARIABLE': 'secret-name/key'}")
        for cidr in self.egress:
            try:
                if f"/{ip_network(cidr).prefixlen}" not in cidr:
                    raise ValueError(f"{cidr!r} has no length after a /")
            except ValueError as error:
                raise SpecError("egress", cidr, f"give a list of CIDRs such as '10.0.0.0/8': {error}") from error
        check_pod_overrides(self.pod_overrides)
        if self.image is not None:
            _instance("image", self.image, str, "give an image's name, such as 'registry/spark:4'")
        if not isinstance(self.workers, Elastic):
            _positive_int("workers", self.workers, "or Elastic(min, max)")
        if self.procs_per_worker is not None:
            _positive_int("procs_per_worker", self.procs_per_worker)
        for name in ("worker_resources", "coordinator_resources"):
            _instance(name, getattr(self, name), Resources, "give Resources(cpu=..., memory=...)")
        for name in ("timeout", "start_timeout"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < inf:
                raise SpecError(name, value, "give a positive number of seconds or a timedelta")
        for name, choices in (("teardown", get_args(Teardown)), ("stream_logs", get_args(StreamLogs))):
            if getattr(self, name) not in choices:
                raise SpecError(name, getattr(self, name), f"choose one of {', '.join(choices)}")

    @property
    def settings(self) -> Mapping[str, Any]:
        """``conf`` as a dict.

        :raises SpecError: it is a file where the job runs, which not every framework reads.
        """
        if isinstance(self.conf, str):
            raise SpecError("conf", self.conf, f"{self.adapter} takes a dict, or a file beside the DAG")
        return self.conf

    @property
    def elastic(self) -> Elastic | None:
        """``workers`` if it is a range."""
        return self.workers if isinstance(self.workers, Elastic) else None

    @property
    def min_workers(self) -> int:
        """Workers that must run."""
        return self.workers.min if isinstance(self.workers, Elastic) else self.workers

    @property
    def max_workers(self) -> int:
        """Workers that may run."""
        return self.workers.max if isinstance(self.workers, Elastic) else self.workers


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


def _positive_int(name: str, value: object, also: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(name, value, f"give a whole number of at least 1 {also}".rstrip())


def _instance(name: str, value: object, kind: type, way_out: str) -> None:
    if not isinstance(value, kind):
        raise SpecError(name, value, way_out)
