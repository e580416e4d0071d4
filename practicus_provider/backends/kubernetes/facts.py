"""What a cluster's root keeps of its plan for whoever watches it: an annotation, as a value. Pure.

Whoever may change Jobs may change it, so it is looked at as what comes from outside: one that cannot be meant is
refused by what is wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Any, TypeVar

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import CURSOR, FACTS, TOLD
from practicus_provider.errors import BackendError
from practicus_provider.plan import Framework, Plan, Port, Role, decisive
from practicus_provider.runtime.practicus_runtime.contract import LastWords
from practicus_provider.spec import Elastic, Resources

MOST_REPLICAS = 100_000
"""Of a cluster's roles, those that a Job starts: an Indexed Job has no more (``completions`` in the API reference)."""
TASK: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("dag_id", "run_id", "task_id"), str),
    **dict.fromkeys(("map_index", "try_number"), int),
    "logical_date": (str, type(None)),
}
"""What a task instance is known by, where it is told: others look for these in Airflow's database."""


@dataclass(frozen=True)
class RoleFacts:
    """One role. See :class:`~practicus_provider.plan.Role` for its fields.

    :param ready: whether a replica runs only once its port accepts connections.
    :param resources: None: an older version of ours has not written them.
    """

    name: str
    replicas: int
    elastic: Elastic | None = None
    ready: bool = False
    resources: Resources | None = None
    ports: Mapping[str, int] = field(default_factory=dict)
    part_of: str | None = None

    @classmethod
    def of(cls, role: Role) -> RoleFacts:
        """What is kept of a role."""
        launch = role.launch
        ready = launch.ready is not None
        return cls(role.name, role.replicas, role.elastic, ready, role.resources, dict(launch.ports), role.part_of)

    def to_json(self) -> dict[str, Any]:
        """Without the name; :meth:`from_json` reads it back."""
        resources = self.resources
        return {
            "replicas": self.replicas,
            "elastic": [self.elastic.min, self.elastic.max] if self.elastic else None,
            "ready": self.ready,
            **({name: getattr(resources, name) for name in ("cpu", "memory", "gpu", "argument")} if resources else {}),
            "ports": dict(self.ports),
            **({"part_of": self.part_of} if self.part_of else {}),
        }

    @classmethod
    def from_json(cls, name: str, data: Mapping[str, Any]) -> RoleFacts:
        """Inverse of :meth:`to_json`."""
        bounds, ports, resources = _typed(data, "elastic", list, None), _typed(data, "ports", dict, {}), None
        if "cpu" in data:
            amounts = {key: _typed(data, key, kind) for key, kind in (("cpu", (str, float)), ("memory", str))}
            argument = _typed(data, "argument", str, None)
            resources = Resources(**amounts, gpu=_typed(data, "gpu", int), argument=argument)
        return cls(
            name,
            _number(data, "replicas", 0, MOST_REPLICAS),
            Elastic(*bounds) if bounds else None,
            _typed(data, "ready", bool),
            resources,
            {port: _typed(ports, port, int) for port in ports},
            _typed(data, "part_of", str, None),
        )


@dataclass(frozen=True)
class Facts:
    """A plan, as far as whoever watches its cluster must know it.

    :param lease: see :meth:`~practicus_provider.backends.base.Backend.create`.
    :param roles: by their names, in the plan's order.
    :param task: facts of the task instance.
    """

    adapter: str
    decides: str | None
    timeout: float
    roles: Mapping[str, RoleFacts]
    task: Mapping[str, Any]
    lease: float | None = None
    framework: Framework | None = None
    links: Mapping[str, Port] = field(default_factory=dict)

    @classmethod
    def of(cls, plan: Plan, task: Mapping[str, Any], lease: float | None) -> Facts:
        """What is kept of a plan."""
        roles = {role.name: RoleFacts.of(role) for role in plan.roles}
        return cls(plan.adapter, plan.decides, plan.timeout, roles, dict(task), lease, plan.framework, plan.links)

    @property
    def deciding(self) -> tuple[str, ...]:
        """The roles whose end is the job's end: the one that decides, and its further parts."""
        return tuple(role.name for role in self.roles.values() if decisive(self.decides, role.name, role.part_of))

    @property
    def coordinator(self) -> str:
        """The role whose log is the job's, and whose Job is the root."""
        return self.decides or next(iter(self.roles))

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; :meth:`from_json` reads it back."""
        return {
            "adapter": self.adapter,
            "framework": asdict(self.framework) if self.framework else None,
            "decides": self.decides,
            "timeout": self.timeout,
            "lease": self.lease,
            "roles": {name: role.to_json() for name, role in self.roles.items()},
            "links": {label: [port.role, port.name] for label, port in self.links.items()},
            "task": dict(self.task),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Facts:
        """Inverse of :meth:`to_json`; what an older version of ours has not written is as it was then.

        :raises ValueError: something in it cannot be meant.
        """
        told = _typed(data, "roles", dict)
        roles = {name: RoleFacts.from_json(name, _typed(told, name, dict)) for name in told}
        decides = _typed(data, "decides", str, None)
        named = (decides, *(role.part_of for role in roles.values()))
        if not roles or any(name is not None and name not in roles for name in named):
            raise ValueError(f"there are only the roles {list(roles)}, and it names {named}")
        if (number := sum(role.replicas for role in roles.values())) > MOST_REPLICAS:
            raise ValueError(f"{number} replicas are over {MOST_REPLICAS}")
        links, framework = _typed(data, "links", dict), None
        if found := _typed(data, "framework", dict, None):
            framework = Framework(_typed(found, "modules", dict), _typed(found, "dockerfile", str, None))
        return cls(
            _typed(data, "adapter", str),
            decides,
            _number(data, "timeout"),
            roles,
            _task(data),
            None if data.get("lease") is None else _number(data, "lease"),
            framework,
            {label: Port(str(role), str(port)) for label, (role, port) in links.items()},
        )


class Unreadable(BackendError):
    """What somebody else has written into a cluster's root cannot be meant."""


def facts_of(root: Manifest) -> Facts:
    """What the root says of its plan.

    :raises Unreadable: nobody can tell.
    """
    return _read(root, FACTS, Facts.from_json)


def task_of(root: Manifest) -> Mapping[str, Any]:
    """The task instance of a root, of whose plan perhaps nobody can tell; empty where that cannot be told either."""
    try:
        return _read(root, FACTS, _task)
    except Unreadable:
        return {}


def with_lease(root: Manifest, lease: float | None) -> str:
    """The annotation with another lease, and all else as it stands there, also what a later version has written."""
    return _read(root, FACTS, lambda data: json.dumps({**data, "lease": lease}))


def told_by(root: Manifest) -> dict[str, LastWords]:
    """Pod -> the last words that the root keeps of it (:data:`~.labels.TOLD`).

    :raises Unreadable: nobody can tell.
    """
    return _read(root, TOLD, lambda data: {pod: LastWords.from_json(_typed(data, pod, dict)) for pod in data})


def cursor_of(root: Manifest) -> dict[str, str]:
    """Pod -> the place in its log that the root keeps (:data:`~.labels.CURSOR`).

    :raises Unreadable: nobody can tell.
    """
    return _read(root, CURSOR, lambda data: {pod: _typed(data, pod, str) for pod in data})


_Value = TypeVar("_Value")


def _read(root: Manifest, annotation: str, reader: Callable[[dict[str, Any]], _Value]) -> _Value:
    """What a reader makes of an annotation's JSON object; of one that is not there, an empty one."""
    meta = root["metadata"]
    try:
        data = json.loads(meta.get("annotations", {}).get(annotation, "{}"))
        if not isinstance(data, dict):
            raise ValueError("it is no JSON object")
        return reader(data)
    except (ValueError, TypeError, RecursionError) as error:
        why = str(error) or type(error).__name__
        raise Unreadable(
            f"cluster {meta['name']} cannot be read, as somebody has changed its annotation {annotation}: {why}; "
            "delete it, which its task's next try does, too"
        ) from error


def _task(data: Mapping[str, Any]) -> dict[str, Any]:
    task: dict[str, Any] = _typed(data, "task", dict)
    for name, kind in TASK.items():
        if name in task:
            _typed(task, name, kind)
    return task


_REQUIRED: Any = object()


def _typed(data: Mapping[str, Any], name: str, kind: type | tuple[type, ...], otherwise: Any = _REQUIRED) -> Any:
    """A field of that kind; where it is absent or null, what is given for that.

    :raises ValueError: it is of another kind, or is absent and must not be.
    """
    value = data.get(name)
    if value is None and otherwise is not _REQUIRED:
        return otherwise
    kinds = kind if isinstance(kind, tuple) else (kind,)
    kinds += (int,) if float in kinds else ()
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{name!r} is {value!r}"[:200] if name in data else f"{name!r} is missing")
    return value


def _number(data: Mapping[str, Any], name: str, least: float = 0, most: float = inf) -> Any:
    value = _typed(data, name, int if most < inf else float)
    if not least <= value <= most or value == inf:
        raise ValueError(f"{name!r} is {value!r}, and not from {least} to {most}")
    return value
