"""Plans as JSON, for another process to read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from practicus_provider.plan import Framework, Here, Host, Launch, Part, Plan, Port, Role, Text, parts
from practicus_provider.pod_settings import PodSettings
from practicus_provider.spec import Elastic, Resources, Volume


def dump_plan(plan: Plan) -> dict[str, Any]:
    """JSON-able form of a plan, its shipped files excepted; :func:`load_plan` reads it back."""
    return {
        "adapter": plan.adapter,
        "roles": [_dump_role(role) for role in plan.roles],
        "decides": plan.decides,
        "timeout": plan.timeout,
        "start_timeout": plan.start_timeout,
        "grace": plan.grace,
        "client": plan.client,
        "framework": asdict(plan.framework) if plan.framework else None,
        "links": {label: _dump_port(port) for label, port in plan.links.items()},
        "image": plan.pod.image,
        "outside": [_dump_role(role) for role in plan.outside],
        "volumes": [asdict(volume) for volume in plan.volumes],
        "checkpoints": plan.checkpoints,
    }


def load_plan(data: Mapping[str, Any]) -> Plan:
    """Inverse of :func:`dump_plan`."""
    as_they_are = {name: value for name, value in data.items() if name != "image"}
    return Plan(
        **{
            **as_they_are,
            "pod": PodSettings(image=data["image"]),
            "roles": tuple(map(_load_role, data["roles"])),
            "framework": Framework(**data["framework"]) if data["framework"] else None,
            "links": {label: Port(*port) for label, port in data["links"].items()},
            "outside": tuple(map(_load_role, data["outside"])),
            "volumes": tuple(Volume(**volume) for volume in data["volumes"]),
        }
    )


def _dump_role(role: Role) -> dict[str, Any]:
    launch = role.launch
    return {
        "name": role.name,
        "replicas": role.replicas,
        "resources": asdict(role.resources),
        "elastic": [role.elastic.min, role.elastic.max] if role.elastic else None,
        "image": role.image,
        "node_selector": dict(role.node_selector),
        "part_of": role.part_of,
        "command": [dump_text(text) for text in launch.command],
        "env": {key: dump_text(text) for key, text in launch.env.items()},
        "files": {key: dump_text(text) for key, text in launch.files.items()},
        "ports": dict(launch.ports),
        "after": [_dump_port(port) for port in launch.after],
        "ready": launch.ready,
        "spawns": launch.spawns,
        "pod_verbs": list(launch.pod_verbs),
        "pod_labels": list(launch.pod_labels),
    }


def _load_role(data: Mapping[str, Any]) -> Role:
    launch = Launch(
        command=tuple(map(load_text, data["command"])),
        env={key: load_text(text) for key, text in data["env"].items()},
        files={key: load_text(text) for key, text in data["files"].items()},
        ports=data["ports"],
        after=tuple(Port(*port) for port in data["after"]),
        ready=data["ready"],
        spawns=data["spawns"],
        pod_verbs=tuple(data.get("pod_verbs", ())),
        pod_labels=tuple(data.get("pod_labels", ())),
    )
    elastic = Elastic(*data["elastic"]) if data["elastic"] else None
    how = {name: data[name] for name in ("name", "replicas", "image", "node_selector", "part_of")}
    return Role(launch=launch, resources=Resources(**data["resources"]), elastic=elastic, **how)


def dump_text(text: Text) -> list[Any]:
    """JSON-able form of a text: strings, and ``{"here": ...}`` and the like for references."""
    return [_dump_part(part) for part in parts(text)]


def load_text(data: list[Any]) -> Text:
    """Inverse of :func:`dump_text`."""
    loaded = tuple(map(_part, data))
    return loaded[0] if len(loaded) == 1 else loaded


def _dump_port(port: Port) -> list[Any]:
    return [port.role, port.name, *([True] if port.first else [])]


def _dump_part(part: Part) -> Any:
    match part:
        case Here():
            return {"here": part.value}
        case Host():
            return {"host": part.role}
        case Port():
            return {"port": _dump_port(part)}
        case str():
            return part


def _part(data: Any) -> Part:
    match data:
        case {"here": value}:
            return Here(value)
        case {"host": role}:
            return Host(role)
        case {"port": [role, name, *first]}:
            return Port(role, name, *first)
        case str():
            return data
    raise ValueError(f"not a part of a text: {data!r}")
