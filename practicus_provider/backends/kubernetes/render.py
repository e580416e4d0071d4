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
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from practicus_provider import runtime
from practicus_provider.backends.codec import dump_text
from practicus_provider.backends.kubernetes.admission import rules, words_of
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.bundle import pack
from practicus_provider.backends.kubernetes.facts import Facts
from practicus_provider.backends.kubernetes.labels import (
    ADMITTED,
    CLUSTER,
    COMPLETE,
    DIGEST,
    FACTS,
    MANAGED,
    NETWORK,
    QUEUE,
    ROLE,
)
from practicus_provider.backends.kubernetes.owners import owned, owner_of, with_owner
from practicus_provider.backends.kubernetes.pod_template import KEY, SCRATCH, Site, command_grace, pod_template
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Plan, Port, Role, Text, parts
from practicus_provider.runtime.practicus_runtime import pods
from practicus_provider.runtime.practicus_runtime.contract import LAUNCHES_FILE, Env, Place, RoleLaunch, template_file

SHORT = 31
"""Characters of a short name. With ``-``, a role's 20 and a pod's 11 it makes a DNS label of 63 (RFC 1123)."""
BUNDLE_LIMIT = 1_030_000
"""Bytes of a ConfigMap's data; the API server refuses objects over 1 MiB (``MaxSecretSize``, also for ConfigMaps)."""
TTL = 300
"""Seconds that an ended cluster waits for its deletion (``ttlSecondsAfterFinished``)."""
LEASE_LEAST = 10.0
"""Seconds that a watched cluster's lease has at least: else an API server's hiccup could end its job."""
APP = f"{SCRATCH}/.practicus/app"
BOOT = runtime.FOLDER / "practicus_runtime" / "boot.py"
DNS_PORTS = (53, 5353)
"""Ports of DNS servers: of the Service, and behind it, where a policy acts, of its pods; OpenShift's listen on 5353."""
SPAWN_VERBS = ("list", "create")
"""What a replica that starts pods does to them by our runtime: see ``practicus_runtime.pods``."""
API_PORTS = (443, 6443)
"""Ports of API servers: of the Service ``kubernetes``, and behind it for policies that act after the translation."""


@dataclass(frozen=True)
class Manifests:
    """A whole cluster. :meth:`owned` gives what else is created once the root's uid is known.

    :param start: change of the root once all else is there: it is let go, or handed to its queue.
    :param secret: for the cluster's key, without it: whoever creates it first makes one up.
    """

    root: Manifest
    others: tuple[Manifest, ...]
    start: Manifest
    secret: Manifest | None = None

    def owned(self, uid: str) -> tuple[Manifest, ...]:
        """All others, with the root as their owner."""
        owner = owner_of(self.root["metadata"]["name"], uid)
        return tuple(owned(manifest, owner) for manifest in self.others)

    def keyed(self, uid: str, key: str) -> Manifest | None:
        """The secret with this key, if the cluster needs one."""
        owner = owner_of(self.root["metadata"]["name"], uid)
        return {**with_owner(self.secret, owner), "stringData": {KEY: key}} if self.secret else None


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
    plan = replace(plan, pod=plan.pod.over(site.defaults))
    cluster = _Cluster(name, plan, site, task, lease, parent["metadata"]["name"] if parent else None)
    others = cluster.others()
    root = cluster.root()
    if parent:
        root = with_owner(root, owner_of(parent["metadata"]["name"], parent["metadata"]["uid"]))
    digest = hashlib.sha256(json.dumps([root["spec"], others], sort_keys=True).encode()).hexdigest()[:16]
    root["metadata"]["annotations"][DIGEST] = digest
    return Manifests(root, others, cluster.start(), cluster.secret())


@dataclass(frozen=True)
class _Cluster:
    name: str
    plan: Plan
    site: Site
    task: Mapping[str, Any]
    lease: float | None
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
    def _deadline(self) -> int:
        """Seconds that what decides may run; who watches moves it on."""
        least = self.plan.timeout if self.lease is None else max(LEASE_LEAST, self.lease)
        return max(1, math.ceil(min(least, self.plan.timeout)))

    @property
    def labels(self) -> dict[str, str]:
        return {**MANAGED, CLUSTER: self.name, NETWORK: short(self.parent or self.name)}

    # ---- objects

    def root(self) -> Manifest:
        """The Job that owns all others."""
        facts = Facts.of(self.plan, self.task, self.lease)
        job = self._job(self.name, self.first)
        job["metadata"]["annotations"] = {FACTS: json.dumps(facts.to_json())}
        job["spec"] |= {
            "suspend": True,
            # Its own replicas may end long before those of a further part, which would go with it.
            "ttlSecondsAfterFinished": math.ceil(self.plan.timeout) if self._parts else TTL,
        }
        return job

    def start(self) -> Manifest:
        """What is changed of the root in the end. Kueue un-suspends a Job of its queues itself, and takes no other."""
        complete: Manifest = {"metadata": {"annotations": {COMPLETE: "true"}}}
        if self.plan.pod.queue_name is None:
            return {**complete, "spec": {"suspend": False}}
        complete["metadata"]["labels"] = {QUEUE: self.plan.pod.queue_name}
        return complete

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
        template = pod_template(role, self.plan, self.site, self.labels, self.short)
        meta = {**self._meta(f"{self.short}-{role.name}"), **template["metadata"]}
        if spawners := [other for other in self.plan.roles if other.launch.spawns == role.name]:
            words = words_of(template, [label for other in spawners for label in other.launch.pod_labels])
            meta["annotations"] = {**meta.get("annotations", {}), ADMITTED: words}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": template["spec"]}

    def _meta(self, name: str) -> Manifest:
        return {"name": name, "namespace": self.site.namespace, "labels": self.labels}

    def _config_map(self) -> Manifest:
        launches = {role.name: self._launch(role) for role in self.plan.roles}
        data = {"boot.py": BOOT.read_text(), LAUNCHES_FILE: json.dumps(launches, indent=1)}
        data |= {
            template_file(role.name): json.dumps(self.elastic_template(role))
            for role in self.plan.roles
            if role.elastic
        }
        bundle = base64.b64encode(pack(self.plan.files, self.plan.executable)).decode()
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
        client = {Env.CLIENT: self.plan.client} if self.plan.client else {}
        env: dict[str, Text] = {
            **launch.env,
            **client,
            **self._volume_env(),
            Env.ROLE: role.name,
            Env.TASK: json.dumps(self.task),
            Env.START_TIMEOUT: str(self.plan.start_timeout),
        }
        return RoleLaunch(
            command=[self._text(text) for text in launch.command],
            env={name: self._text(text) for name, text in env.items()},
            files={name: self._text(text) for name, text in launch.files.items()},
            after=[Place(f"{port.role}-0", self._host(port.role), self._port(port)) for port in launch.after],
            grace=command_grace(pod_template(role, self.plan, self.site, self.labels, self.short)),
            spawns=launch.spawns,
        ).to_json()

    def _volume_env(self) -> dict[str, Text]:
        """Where replicas find the volumes, and this task instance's checkpoints: its name is the cluster's."""
        env: dict[str, Text] = {}
        if self.plan.volumes:
            env[Env.VOLUMES] = json.dumps({volume.path: volume.path for volume in self.plan.volumes})
        if self.plan.checkpoints:
            env[Env.CHECKPOINT_DIR] = f"{self.plan.checkpoints}/{self.name}"
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
        outside = [{"ipBlock": {"cidr": cidr}} for cidr in self.plan.pod.egress]
        dns = [{"protocol": protocol, "port": port} for port in DNS_PORTS for protocol in ("UDP", "TCP")]
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
        spawned = {role.launch.spawns for role in spawners}
        if not spawners:
            return ()
        started = [self.elastic_template(role) for role in self.plan.roles if role.name in spawned]
        texts = [template["metadata"]["annotations"][ADMITTED] for template in started]
        rbac = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": self._meta(self.short)}
        verbs = list(dict.fromkeys((*SPAWN_VERBS, *(verb for role in spawners for verb in role.launch.pod_verbs))))
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
            {
                **rbac,
                "kind": "Role",
                "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}, *rules(texts)],
            },
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
        limited = role is self.first or self.plan.decisive(role)
        deadline = {"activeDeadlineSeconds": self._deadline} if limited else {}
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
                "template": pod_template(role, self.plan, self.site, self.labels, self.short),
            },
        }
