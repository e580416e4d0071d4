"""A role's pods: their container, mounts and volumes, and what the user changes of them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import DOMAIN, INDEX, MAIN, NETWORK, ROLE
from practicus_provider.backends.kubernetes.overrides import merged
from practicus_provider.errors import SpecError
from practicus_provider.plan import Plan, Role
from practicus_provider.pod_settings import PodSettings
from practicus_provider.runtime.practicus_runtime.contract import PREFIX, Env
from practicus_provider.spec import GPU, Volume

GRACE = 8
"""Seconds that a replica's command has between SIGTERM and SIGKILL, where the plan does not say."""
LAUNCHER_GRACE = 2
"""Seconds that a pod has beyond that (``terminationGracePeriodSeconds``), for what the launcher does after it."""
KUBERNETES_GRACE = 30
"""Kubernetes' default of a pod's, for one whose overrides remove ours."""
NODE_LOST = 30
"""Seconds that a node may be out of reach before its pods count as lost (Kubernetes' default is 300)."""
FS_GROUP = 1000
"""Group that owns a claim's files (``fsGroup``), so that an image's user, who is not root, may write there. It is every
job's, so that one reads what another wrote."""
NOT_MOVED = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"}
"""Annotations by which who makes clusters of nodes smaller leaves a pod where it is: its loss would end the job. An
elastic role goes on without it. (*What types of pods can prevent CA from removing a node?* in the FAQ of the Cluster
Autoscaler; *Pod-level controls* in Karpenter's *Disruption*.)"""
NO_MESH_LABELS = {"sidecar.istio.io/inject": "false"}
NO_MESH = {"linkerd.io/inject": "disabled"}
"""Keep a service mesh's proxy out of pods, since what replicas say to each other is no HTTP, and their ports, and the
job's end, would be the proxy's. (*Installing the Sidecar* in Istio's documentation, *Automatic Proxy Injection* in
Linkerd's.)"""
MOUNT = "/practicus/bundle"
SCRATCH = "/practicus/scratch"
KEY = "key"
"""Of the one value in a cluster's secret."""


@dataclass(frozen=True)
class Site:
    """Where and how this connection's pods run.

    :param image: of replicas whose job names none.
    :param pod_overrides: changes to every pod, before the job's own.
    :param images: adapter -> image, before ``image``.
    :param defaults: of every pod, where a job says nothing.
    """

    namespace: str
    image: str | None = None
    pod_overrides: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)
    defaults: PodSettings = PodSettings()


def pod_template(role: Role, plan: Plan, site: Site, labels: Mapping[str, str], short: str) -> Manifest:
    """What each pod of a role is made of (``PodTemplateSpec``).

    :param labels: of all that belongs to the cluster.
    :param short: name of the cluster's ConfigMap, ServiceAccount and Secret.
    :raises SpecError: nobody names an image, or an override is none, or touches what is ours.
    """
    image = role.image or plan.pod.image or site.images.get(plan.adapter) or site.image
    if not image:
        raise SpecError("image", image, "give image=, or set the connection's extra 'image' or 'images'")
    spec = {
        "restartPolicy": "Never",
        "subdomain": labels[NETWORK],
        "serviceAccountName": short,
        "automountServiceAccountToken": bool(role.launch.spawns),
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LAUNCHER_GRACE + math.ceil(GRACE if plan.grace is None else plan.grace),
        **({"nodeSelector": dict(role.node_selector)} if role.node_selector else {}),
        **({"schedulerName": plan.pod.scheduler_name} if plan.pod.scheduler_name else {}),
        **({"priorityClassName": plan.pod.priority_class} if plan.pod.priority_class else {}),
        "tolerations": [
            {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST}
            for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
        ],
        "securityContext": {
            "runAsNonRoot": True,
            **({"runAsUser": plan.pod.run_as_uid} if plan.pod.run_as_uid is not None else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
            **_group(plan.volumes),
        },
        "containers": [_container(role, plan, image, short)],
        "volumes": [
            {"name": "bundle", "configMap": {"name": short}},
            {"name": "scratch", "emptyDir": {}},
            *_shared_memory(role),
            *(_volume(number, volume) for number, volume in enumerate(plan.volumes)),
        ],
    }
    metadata: Manifest = {"labels": {**labels, ROLE: role.name, **NO_MESH_LABELS}, "annotations": dict(NO_MESH)}
    if role.elastic is None:
        metadata["annotations"] |= NOT_MOVED
    template: Manifest = {"metadata": metadata, "spec": spec}
    for overrides in (site.pod_overrides, plan.pod.pod_overrides):
        template = merged(template, overrides, _kept)
    return template


def command_grace(template: Manifest) -> float:
    """Seconds that the command has in a pod of that template, whoever chose the pod's own: it must end before that.

    :raises SpecError: an override has made it something else than a number.
    """
    seconds = template["spec"].get("terminationGracePeriodSeconds", KUBERNETES_GRACE)
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds < 0:
        way_out = "give a whole number of seconds, or grace= instead"
        raise SpecError("pod_overrides.spec.terminationGracePeriodSeconds", seconds, way_out)
    return seconds - min(LAUNCHER_GRACE, seconds / 2)


def _container(role: Role, plan: Plan, image: str, short: str) -> Manifest:
    launch = role.launch
    container: Manifest = {
        "name": MAIN,
        "image": image,
        **({"imagePullPolicy": plan.pod.image_pull_policy} if plan.pod.image_pull_policy else {}),
        "command": ["python3", "-I", "-S", f"{MOUNT}/boot.py", role.name],
        "workingDir": SCRATCH,
        "env": [
            {"name": Env.HOST, "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": Env.NONCE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
            {
                "name": Env.INDEX,
                "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}},
            },
            *([_from_secret(Env.KEY, short, KEY)] if launch.keyed else []),
            *(_from_secret(variable, *secret) for variable, secret in plan.pod.secret_keys.items()),
        ],
        "resources": _resources(role),
        "ports": [{"containerPort": number} for number in launch.ports.values()],
        "volumeMounts": [
            {"name": "bundle", "mountPath": MOUNT, "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH},
            *([{"name": "shm", "mountPath": "/dev/shm"}] if role.resources.shm else []),
            *(_mount(number, volume) for number, volume in enumerate(plan.volumes)),
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if launch.ready is not None:
        # Until it succeeds once: a server that is probed for ever logs each probe.
        container["startupProbe"] = {
            "tcpSocket": {"port": launch.ports[launch.ready]},
            "periodSeconds": 1,
            "failureThreshold": math.ceil(plan.timeout),
        }
    return container


def _kept(template: Manifest) -> Any:
    """What a pod must have as we made it, whatever else a user changes."""
    meta, spec = template["metadata"], template["spec"]
    container = next(container for container in spec["containers"] if container["name"] == MAIN)
    return (
        {
            name: value
            for name, value in meta["labels"].items()
            if name.startswith((DOMAIN, "app.kubernetes.io/managed"))
        },
        meta.get("name"),
        [spec.get(name) for name in ("restartPolicy", "subdomain", "hostname", "activeDeadlineSeconds")],
        [container.get(name) for name in ("command", "args", "workingDir")],
        [variable for variable in container["env"] if variable["name"].startswith(PREFIX)],
        [mount for mount in container["volumeMounts"] if mount["mountPath"] in (MOUNT, SCRATCH)],
        [volume for volume in spec["volumes"] if volume["name"] == "bundle"],
    )


def _resources(role: Role) -> Manifest:
    resources = role.resources
    devices = ({GPU: resources.gpu} if resources.gpu else {}) | dict(resources.extra)
    amounts = {"cpu": str(resources.cpu), "memory": resources.memory}
    amounts |= {name: str(number) for name, number in devices.items()}
    return {"requests": amounts, "limits": amounts}


def _shared_memory(role: Role) -> list[Manifest]:
    """A volume for ``/dev/shm``; what is in it counts as the container's memory."""
    size = role.resources.shm
    return [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": size}}] if size else []


def _from_secret(variable: str, name: str, key: str) -> Manifest:
    """A variable with the value that a secret has, by reference."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}


def _mount(number: int, volume: Volume) -> Manifest:
    """A volume in the container; what is not said is not read-only."""
    mount = {"name": f"volume-{number}", "mountPath": volume.path}
    return {**mount, "readOnly": True} if volume.read_only else mount


def _volume(number: int, volume: Volume) -> Manifest:
    """A volume of the pod."""
    read_only = {"readOnly": True} if volume.read_only else {}
    source: Manifest
    if volume.claim is not None:
        source = {"persistentVolumeClaim": {"claimName": volume.claim, **read_only}}
    elif volume.host_path is not None:
        source = {"hostPath": {"path": volume.host_path}}
    elif volume.nfs is not None:
        server, _, path = volume.nfs.partition(":/")
        source = {"nfs": {"server": server, "path": f"/{path}", **read_only}}
    else:
        source = {"emptyDir": {"sizeLimit": volume.empty_dir}}
    return {"name": f"volume-{number}", **source}


def _group(volumes: Iterable[Volume]) -> Manifest:
    """Whose a claim's files are. They are looked at one by one only where its root is not that group's yet."""
    if not any(volume.claim is not None and not volume.read_only for volume in volumes):
        return {}
    return {"fsGroup": FS_GROUP, "fsGroupChangePolicy": "OnRootMismatch"}
