"""What an adapter makes of a spec: roles and how their replicas are launched. Backend-neutral data.

Where a launch needs something that only the backend knows (an address, a port, its Python), it holds a reference,
never a format string: what a user wrote is never interpreted. A :data:`Text` is a string, a reference, or a tuple of
both that is joined, e.g. ``("tcp://", Host("coordinator"), ":", Port("coordinator", "scheduler"))``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from practicus_provider.errors import SpecError
from practicus_provider.pod_settings import PodSettings
from practicus_provider.spec import Elastic, Resources, Volume


class Here(StrEnum):
    """A fact of the very replica that reads it."""

    PYTHON = "python"
    """Path of its Python."""
    APP = "app"
    """Folder that holds the shipped application."""
    SCRATCH = "scratch"
    """Folder that is writable and this replica's alone; a launch's ``files`` lie in it."""
    HOST = "host"
    """Its own address, as the cluster's other replicas reach it."""
    URL_HOST = "url_host"
    """The same, as a URL has it: an IPv6 address stands in brackets. For what is joined with a port, and for programs
    that want it so."""
    INDEX = "index"
    """Its index in its role, from 0."""
    KEY = "key"
    """A secret that is the cluster's alone: by it its replicas know each other."""


@dataclass(frozen=True)
class Host:
    """Address of a role's first replica."""

    role: str


@dataclass(frozen=True)
class Port:
    """Number of a port of a role's first replica; in a launch of that very role, of the replica that reads it.

    :param first: the first replica's there, too: where all replicas of a role meet.
    """

    role: str
    name: str
    first: bool = field(default=False, repr=False)


Part = str | Here | Host | Port
Text = Part | tuple[Part, ...]


def parts(text: Text) -> tuple[Part, ...]:
    """The parts that a text is joined from."""
    return text if isinstance(text, tuple) else (text,)


@dataclass(frozen=True)
class Launch:
    """How each replica of a role is started.

    :param command: program and arguments; never seen by a shell.
    :param env: environment, over the backend's own.
    :param files: path below ``Here.SCRATCH`` -> content; for what the adapter generates.
    :param ports: name -> number where replicas have addresses of their own (else the backend chooses a free one).
    :param after: ports that must accept connections before the command starts.
    :param ready: name of the own port that accepts connections once the replica is of use; None: once started.
    :param spawns: name of the role whose replicas this one starts itself, as the framework decides how many.
    :param pod_verbs: what the framework does to pods by itself, where replicas are pods, beyond listing and creating
        them: verbs of Kubernetes.
    :param pod_labels: keys of labels that the framework adds to the pods that it makes.
    """

    command: tuple[Text, ...]
    env: Mapping[str, Text] = field(default_factory=dict)
    files: Mapping[str, Text] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    after: tuple[Port, ...] = ()
    ready: str | None = None
    spawns: str | None = None
    pod_verbs: tuple[str, ...] = ()
    pod_labels: tuple[str, ...] = ()

    @property
    def keyed(self) -> bool:
        """Whether its replicas know the cluster's key."""
        texts = (*self.command, *self.env.values(), *self.files.values())
        return any(Here.KEY in parts(text) for text in texts)

    def references(self) -> Iterator[Host | Port]:
        """Every other role's address or port that this launch reads."""
        for text in (*self.command, *self.env.values(), *self.files.values(), *self.after):
            yield from (part for part in parts(text) if isinstance(part, (Host, Port)))


@dataclass(frozen=True)
class Role:
    """Replicas that share a command and resources.

    :param elastic: the replicas may change between these bounds while the job runs; ``replicas`` is then their start,
        and may be 0 where another role starts all of them itself (see :attr:`Launch.spawns`).
    :param image: container image of its replicas, where they are containers; None: the plan's.
    :param node_selector: labels of the nodes that its replicas run on, where there are nodes.
    :param part_of: name of the role whose ranks this one's follow; None: it is a whole. It decides if that one does.
    """

    name: str
    launch: Launch
    replicas: int = 1
    resources: Resources = Resources()
    elastic: Elastic | None = None
    image: str | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    part_of: str | None = None


@dataclass(frozen=True)
class Framework:
    """What replicas import; a backend tells of it where it is missing.

    :param modules: top-level module -> what installs it, such as ``pip install torch``.
    :param dockerfile: of an image that has them all, in this provider's repository or elsewhere.
    """

    modules: Mapping[str, str]
    dockerfile: str | None = None


def decisive(decides: str | None, role: str, part_of: str | None) -> bool:
    """Whether the end of a role's replicas is the job's end, or a part of it: that of the role that decides, and of its
    further parts."""
    return decides is not None and decides in (role, part_of)


@dataclass(frozen=True)
class Plan:
    """A whole cluster, ready for a backend.

    :param decides: name of the role whose end is the job's end, with its further parts; None for a cluster that serves
        until it is deleted.
    :param timeout: seconds the cluster may live in all; the backend removes it then, whoever watches.
    :param start_timeout: seconds in which all replicas should run; for so long one waits for another that is not there.
    :param files: path below ``Here.APP`` -> content of the shipped application.
    :param executable: those of ``files`` that may be run as programs.
    :param client: ``module:attribute.path`` that ``practicus_runtime.get_client()`` calls.
    :param links: label -> port that serves a web page, of the role's first replica; on loopback is enough.
    :param outside: roles of a parent cluster that this plan may refer to.
    :param pod: what replicas take where they are pods.
    :param volumes: what every replica finds mounted, or stood for.
    :param checkpoints: folder on one of the volumes, in which each cluster's name has a folder for checkpoints.
    :param framework: what the replicas' Python has to have; None: nothing that is known.
    :param grace: seconds that a replica's command has between SIGTERM and SIGKILL; None: the backend's own choice.
    :raises SpecError: the parts do not fit each other.
    """

    adapter: str
    roles: tuple[Role, ...]
    decides: str | None
    timeout: float
    files: Mapping[str, bytes] = field(default_factory=dict)
    client: str | None = None
    links: Mapping[str, Port] = field(default_factory=dict)
    outside: tuple[Role, ...] = ()
    pod: PodSettings = PodSettings()
    volumes: tuple[Volume, ...] = ()
    checkpoints: str | None = None
    framework: Framework | None = None
    start_timeout: float = 600.0
    grace: float | None = None
    executable: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.roles:
            raise self._wrong("roles", self.roles, "a plan needs at least one role")
        for role in self.roles:
            if not isinstance(role, Role):
                raise self._wrong("roles", role, "every role must be a practicus_provider.plan.Role")
            if not re.fullmatch(r"[a-z]([a-z0-9-]{0,18}[a-z0-9])?", role.name):
                raise self._wrong("role", role.name, "a role's name is a short DNS label such as 'worker'")
            least = 0 if role.elastic else 1
            if isinstance(role.replicas, bool) or not isinstance(role.replicas, int) or role.replicas < least:
                raise self._wrong(f"{role.name}.replicas", role.replicas, f"give at least {least}")
            if not role.launch.command:
                raise self._wrong(f"{role.name}.command", role.launch.command, "give a program to start")
            if role.launch.ready is not None and role.launch.ready not in role.launch.ports:
                raise self._wrong(f"{role.name}.ready", role.launch.ready, f"name one of {list(role.launch.ports)}")
        names = [role.name for role in (*self.roles, *self.outside)]
        if len(set(names)) < len(names):
            raise self._wrong("roles", names, "each name may stand once")
        own = names[: len(self.roles)]
        if self.decides is not None and self.decides not in own:
            raise self._wrong("decides", self.decides, f"name one of {own}")
        for role in self.roles:
            if role.part_of is not None and (role.part_of not in own or self.role(role.part_of).part_of is not None):
                raise self._wrong(f"{role.name}.part_of", role.part_of, f"name a whole one of {own}")
        ports = {role.name: role.launch.ports for role in (*self.roles, *self.outside)}
        references = [ref for role in self.roles for ref in role.launch.references()]
        for ref in (*references, *self.links.values()):
            if ref.role not in ports or (isinstance(ref, Port) and ref.name not in ports[ref.role]):
                raise self._wrong("reference", ref, f"there are only these roles and ports: {ports}")

    def _wrong(self, what: str, value: object, way_out: str) -> SpecError:
        return SpecError(f"adapter {self.adapter}: {what}", value, way_out)

    def role(self, name: str) -> Role:
        """The role of that name."""
        return next(role for role in self.roles if role.name == name)

    def decisive(self, role: Role) -> bool:
        """Whether the end of a role's replicas is the job's end, or a part of it."""
        return decisive(self.decides, role.name, role.part_of)

    def serving(self) -> Plan:
        """The cluster without the role that decides: what several jobs can share.

        :raises SpecError: its replicas are the job, so there is nothing to share.
        """
        roles = tuple(role for role in self.roles if not self.decisive(role))
        if not roles:
            raise SpecError("adapter", self.adapter, "its replicas are the job: there is no cluster to share")
        own = {role.name for role in roles}
        links = {label: port for label, port in self.links.items() if port.role in own}
        try:
            return replace(self, roles=roles, decides=None, files={}, executable=frozenset(), links=links)
        except SpecError as error:
            raise SpecError("adapter", self.adapter, f"its cluster cannot be shared: {error}") from error

    def deciding(self) -> Plan:
        """The role that decides alone: one job on a cluster that is already there."""
        roles = tuple(role for role in self.roles if self.decisive(role))
        outside = tuple(role for role in self.roles if not self.decisive(role))
        own = {role.name for role in roles}
        links = {label: port for label, port in self.links.items() if port.role in own}
        return replace(self, roles=roles, outside=outside, links=links)

    @property
    def coordinator(self) -> str:
        """The role whose log is the job's: the one that decides, else the first."""
        return self.decides or self.roles[0].name
