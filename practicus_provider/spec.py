"""What the user asks for, as frozen values that refuse what cannot work. No I/O here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from math import ceil, inf
from typing import Any, Literal, get_args

from practicus_provider.checks import (
    ENV_NAME,
    OBJECT_NAME,
    absolute,
    instance,
    is_below,
    keyed,
    no_nul,
    positive_int,
    strings,
)
from practicus_provider.errors import SpecError
from practicus_provider.pod_settings import PodSettings

Teardown = Literal["always", "on_success", "never"]
StreamLogs = Literal["coordinator", "all", "none"]

GPU = "nvidia.com/gpu"
"""Kubernetes' name of what ``Resources(gpu=)`` asks for."""

MOST_TEXT = 128 << 10
"""Bytes of a variable with its name, or of an argument, and the NUL at its end (``MAX_ARG_STRLEN`` in execve(2))."""

MOST_MEMORY_FACTOR = 10
"""Of a try over the one before; beyond that it is a slip."""

_QUANTITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m|[kMGTPE]|[KMGTPE]i)?")
_FACTOR = {None: Decimal(1), "m": Decimal(1) / 1000, "k": Decimal(1000)} | {
    unit + suffix: Decimal(base) ** power
    for base, suffix in ((1000, ""), (1024, "i"))
    for power, unit in enumerate("KMGTPE", start=1)
}
_DEVICE = re.compile(r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?")
_OPTION = re.compile(r"-{1,2}[A-Za-z][-\w]*")
_NFS = re.compile(r"[^/\s]+:/\S*")
_OURS = ("/practicus", "/dev", "/proc", "/sys")
"""Places in a container that no volume may take."""


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
    :param argument: the operator's that they come from, ``"worker_resources"`` or ``"coordinator_resources"``, as
        :class:`JobSpec` writes it down; ``dataclasses.replace`` keeps it. None: an adapter has made them up.
    :raises SpecError: a malformed quantity, or more of ``shm`` than of ``memory``.
    """

    cpu: float | str = 1
    memory: str = "2Gi"
    gpu: int = 0
    shm: str | None = None
    extra: Mapping[str, int] = field(default_factory=dict)
    argument: str | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        parse_quantity("cpu", self.cpu)
        if self.memory_bytes < 1 << 20:
            raise SpecError("memory", self.memory, "that is under one MiB; did you forget the unit, as in '16Gi'?")
        if self.gpu != 0:
            positive_int("gpu", self.gpu, "or 0")
        if self.shm is not None and parse_quantity("shm", self.shm) > self.memory_bytes:
            raise SpecError(
                "shm", self.shm, f"it is a part of memory={self.memory!r}: give less of it, or more of that"
            )
        if not isinstance(self.extra, Mapping):
            raise SpecError("extra", self.extra, "give a dict such as {'amd.com/gpu': 1}")
        for name, number in self.extra.items():
            if not isinstance(name, str) or not _DEVICE.fullmatch(name) or name == GPU:
                raise SpecError("extra", name, f"name a device such as 'amd.com/gpu'; {GPU!r} is what gpu= asks for")
            positive_int(f"extra[{name!r}]", number)

    @property
    def cores(self) -> int:
        """Whole cores, at least 1: what a framework is told to use."""
        return max(1, int(parse_quantity("cpu", self.cpu)))

    @property
    def memory_bytes(self) -> int:
        """Memory in bytes."""
        return int(parse_quantity("memory", self.memory))

    def with_memory(self, factor: float) -> Resources:
        """The same with so much more memory, in whole MiB."""
        return replace(self, memory=f"{ceil(self.memory_bytes * factor / (1 << 20))}Mi")


@dataclass(frozen=True)
class Elastic:
    """Between ``min`` and ``max`` workers, following the job's demand.

    :raises SpecError: ``min`` < 1 or ``min`` > ``max``.
    """

    min: int
    max: int

    def __post_init__(self) -> None:
        for name in ("min", "max"):
            positive_int(f"workers.{name}", getattr(self, name))
        if self.min > self.max:
            raise SpecError("workers", self, f"min ({self.min}) is over max ({self.max}); swap them")


@dataclass(frozen=True)
class WorkerGroup:
    """Workers that are alike, of a job whose workers are not: ``workers=[WorkerGroup(...), WorkerGroup(...)]``.

    :param count: how many they are.
    :param resources: of one; None: the job's ``worker_resources``.
    :param image: of their containers, on Kubernetes; None: the job's.
    :param node_selector: labels of the nodes that they run on, on Kubernetes (``nodeSelector``).
    :param procs_per_worker: ranks of one; None: as the job says, else as many as it has GPUs, else 1.
    :raises SpecError: naming the field, for anything that cannot work.
    """

    count: int
    resources: Resources | None = None
    image: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    procs_per_worker: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.count, Elastic):
            way_out = "a group's number is fixed: give a number, or workers=Elastic(min, max) without groups"
            raise SpecError("count", self.count, way_out)
        positive_int("count", self.count)
        if self.resources is not None:
            instance("resources", self.resources, Resources, "give Resources(cpu=..., memory=...)")
        if self.image is not None:
            instance("image", self.image, str, "give an image's name, such as 'registry/torch:2'")
        found = self.node_selector
        if not isinstance(found, Mapping) or not all(isinstance(text, str) for item in found.items() for text in item):
            raise SpecError("node_selector", found, "give a dict of strings, such as {'disk': 'ssd'}")
        if self.procs_per_worker is not None:
            positive_int("procs_per_worker", self.procs_per_worker)


@dataclass(frozen=True, kw_only=True)
class Volume:
    """Storage that every replica finds at a path. Exactly one of the four sources is given.

    :param path: where it is mounted (``mountPath``).
    :param claim: name of a PersistentVolumeClaim in the pods' namespace (``claimName``).
    :param host_path: folder of the node itself (``hostPath``), which Pod Security ``restricted`` does not admit.
    :param nfs: ``"server:/path"``, mounted as it is (``nfs``); ``restricted`` admits it behind a claim alone.
    :param empty_dir: size that a folder of each replica alone may have (``emptyDir.sizeLimit``), such as ``"50Gi"``.
    :param read_only: as Kubernetes mounts it; the local backend cannot keep a process from writing.
    :param local: the folder that stands for it on the local backend, which mounts nothing. None: for ``claim``, one of
        its name below ``volumes/`` in the connection's ``root``; for ``host_path``, that folder.
    :raises SpecError: the path is taken or not absolute, or the sources are not one.
    """

    path: str
    claim: str | None = None
    host_path: str | None = None
    nfs: str | None = None
    empty_dir: str | None = None
    read_only: bool = False
    local: str | None = None

    def __post_init__(self) -> None:
        absolute("path", self.path)
        if self.path == "/" or any(is_below(self.path, ours) for ours in _OURS):
            raise SpecError("path", self.path, f"give a folder outside {', '.join(_OURS)}, such as '/data'")
        sources = ("claim", "host_path", "nfs", "empty_dir")
        given = {name: getattr(self, name) for name in sources if getattr(self, name) is not None}
        if len(given) != 1:
            raise SpecError("volumes", {"path": self.path, **given}, f"give exactly one of {', '.join(sources)}")
        if self.claim is not None and not (isinstance(self.claim, str) and OBJECT_NAME.fullmatch(self.claim)):
            raise SpecError("claim", self.claim, "give a PersistentVolumeClaim's name, such as 'data'")
        if self.host_path is not None:
            absolute("host_path", self.host_path)
        if self.nfs is not None and not (isinstance(self.nfs, str) and _NFS.fullmatch(self.nfs)):
            raise SpecError("nfs", self.nfs, "give 'server:/path'")
        if self.empty_dir is not None:
            parse_quantity("empty_dir", self.empty_dir)
            if self.read_only or self.local is not None:
                raise SpecError("empty_dir", self.empty_dir, "leave out read_only and local: it is each replica's own")
        instance("read_only", self.read_only, bool, "give True or False")
        if self.local is not None:
            absolute("local", self.local)

    @property
    def keeps(self) -> bool:
        """Whether what a replica writes there is there after its end."""
        return self.empty_dir is None and not self.read_only


@dataclass(frozen=True)
class Function:
    """A Python function as the application: its own source is all that travels.

    :param name: the function's.
    :param source: its definition, undecorated, from the first column on.
    :param arguments: of its one call, as a JSON object: ``args``, a list, and ``kwargs``, an object.
    """

    name: str
    source: str
    arguments: str = '{"args": [], "kwargs": {}}'


@dataclass(frozen=True, kw_only=True)
class JobSpec:
    """One run of the user's application on a cluster of its own (or, without application, that cluster alone).

    Field names are the operators' arguments, those of :class:`~practicus_provider.pod_settings.PodSettings` among them.
    Times are in seconds. ``ds_config_argument`` and ``local_rank`` are
    DeepSpeed's alone.

    :raises SpecError: naming the field, for anything that cannot work.
    """

    adapter: str
    application: str | Function | None = None
    application_args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    workers: int | Elastic | tuple[WorkerGroup, ...] = 1
    worker_resources: Resources = Resources()
    coordinator_resources: Resources = Resources()
    procs_per_worker: int | None = None
    conf: Mapping[str, Any] | str = field(default_factory=dict)
    pod: PodSettings = PodSettings()
    volumes: tuple[Volume, ...] = ()
    checkpoint_dir: str | None = None
    timeout: float = 24 * 3600
    start_timeout: float = 600
    progress_timeout: float | None = None
    grace: float | None = None
    preemption_retries: int = 0
    oom_memory_factor: float | None = None
    teardown: Teardown = "always"
    stream_logs: StreamLogs = "coordinator"
    ds_config_argument: str = "--deepspeed_config"
    local_rank: bool = True

    @classmethod
    def of(cls, **arguments: Any) -> JobSpec:
        """The spec of an operator's arguments, those that only pods take among them.

        :raises SpecError: naming the field, for anything that cannot work.
        """
        names = [argument.name for argument in fields(PodSettings) if argument.name in arguments]
        pod = PodSettings(**{name: arguments.pop(name) for name in names})
        return cls(pod=pod, **arguments)

    def __post_init__(self) -> None:
        instance("adapter", self.adapter, str, "give an adapter's name or 'module.Class'")
        if self.application is not None:
            instance("application", self.application, (str, Function), "give a path, a local:///path or a URL")
            if not self.application:
                raise SpecError("application", self.application, "give a path, a local:///path or a URL")
        for name in ("application_args", "files", "requirements"):
            strings(name, getattr(self, name))
        for text in self.requirements:
            _check_requirement(text)
        keyed("env", self.env)
        if not (isinstance(self.conf, str) and self.conf.startswith("local:///")):
            keyed("conf", self.conf)
        for key, text in self.env.items():
            if not ENV_NAME.fullmatch(key) or not isinstance(text, str):
                raise SpecError("env", {key: text}, "names are letters, digits and _; values are strings")
            _check_length("env", key, text, extra=len(key) + 1)
            no_nul("env", {key: text}, text)
        for number, text in enumerate(self.application_args):
            _check_length("application_args", number, text)
        self._check_volumes()
        if not isinstance(self.workers, Elastic) and not self.groups:
            positive_int("workers", self.workers, "or Elastic(min, max), or a list of WorkerGroup(count=...)")
        if self.procs_per_worker is not None:
            positive_int("procs_per_worker", self.procs_per_worker)
        if self.preemption_retries != 0:
            positive_int("preemption_retries", self.preemption_retries, "or 0")
        if self.oom_memory_factor is not None and not (
            isinstance(self.oom_memory_factor, (int, float)) and 1 < self.oom_memory_factor <= MOST_MEMORY_FACTOR
        ):
            way_out = f"give a number over 1 and up to {MOST_MEMORY_FACTOR}, such as 1.5"
            raise SpecError("oom_memory_factor", self.oom_memory_factor, way_out)
        for name in ("worker_resources", "coordinator_resources"):
            instance(name, getattr(self, name), Resources, "give Resources(cpu=..., memory=...)")
        for name in ("timeout", "start_timeout", "progress_timeout", "grace"):
            value = getattr(self, name)
            if value is None and name in ("progress_timeout", "grace"):
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < inf:
                raise SpecError(name, value, "give a positive number of seconds or a timedelta")
        if not isinstance(self.ds_config_argument, str) or not _OPTION.fullmatch(self.ds_config_argument):
            way_out = "give an argument's name, such as '--deepspeed' for Hugging Face's scripts"
            raise SpecError("ds_config_argument", self.ds_config_argument, way_out)
        instance("local_rank", self.local_rank, bool, "give True or False")
        for name, choices in (("teardown", get_args(Teardown)), ("stream_logs", get_args(StreamLogs))):
            if getattr(self, name) not in choices:
                raise SpecError(name, getattr(self, name), f"choose one of {', '.join(choices)}")
        self._name_resources()

    def _name_resources(self) -> None:
        """Have all resources say by which argument they were given, whatever role an adapter makes of them."""
        for name in ("worker_resources", "coordinator_resources"):
            object.__setattr__(self, name, replace(getattr(self, name), argument=name))
        if self.groups:
            named = tuple(
                replace(group, resources=replace(group.resources, argument="worker_resources"))
                if group.resources
                else group
                for group in self.groups
            )
            object.__setattr__(self, "workers", named)

    def with_memory(self, factors: Mapping[str, float]) -> JobSpec:
        """The same with more memory.

        :param factors: ``worker_resources`` (those of groups, too) or ``coordinator_resources`` -> by how much.
        """
        workers, factor = self.workers, factors.get("worker_resources", 1)
        if self.groups:
            workers = tuple(
                replace(group, resources=group.resources.with_memory(factor)) if group.resources else group
                for group in self.groups
            )
        more: dict[str, Any] = {name: getattr(self, name).with_memory(by) for name, by in factors.items()}
        return replace(self, workers=workers, **more)

    def _check_volumes(self) -> None:
        if not (isinstance(self.volumes, tuple) and all(isinstance(volume, Volume) for volume in self.volumes)):
            raise SpecError("volumes", self.volumes, "give a list of Volume(path=..., claim=...)")
        paths = [volume.path for volume in self.volumes]
        for path in paths:
            if paths.count(path) > 1:
                raise SpecError("volumes", path, "two volumes have this path: give each its own")
        if self.checkpoint_dir is None:
            return
        absolute("checkpoint_dir", self.checkpoint_dir)
        around = [volume for volume in self.volumes if is_below(self.checkpoint_dir, volume.path)]
        if not around or not max(around, key=lambda volume: len(volume.path)).keeps:
            way_out = "give a folder on one of volumes= that outlives a replica and may be written"
            raise SpecError("checkpoint_dir", self.checkpoint_dir, way_out)

    @property
    def checkpoints(self) -> str | None:
        """The folder in which each task instance has one for its checkpoints; None where no volume keeps any."""
        kept = (f"{volume.path}/checkpoints" for volume in self.volumes if volume.keeps)
        return self.checkpoint_dir or next(kept, None)

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
    def groups(self) -> tuple[WorkerGroup, ...]:
        """``workers`` if they are several groups; else none."""
        workers = self.workers
        if isinstance(workers, tuple) and all(isinstance(group, WorkerGroup) for group in workers):
            return workers
        return ()

    @property
    def min_workers(self) -> int:
        """Workers that must run."""
        return self.workers.min if isinstance(self.workers, Elastic) else self._workers

    @property
    def max_workers(self) -> int:
        """Workers that may run."""
        return self.workers.max if isinstance(self.workers, Elastic) else self._workers

    @property
    def _workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else sum(group.count for group in self.groups)


def _check_length(field_name: str, key: object, text: str, extra: int = 0) -> None:
    size = len(text.encode(errors="surrogatepass")) + extra + 1
    if size > MOST_TEXT:
        way_out = f"{size} bytes are more than the {MOST_TEXT} that Linux takes: give it as a file, by files="
        raise SpecError(field_name, {key: f"{text[:40]}..."}, way_out)


def _check_requirement(text: str) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        Requirement(text)
    except InvalidRequirement as error:
        way_out = "give requirements such as 'polars>=1,<2', as PEP 508 has them; what pip is told stands in env="
        raise SpecError("requirements", text, f"{way_out}: {str(error).splitlines()[0]}") from error
