"""What runs on the control plane's machine: etcd, the API server, controllers, scheduler and the cluster's DNS."""

from __future__ import annotations

import json
from typing import Any

from tests.cluster.api import Api
from tests.cluster.binaries import Binaries
from tests.cluster.layout import API_PORT, CLUSTER_DOMAIN, Families, Layout, joined
from tests.cluster.machine import Component
from tests.cluster.pki import Authority

_ETCD = "http://127.0.0.1:2379"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # The nodes' signs of life are most of the requests, and nobody's question.
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "Metadata"},
    ],
}
# A node is lost, and its pods are given up, within half a minute instead of six.
_NODE_GRACE = "--node-monitor-grace-period=20s"
_EVICTION = ("--default-not-ready-toleration-seconds=5", "--default-unreachable-toleration-seconds=5")
_LAZY_COLLECTOR = ("env", "GOGC=300")
"""The API server's heap may grow to four times what lives in it: memory for processor time, of which it takes most."""
_BUSY_CLIENT = ("--kube-api-qps=300", "--kube-api-burst=600")  # or large jobs would measure this limit


def store_and_server(layout: Layout, binaries: Binaries, authority: Authority) -> list[Component]:
    """What must answer before anything else can start."""
    own, families = layout.machine("control-plane"), layout.families
    names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
    names.append(f"kubernetes.default.svc.{CLUSTER_DOMAIN}")
    addresses = [str(address) for family in families for address in (family.control_plane, family.api_service)]
    server = authority.issue("kube-apiserver", addresses=[*names, "127.0.0.1", *addresses])
    to_kubelets = authority.issue("kube-apiserver-kubelet-client", "system:masters")
    etcd = Component(
        "etcd",
        [
            *(binaries["etcd"], f"--data-dir={own / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn"),
            *(f"--listen-client-urls={_ETCD}", f"--advertise-client-urls={_ETCD}"),
        ],
    )
    audit_policy = own / "audit-policy.json"
    api_server = Component(
        "kube-apiserver",
        [
            *(*_LAZY_COLLECTOR, binaries["kube-apiserver"], f"--etcd-servers={_ETCD}", f"--secure-port={API_PORT}"),
            f"--advertise-address={families[0].control_plane}",
            f"--service-cluster-ip-range={joined(families, 'services')}",
            *(f"--client-ca-file={authority.certificate}", "--authorization-mode=Node,RBAC", "--allow-privileged"),
            *(f"--tls-cert-file={server.certificate}", f"--tls-private-key-file={server.key}"),
            *(f"--kubelet-client-certificate={to_kubelets.certificate}", f"--kubelet-client-key={to_kubelets.key}"),
            f"--kubelet-certificate-authority={authority.certificate}",
            "--kubelet-preferred-address-types=InternalIP",  # no DNS knows a node's name
            f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
            f"--service-account-key-file={authority.accounts.certificate}",
            f"--service-account-signing-key-file={authority.accounts.key}",
            *("--enable-admission-plugins=NodeRestriction", *_EVICTION),
            *(f"--audit-policy-file={audit_policy}", f"--audit-log-path={layout.audit_log}"),
            *("--audit-log-maxsize=200", "--audit-log-maxbackup=1"),
        ],
        files={audit_policy: json.dumps(_AUDIT_POLICY)},
    )
    return [etcd, api_server]


def controllers(layout: Layout, binaries: Binaries, authority: Authority) -> list[Component]:
    """What needs an API server that answers."""
    own, families = layout.machine("control-plane"), layout.families
    manager, scheduler, dns = (own / f"{name}.kubeconfig" for name in ("controller-manager", "scheduler", "coredns"))
    corefile = own / "Corefile"
    return [
        Component(
            "kube-controller-manager",
            [
                *(binaries["kube-controller-manager"], f"--kubeconfig={manager}", "--leader-elect=false"),
                *("--use-service-account-credentials", f"--root-ca-file={authority.certificate}"),
                f"--service-account-private-key-file={authority.accounts.key}",
                *(f"--cluster-cidr={joined(families, 'pods')}", "--allocate-node-cidrs=false"),
                f"--flex-volume-plugin-dir={own / 'volume-plugins'}",  # it would make the default one on the host
                *("--node-monitor-period=2s", _NODE_GRACE, *_BUSY_CLIENT),
            ],
            files={manager: authority.kubeconfig("system:kube-controller-manager")},
        ),
        Component(
            "kube-scheduler",
            [binaries["kube-scheduler"], f"--kubeconfig={scheduler}", "--leader-elect=false", *_BUSY_CLIENT],
            files={scheduler: authority.kubeconfig("system:kube-scheduler")},
        ),
        Component(
            "coredns",
            [binaries["coredns"], "-conf", str(corefile)],
            files={dns: authority.kubeconfig("system:coredns"), corefile: _corefile(families, str(dns))},
        ),
    ]


def furnish(api: Api, families: Families) -> None:
    """What every cluster has in it: a DNS service, and the rights of those who are no built-in users."""
    api.apply(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/practicus:coredns",
        **_object("rbac.authorization.k8s.io/v1", "ClusterRole", "practicus:coredns"),
        rules=[
            _may_read("", "endpoints", "services", "pods", "namespaces"),
            _may_read("discovery.k8s.io", "endpointslices"),
        ],
    )
    api.apply(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/practicus:policy",
        **_object("rbac.authorization.k8s.io/v1", "ClusterRole", "practicus:policy"),
        rules=[
            _may_read("", "pods", "namespaces"),
            _may_read("networking.k8s.io", "networkpolicies"),
            {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        ],
    )
    for role, user in (("practicus:coredns", "system:coredns"), ("practicus:policy", "practicus:policy")):
        api.apply(
            f"/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/{role}",
            **_object("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", role),
            roleRef={"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            subjects=[{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        )
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53, "protocol": "TCP"}]
    labels = {"k8s-app": "kube-dns", "kubernetes.io/service-name": "kube-dns"}
    api.apply(
        "/api/v1/namespaces/kube-system/services/kube-dns",
        **_object("v1", "Service", "kube-dns", namespace="kube-system", labels={"k8s-app": "kube-dns"}),
        spec={"clusterIP": str(families[0].dns_service), "ports": ports},
    )
    # No pod: DNS then stays while a test drains or loses nodes.
    api.apply(
        "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/kube-dns",
        **_object("discovery.k8s.io/v1", "EndpointSlice", "kube-dns", namespace="kube-system", labels=labels),
        addressType=f"IPv{families[0].version}",
        endpoints=[{"addresses": [str(families[0].control_plane)], "conditions": {"ready": True}}],
        ports=ports,
    )


def _object(api_version: str, kind: str, name: str, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name, **metadata}}


def _may_read(group: str, *resources: str) -> dict[str, list[str]]:
    return {"apiGroups": [group], "resources": list(resources), "verbs": ["get", "list", "watch"]}


def _corefile(families: Families, kubeconfig: str) -> str:
    """No cache: a name resolves as soon as its pod has an address, and no longer once that is gone. The second port is
    that of OpenShift's."""
    return f"""
.:53 .:5353 {{
    bind {" ".join(str(family.control_plane) for family in families)}
    errors
    ready
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
}}
"""
