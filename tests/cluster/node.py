"""What runs on a node's machine: containerd, kubelet, kube-proxy, and what enforces network policies."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.cluster.binaries import Binaries
from tests.cluster.images import PAUSE
from tests.cluster.layout import CLUSTER_DOMAIN, IPV6, NUMBER, Families, Layout, NodeAddress, joined
from tests.cluster.machine import Component
from tests.cluster.pki import Authority
from tests.cluster.policy.cni import FRONT

POLICY = Path(__file__).parent / "policy"
CNI_PLUGINS = Path("/usr/lib/cni")
_POLICY_PLUGIN = "practicus-policy"
_AT_ONCE_PLUGIN = "practicus-at-once"
_AT_ONCE = """\
#!/bin/sh
test "$CNI_COMMAND" = ADD || exit 0
nsenter --net="$CNI_NETNS" sh -c 'echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad' &&
echo '{"cniVersion": "0.4.0"}'
"""
"""A CNI plugin, the first in the chain: a pod uses its IPv6 address at once. By default its kernel first asks for one
to two seconds whether anybody else has it, and no container starts before."""
# On the machine's own /run, so a machine that is lost comes back as after a boot: with images, without containers.
_CONTAINERD_STATE = "/run/containerd"
CONTAINERD_SOCKET = f"{_CONTAINERD_STATE}/containerd.sock"
CGROUP_ROOT = f"practicus-test-{NUMBER}"
LEASE_SECONDS = 8
"""A node that has not renewed its lease for so long is late."""


def cgroup(node: NodeAddress) -> str:
    """Where the kubelet keeps its pods' cgroups: two kubelets in one place would remove each other's."""
    return f"{CGROUP_ROOT}/{node.name}"


def containerd_root(layout: Layout, node: NodeAddress) -> Path:
    """Where its images are."""
    return layout.machine(node.name) / "containerd"


def containerd(layout: Layout, binaries: Binaries, node: NodeAddress) -> Component:
    """Runs the containers."""
    own = layout.machine(node.name)
    config, network = own / "containerd.toml", own / "cni" / "10-pods.conflist"
    return Component(
        "containerd",
        [binaries["containerd"], "--config", str(config)],
        files={
            config: _containerd(own, containerd_root(layout, node), binaries["containerd-shim-runc-v2"]),
            network: _pod_network(node, layout.families),
        },
    )


def link_network_plugins(layout: Layout, node: NodeAddress) -> None:
    """Put Debian's plugins and the one for policies together: containerd looks in one folder only."""
    folder = _network_plugins(layout.machine(node.name))
    folder.mkdir(parents=True, exist_ok=True)
    for plugin in CNI_PLUGINS.iterdir():
        link = folder / plugin.name
        if not (link.is_symlink() and link.readlink() == plugin):  # pods may be starting
            link.unlink(missing_ok=True)
            link.symlink_to(plugin)
    # By the interpreter itself: what is first on PATH may be a shim that takes longer than all the rest.
    plugin = folder / f"{_POLICY_PLUGIN}.py"
    for file, text in (
        (plugin, (POLICY / "cni.py").read_text()),
        (folder / _POLICY_PLUGIN, FRONT.format(python=sys.executable, plugin=plugin)),
        (folder / _AT_ONCE_PLUGIN, _AT_ONCE),
    ):
        new = folder / f".{file.name}"
        new.write_text(text)
        new.chmod(0o755)
        new.replace(file)


def components(layout: Layout, binaries: Binaries, authority: Authority, node: NodeAddress) -> list[Component]:
    """What needs a containerd that answers."""
    own, families = layout.machine(node.name), layout.families
    addresses = [str(node.address(family)) for family in families]
    kubelet_config, kubelet_user = own / "kubelet.json", own / "kubelet.kubeconfig"
    proxy_config, proxy_user = own / "kube-proxy.json", own / "kube-proxy.kubeconfig"
    server = authority.issue(f"{node.name}-server", file=f"{node.name}-server", addresses=[*addresses, node.name])
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(authority.certificate)}},
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(server.certificate),
        "tlsPrivateKeyFile": str(server.key),
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroup(node)}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,  # below 0 takes CAP_SYS_RESOURCE
        "clusterDNS": [str(families[0].dns_service)],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(own / "resolv.conf"),
        # It is the host's disk: no reason to give up pods or images early.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        # A watch of a ConfigMap, the default, is often refused: it comes before the API server's node authorizer has
        # heard of the pod, and the kubelet waits for a second before it tries again.
        "configMapAndSecretChangeDetectionStrategy": "Get",
        "volumePluginDir": str(own / "volume-plugins"),
        # With the controller manager's grace period, a lost node is known within half a minute.
        "nodeLeaseDurationSeconds": LEASE_SECONDS,
        "nodeStatusUpdateFrequency": "4s",
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
    }
    proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(proxy_user)},
        "mode": "iptables",
        "clusterCIDR": joined(families, "pods"),
        "hostnameOverride": node.name,
        "oomScoreAdj": 0,
        # These are the host's.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "iptables": {"minSyncPeriod": "100ms"},  # by default, a new Service waits for up to a second
    }
    return [
        Component(
            "kubelet",
            [
                *(binaries["kubelet"], f"--config={kubelet_config}", f"--kubeconfig={kubelet_user}"),
                *(f"--root-dir={own / 'kubelet'}", f"--hostname-override={node.name}"),
                f"--node-ip={','.join(addresses)}",
            ],
            files={
                kubelet_config: json.dumps(kubelet),
                kubelet_user: authority.kubeconfig(f"system:node:{node.name}", "system:nodes"),
                own / "resolv.conf": f"nameserver {families[0].control_plane}\n",
            },
        ),
        Component(
            "kube-proxy",
            [binaries["kube-proxy"], f"--config={proxy_config}"],
            files={proxy_config: json.dumps(proxy), proxy_user: authority.kubeconfig("system:kube-proxy")},
        ),
    ]


def policy(layout: Layout, authority: Authority, node: NodeAddress) -> list[Component]:
    """What lets through to the node's pods what the network policies allow."""
    user = layout.machine(node.name) / "policy.kubeconfig"
    return [
        Component(
            "policy",
            [
                *(sys.executable, "-m", "tests.cluster.policy", f"--kubeconfig={user}", f"--node={node.name}"),
                f"--families={joined(layout.families, 'name')}",
            ],
            files={user: authority.kubeconfig("practicus:policy")},
            inputs=[source.read_text() for source in sorted(POLICY.glob("*.py"))],
        )
    ]


def _containerd(own: Path, root: Path, shim: str) -> str:
    runtime = 'plugins."io.containerd.cri.v1.runtime"'
    return f"""
version = 4
root = "{root}"
state = "{_CONTAINERD_STATE}"
imports = []  # by default what the host has in /etc/containerd
disabled_plugins = ["io.containerd.internal.v1.opt"]

[plugins."io.containerd.server.v1.grpc"]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.server.v1.ttrpc"]
address = "{CONTAINERD_SOCKET}.ttrpc"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{PAUSE}"

[{runtime}]
restrict_oom_score_adj = true  # a container's may not be below our own without CAP_SYS_RESOURCE

[{runtime}.containerd]
default_runtime_name = "runc"

[{runtime}.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
runtime_path = "{shim}"  # by default the one on PATH, which may be of another version

[{runtime}.cni]
bin_dirs = ["{_network_plugins(own)}"]
use_internal_loopback = true  # else one more program is run as each pod starts, and one as it ends
conf_dir = "{own}/cni"
"""


def _network_plugins(own: Path) -> Path:
    return own / "cni-plugins"


def _pod_network(node: NodeAddress, families: Families) -> str:
    """Routed (``ptp``), not bridged: every packet crosses the node's FORWARD chain, where policies act on it."""
    addresses = {
        "type": "host-local",
        "dataDir": "/run/pod-addresses",
        "ranges": [[{"subnet": str(node.pods(family))}] for family in families],
        "routes": [{"dst": family.everywhere} for family in families],
    }
    plugins = [
        *([{"type": _AT_ONCE_PLUGIN}] if IPV6 in families else []),
        {"type": "ptp", "ipMasq": False, "ipam": addresses},
        {"type": _POLICY_PLUGIN},  # the last: no container starts before the rules for its address are there
    ]
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins})
