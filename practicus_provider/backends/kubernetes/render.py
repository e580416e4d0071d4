"""Plan -> manifests. Pure: what is printed is what is sent.

One cluster, of name ``N`` and with a short name ``n``::

    Job N                  the root: the role that decides (else the first); suspended until all else is there
      Job n-<role>         every other role of fixed size
      Pod n-<role>-<i>     the replicas of an elastic role
      ConfigMap n          the application, the runtime, every role's launch, the template of elastic pods
      Service n            headless: gives each replica its name in DNS
      NetworkPolicy n      who may talk to whom
      Secret n             the cluster's key, where a launch asks for it
      ServiceAccount n     without a token; with one, a Role and a RoleBinding where a role starts pods

Every object but the root has it as its owner, so that the root's end is everyone's.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import math
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from practicus_provider import runtime
from practicus_provider.backends.codec import dump_text
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.overrides import merged
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Plan, Port, Role, Text, parts
from practicus_provider.runtime.practicus_runtime import pods
from practicus_provider.spec import GPU, Volume

DOMAIN = "practicus.ai"
MANAGED = {"app.kubernetes.io/managed-by": "practicus"}
CLUSTER = pods.CLUSTER
"""Label: name of the cluster (or job) that the object belongs to."""
NETWORK = f"{DOMAIN}/network"
"""Label: short name of the cluster whose replicas may talk to this pod; a job on a shared cluster has that one's."""
ROLE = pods.ROLE
"""Label of a pod: its role's name."""
INDEX = pods.INDEX
"""Label and annotation that the Job controller gives a pod; elastic ones have it from us."""
FACTS = f"{DOMAIN}/facts"
"""Annotation of the root: what a watcher must know of the plan, as JSON."""
RELEASED = f"{DOMAIN}/released"
"""Annotation of the root: exists once the cluster may no longer be adopted."""
CURSOR = f"{DOMAIN}/cursor"
"""Annotation of the root: pod -> time stamp of the last line of its log that was taken, as JSON."""
TOLD = f"{DOMAIN}/told"
"""Annotation of the root: pod -> its last words, as JSON; of pods that were removed once they had said them."""
DIGEST = f"{DOMAIN}/digest"
"""Annotation of the root: of all manifests, to tell whether another's half-made cluster is the same."""

SHORT = 31
"""Characters of a short name. With ``-``, a role's 20 and a pod's 11 it makes a DNS label of 63 (RFC 1123)."""
BUNDLE_LIMIT = 1_000_000
"""Bytes of a ConfigMap's data; the API server refuses objects over 1 MiB (``MaxSecretSize``, also for ConfigMaps)."""
GRACE = 10
"""Seconds between SIGTERM and SIGKILL (``terminationGracePeriodSeconds``)."""
NODE_LOST = 30
"""Seconds that a node may be out of reach before its pods count as lost (Kubernetes' default is 300)."""
FS_GROUP = 1000
"""Group that owns a claim's files (``fsGroup``), so that an image's user, who is not root, may write there. It is every
job's, so that one reads what another wrote."""
TTL = 300
"""Seconds that an ended cluster waits for its deletion (``ttlSecondsAfterFinished``)."""
LEASE_LEAST = 10.0
"""Seconds that a watched cluster's lease has at least: else an API server's hiccup could end its job."""
MOUNT = "/practicus/bundle"
SCRATCH = "/practicus/scratch"
APP = f"{SCRATCH}/.practicus/app"
BOOT = runtime.FOLDER / "practicus_runtime" / "boot.py"
API_PORTS = (443, 6443)
"""Ports of API servers: of the Service ``kubernetes``, and behind it for policies that act after the translation."""
KEY = "key"
"""Of the one value in a cluster's secret."""
MAIN = "main"
"""Name of the one container."""


@dataclass(frozen=True)
class Site:
    """Where and how this connection's pods run.

    :param image: of replicas whose job names none.
    :param pod_overrides: changes to every pod, before the job's own.
    :param images: adapter -> image, before ``image``.
    """

    namespace: str
    image: str | None = None
    pod_overrides: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifests:
    """A whole cluster. :meth:`owned` gives what else is created once the root's uid is known.

    :param secret: for the cluster's key, without it: whoever creates it first makes one up.
    """

    root: Manifest
    others: tuple[Manifest, ...]
    secret: Manifest | None = None

    def owned(self, uid: str) -> tuple[Manifest, ...]:
        """All others, with the root as their owner."""
        owner = _owner(self.root["metadata"]["name"], uid)
        return tuple(_with_owner(_with_owned_templates(manifest, owner), owner) for manifest in self.others)

    def keyed(self, uid: str, key: str) -> Manifest | None:
        """The secret with this key, if the cluster needs one."""
        owner = _owner(self.root["metadata"]["name"], uid)
        return {**_with_owner(self.secret, owner), "stringData": {KEY: key}} if self.secret else None


def short(name: str) -> str:
    """A cluster's name, shortened to :data:`SHORT`: its readable start and its digest."""
    if len(name) <= SHORT:
        return name
    digest = name[-16:] if name[-17] == "-" else hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{name[: SHORT - 17].rstrip('-')}-{digest}"


def render(
    name: str, plan: Plan, site: Site, task: Mapping[str, Any], *, lease: float | None, parent: Manifest | None
) -> Manifests:
    """Every object of a cluster.

    :param task: facts of the task instance.
    :param lease: see :meth:`~practicus_provider.backends.base.Backend.create`.
    :param parent: root Job of the shared cluster that this job runs on.
    :raises SpecError: something does not fit Kubernetes.
    """
    cluster = _Cluster(name, plan, site, task, parent["metadata"]["name"] if parent else None)
    others = cluster.others()
    root = cluster.root(lease)
    if parent:
        root = _with_owner(root, owner_reference(parent))
    digest = hashlib.sha256(json.dumps([root["spec"], others], sort_keys=True).encode()).hexdigest()[:16]
    root["metadata"]["annotations"][DIGEST] = digest
    return Manifests(root, others, cluster.secret())


def owner_reference(job: Manifest) -> Manifest:
    """A Job as the owner of another object."""
    return _owner(job["metadata"]["name"], job["metadata"]["uid"])


@dataclass(frozen=True)
class _Cluster:
    name: str
    plan: Plan
    site: Site
    task: Mapping[str, Any]
    parent: str | None

    @property
    def short(self) -> str:
        return short(self.name)

    @property
    def first(self) -> Role:
        """The role that the root runs."""
        return self.plan.role(self.plan.coordinator)

    @property
    def _parts(self) -> bool:
        """Whether several Jobs decide."""
        return sum(map(self.plan.decisive, self.plan.roles)) > 1

    @property
    def labels(self) -> dict[str, str]:
        return {**MANAGED, CLUSTER: self.name, NETWORK: short(self.parent or self.name)}

    # ---- objects

    def root(self, lease: float | None) -> Manifest:
        """The Job that owns all others."""
        facts = {
            "adapter": self.plan.adapter,
            "framework": asdict(self.plan.framework) if self.plan.framework else None,
            "decides": self.plan.decides,
            "timeout": self.plan.timeout,
            "lease": lease,
            "roles": {role.name: self._facts(role) for role in self.plan.roles},
            "links": {label: [port.role, port.name] for label, port in self.plan.links.items()},
            "task": dict(self.task),
        }
        job = self._job(self.name, self.first)
        job["metadata"]["annotations"] = {FACTS: json.dumps(facts)}
        deadline = self.plan.timeout if lease is None else min(max(LEASE_LEAST, lease), self.plan.timeout)
        job["spec"] |= {
            "suspend": True,
            "activeDeadlineSeconds": max(1, math.ceil(deadline)),
            # Its own replicas may end long before those of a further part, which would go with it.
            "ttlSecondsAfterFinished": math.ceil(self.plan.timeout) if self._parts else TTL,
        }
        return job

    def others(self) -> tuple[Manifest, ...]:
        """Everything else, in an order that needs no waiting."""
        rest = [role for role in self.plan.roles if role is not self.first]
        fixed = [self._job(f"{self.short}-{role.name}", role) for role in rest if role.elastic is None]
        elastic = [
            self.elastic_pod(role, index) for role in rest if role.elastic is not None for index in range(role.replicas)
        ]
        service = [] if self.parent else [self._service()]
        return (
            *(self._config_map(), self._service_account(), self._network_policy(), *service),
            *(*self._rbac(), *fixed, *elastic),
        )

    def elastic_pod(self, role: Role, index: int) -> Manifest:
        """One replica of an elastic role: a pod of its own, as the framework chooses which one leaves.

        A Job's lower parallelism would have the Job controller choose, and kill a worker that holds results.
        """
        return pods.instance(self.elastic_template(role), index)

    def elastic_template(self, role: Role) -> Manifest:
        """What an elastic role's pods are made of, at the start by us, later inside the cluster."""
        template = self._pod_template(role)
        meta = {**self._meta(f"{self.short}-{role.name}"), "labels": template["metadata"]["labels"]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}

    def _facts(self, role: Role) -> dict[str, Any]:
        launch = role.launch
        return {
            "replicas": role.replicas,
            "elastic": [role.elastic.min, role.elastic.max] if role.elastic else None,
            "ready": launch.ready is not None,
            "memory": role.resources.memory,
            "ports": dict(launch.ports),
            **({"part_of": role.part_of} if role.part_of else {}),
        }

    def _meta(self, name: str) -> Manifest:
        return {"name": name, "namespace": self.site.namespace, "labels": self.labels}

    def _config_map(self) -> Manifest:
        launches = {role.name: self._launch(role) for role in self.plan.roles}
        data = {"boot.py": BOOT.read_text(), "launches.json": json.dumps(launches, indent=1)}
        data |= {
            f"pod-{role.name}.json": json.dumps(self.elastic_template(role)) for role in self.plan.roles if role.elastic
        }
        bundle = base64.b64encode(_bundle(self.plan.files)).decode()
        size = len(bundle) + sum(map(len, data.values()))
        if size > BUNDLE_LIMIT:
            raise SpecError(
                "application",
                f"{size} bytes",
                f"it and its files are over the {BUNDLE_LIMIT} bytes, packed, that travel with a job on Kubernetes; "
                "put the code in the image (local:///path), the data on a volume, or the file behind a URL",
            )
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": self._meta(self.short),
            "data": data,
            "binaryData": {"bundle.tgz": bundle},
        }

    def _launch(self, role: Role) -> Manifest:
        """A role's launch as ``boot.py`` reads it: what only the pod itself knows is still a reference."""
        launch = role.launch
        client = {"PRACTICUS_CLIENT": self.plan.client} if self.plan.client else {}
        env: dict[str, Text] = {
            **launch.env,
            **client,
            **self._volume_env(),
            "PRACTICUS_ROLE": role.name,
            "PRACTICUS_TASK": json.dumps(self.task),
        }
        return {
            "command": [self._text(text) for text in launch.command],
            "env": {name: self._text(text) for name, text in env.items()},
            "files": {name: self._text(text) for name, text in launch.files.items()},
            "after": [[self._host(port.role), self._port(port)] for port in launch.after],
            "grace": GRACE - 2,  # the rest is for what the launcher does after it
            "spawns": launch.spawns,
        }

    def _volume_env(self) -> dict[str, Text]:
        """Where replicas find the volumes, and this task instance's checkpoints: its name is the cluster's."""
        env: dict[str, Text] = {}
        if self.plan.volumes:
            env["PRACTICUS_VOLUMES"] = json.dumps({volume.path: volume.path for volume in self.plan.volumes})
        if self.plan.checkpoints:
            env["PRACTICUS_CHECKPOINT_DIR"] = f"{self.plan.checkpoints}/{self.name}"
        return env

    def _text(self, text: Text) -> Any:
        resolved = tuple(self._resolve(part) for part in parts(text))
        return dump_text(resolved)

    def _resolve(self, part: Any) -> Any:
        match part:
            case Here.APP:
                return APP
            case Here.SCRATCH:
                return SCRATCH
            case Host(role):
                return self._host(role)
            case Port():
                return str(self._port(part))
        return part

    def _host(self, role_name: str) -> str:
        """Name in DNS of a role's first replica, this cluster's or its parent's."""
        own = next((role for role in self.plan.roles if role.name == role_name), None)
        cluster = self.name if own else self.parent
        if cluster is None:
            raise LookupError(role_name)
        decisive = own is self.first if own else self.plan.outside[0].name == role_name
        job = cluster if decisive else f"{short(cluster)}-{role_name}"
        return f"{job}-0.{short(self.parent or self.name)}"

    def _port(self, port: Port) -> int:
        roles = (*self.plan.roles, *self.plan.outside)
        return next(role for role in roles if role.name == port.role).launch.ports[port.name]

    def _service(self) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": self._meta(self.short),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {NETWORK: self.short},
            },
        }

    def _service_account(self) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": self._meta(self.short),
            "automountServiceAccountToken": False,
        }

    def secret(self) -> Manifest | None:
        """Where the key goes by which replicas know each other, if some must."""
        if not any(role.launch.keyed for role in self.plan.roles):
            return None
        return {"apiVersion": "v1", "kind": "Secret", "metadata": self._meta(self.short), "immutable": True}

    def _network_policy(self) -> Manifest:
        """Replicas reach each other, DNS and what ``egress`` names; nobody else reaches them, and they nobody else."""
        peers = [{"podSelector": {"matchLabels": {NETWORK: short(self.parent or self.name)}}}]
        outside = [{"ipBlock": {"cidr": cidr}} for cidr in self.plan.egress]
        dns = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
        return {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": self._meta(self.short),
            "spec": {
                "podSelector": {"matchLabels": {CLUSTER: self.name}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": peers}],
                "egress": [{"to": peers + outside}, {"ports": dns}],
            },
        }

    def _rbac(self) -> tuple[Manifest, ...]:
        """Where a role starts pods itself: it may, in this namespace, and may reach the API server."""
        spawners = [role for role in self.plan.roles if role.launch.spawns]
        if not spawners:
            return ()
        rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": self._meta(self.short)}
        verbs = ["get", "list", "watch", "create", "delete", "deletecollection", "patch"]
        account = {"kind": "ServiceAccount", "name": self.short, "namespace": self.site.namespace}
        api = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": self._meta(f"{self.short}-api"),
            "spec": {
                "podSelector": {
                    "matchLabels": {CLUSTER: self.name},
                    "matchExpressions": [{"key": ROLE, "operator": "In", "values": [role.name for role in spawners]}],
                },
                "policyTypes": ["Egress"],
                "egress": [{"ports": [{"protocol": "TCP", "port": port} for port in API_PORTS]}],
            },
        }
        return (
            {**rbac, "kind": "Role", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]},
            {
                **rbac,
                "kind": "RoleBinding",
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": self.short},
                "subjects": [account],
            },
            api,
        )

    def _job(self, name: str, role: Role) -> Manifest:
        # A further part may outlive the root's own replicas, and with them the root's deadline.
        part = role is not self.first and self.plan.decisive(role)
        deadline = {"activeDeadlineSeconds": max(1, math.ceil(self.plan.timeout))} if part else {}
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {**self._meta(name), "labels": {**self.labels, ROLE: role.name}},
            "spec": {
                "completionMode": "Indexed",
                "completions": role.replicas,
                "parallelism": role.replicas,
                "backoffLimit": 0,
                "podReplacementPolicy": "Failed",
                **deadline,
                "template": self._pod_template(role),
            },
        }

    def _pod_template(self, role: Role) -> Manifest:
        template = self._own_pod_template(role)
        for overrides in (self.site.pod_overrides, self.plan.pod_overrides):
            template = merged(template, overrides, _kept)
        return template

    def _own_pod_template(self, role: Role) -> Manifest:
        image = role.image or self.plan.image or self.site.images.get(self.plan.adapter) or self.site.image
        if not image:
            raise SpecError("image", image, "give image=, or set the connection's extra 'image' or 'images'")
        launch = role.launch
        container: Manifest = {
            "name": MAIN,
            "image": image,
            "command": ["python3", "-I", "-S", f"{MOUNT}/boot.py", role.name],
            "workingDir": SCRATCH,
            "env": [
                {"name": "PRACTICUS_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                {"name": "PRACTICUS_NONCE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
                {
                    "name": "PRACTICUS_INDEX",
                    "valueFrom": {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}},
                },
                *([_from_secret("PRACTICUS_KEY", self.short, KEY)] if launch.keyed else []),
                *(_from_secret(variable, *secret) for variable, secret in sorted(self.plan.secrets.items())),
            ],
            "resources": _resources(role),
            "ports": [{"containerPort": number} for number in launch.ports.values()],
            "volumeMounts": [
                {"name": "bundle", "mountPath": MOUNT, "readOnly": True},
                {"name": "scratch", "mountPath": SCRATCH},
                *([{"name": "shm", "mountPath": "/dev/shm"}] if role.resources.shm else []),
                *(_mount(number, volume) for number, volume in enumerate(self.plan.volumes)),
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
                "failureThreshold": math.ceil(self.plan.timeout),
            }
        return {
            "metadata": {"labels": {**self.labels, ROLE: role.name}},
            "spec": {
                "restartPolicy": "Never",
                "subdomain": short(self.parent or self.name),
                "serviceAccountName": self.short,
                "automountServiceAccountToken": bool(role.launch.spawns),
                "enableServiceLinks": False,
                "terminationGracePeriodSeconds": GRACE,
                **({"nodeSelector": dict(role.node_selector)} if role.node_selector else {}),
                "tolerations": [
                    {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": NODE_LOST}
                    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
                ],
                "securityContext": {
                    "runAsNonRoot": True,
                    "seccompProfile": {"type": "RuntimeDefault"},
                    **_group(self.plan.volumes),
                },
                "containers": [container],
                "volumes": [
                    {"name": "bundle", "configMap": {"name": self.short}},
                    {"name": "scratch", "emptyDir": {}},
                    *_shared_memory(role),
                    *(_volume(number, volume) for number, volume in enumerate(self.plan.volumes)),
                ],
            },
        }


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
        [variable for variable in container["env"] if variable["name"].startswith("PRACTICUS_")],
        [mount for mount in container["volumeMounts"] if mount["mountPath"] in (MOUNT, SCRATCH)],
        [volume for volume in spec["volumes"] if volume["name"] == "bundle"],
    )


def _owner(name: str, uid: str) -> Manifest:
    """A reference that has the deletion of the owner, in the foreground, wait for what is owned."""
    return {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": uid, "blockOwnerDeletion": True}


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


def _with_owned_templates(manifest: Manifest, owner: Manifest) -> Manifest:
    """A ConfigMap whose templates of pods name their owner too: the pods are made inside the cluster."""
    if manifest["kind"] != "ConfigMap":
        return manifest
    data = {
        name: json.dumps(_with_owner(json.loads(text), owner)) if name.startswith("pod-") else text
        for name, text in manifest["data"].items()
    }
    return {**manifest, "data": data}


def _with_owner(manifest: Manifest, owner: Manifest) -> Manifest:
    return {**manifest, "metadata": {**manifest["metadata"], "ownerReferences": [owner]}}


def _bundle(files: Mapping[str, bytes]) -> bytes:
    """The application below ``app/`` and our runtime below ``runtime/``; the same bytes for the same content."""
    content = {f"app/{name}": data for name, data in files.items()}
    for path in sorted(runtime.FOLDER.glob("practicus_runtime/*.py")):
        content[f"runtime/practicus_runtime/{path.name}"] = path.read_bytes()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in sorted(content.items()):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(data))
    return gzip.compress(packed.getvalue(), mtime=0)
