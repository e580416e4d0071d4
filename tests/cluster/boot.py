"""One run of ``up``: starts what does not run, and waits until all of it is ready."""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.cluster import cgroups, control_plane, images, network, node, simulation
from tests.cluster.api import Api
from tests.cluster.binaries import Binaries
from tests.cluster.errors import ClusterError
from tests.cluster.layout import API_PORT, CACHE, CLUSTER_DOMAIN, Families, Family, Layout, NodeAddress
from tests.cluster.machine import Component, Machine
from tests.cluster.pki import Authority
from tests.cluster.policy.cni import SOCKET
from tests.cluster.process import tail, wait_until

READY_WITHIN = 90.0
"""Seconds that a busy machine may take for one step."""


class Boot:
    """From whatever there is to a cluster that is ready."""

    def __init__(
        self, layout: Layout, binaries: Binaries, nodes: list[NodeAddress], simulated: int, families: Families
    ) -> None:
        self._layout = layout
        self._families = families
        self._binaries = binaries
        self._nodes = nodes
        self._simulated = simulated
        self._hub = Machine(layout, "control-plane")
        self._started: list[str] = []

    def run(self) -> None:
        """Do it.

        :raises ClusterError: something does not become ready.
        """
        self._began = time.time()
        self._layout.root.mkdir(parents=True, exist_ok=True)
        self._layout.keep(self._families)
        self._authority = Authority(self._layout.pki, _url(self._families[0]))
        self._layout.simulated.write_text(str(self._simulated))
        for link in (self._layout.kubectl, self._layout.ctr):
            link.unlink(missing_ok=True)
            link.symlink_to(self._binaries[link.name])
        self._write_kubeconfig()
        self._api = Api(self._layout.kubeconfig)

        self._start_machine(self._hub)
        network.connect_host(self._hub, self._families)
        network.route(self._hub, self._nodes, self._families)
        self._ensure(self._hub, *control_plane.store_and_server(self._layout, self._binaries, self._authority))
        for address in self._nodes:
            self._start_node(address)

        self._wait(self._hub, "the API server is ready", lambda: self._api.get("/readyz"), "etcd", "kube-apiserver")
        self._ensure(self._hub, *control_plane.controllers(self._layout, self._binaries, self._authority))
        control_plane.furnish(self._api, self._families)
        for address in self._nodes:
            self._start_kubelet(address)
        self._simulate()
        self._wait_until_ready()
        if self._started:
            print(f"started in {time.time() - self._began:.1f} s: {', '.join(self._started)}")

    def _write_kubeconfig(self) -> None:
        aside = self._layout.kubeconfig.with_suffix(".new")
        aside.touch(mode=0o600)
        aside.write_text(self._authority.kubeconfig("admin", "system:masters"))
        aside.rename(self._layout.kubeconfig)

    def _start_machine(self, machine: Machine) -> None:
        if machine.start(self._binaries["pause"]):
            self._started.append(machine.name)

    def _ensure(self, machine: Machine, *components: Component) -> None:
        for component in components:
            if machine.ensure(component):
                self._started.append(f"{machine.name}/{component.name}")

    def _start_node(self, address: NodeAddress) -> None:
        machine = Machine(self._layout, address.name)
        self._start_machine(machine)
        network.connect(self._hub, machine, address, self._families)
        network.route(machine, self._nodes, self._families)
        cgroups.make(node.cgroup(address))
        node.link_network_plugins(self._layout, address)
        images.furnish(machine, node.containerd_root(self._layout, address), CACHE / "images", self._binaries)
        self._ensure(machine, node.containerd(self._layout, self._binaries, address))

    def _start_kubelet(self, address: NodeAddress) -> None:
        machine, ctr = Machine(self._layout, address.name), self._binaries["ctr"]
        self._wait(machine, "containerd answers", partial(_succeeds, machine, ctr, "version"), "containerd")
        images.give(ctr, machine, images.pause_archive(Path(self._binaries["pause"]), machine.folder))
        self._ensure(machine, *node.components(self._layout, self._binaries, self._authority, address))
        self._ensure(machine, *node.policy(self._layout, self._authority, address))

    def _simulate(self) -> None:
        if self._simulated:
            self._ensure(self._hub, simulation.component(self._layout, self._binaries, self._authority))
        else:
            self._hub.end(simulation.NAME)
        simulation.set_nodes(self._api, self._simulated)
        if self._simulated:
            ready = partial(simulation.ready, self._api, self._simulated)
            self._wait(self._hub, "the simulated nodes are ready", ready, simulation.NAME)

    def _wait_until_ready(self) -> None:
        account = "/api/v1/namespaces/default/serviceaccounts/default"
        self._wait(
            self._hub, "the default ServiceAccount exists", lambda: self._api.get(account), "kube-controller-manager"
        )
        for address in self._nodes:
            machine = Machine(self._layout, address.name)
            self._wait(machine, "it is ready", partial(self._node_ready, address), "kubelet", "containerd")
            look_up = partial(_succeeds, machine, sys.executable, "-I", "-c", _look_up(self._families[0]))
            self._wait(machine, "DNS answers pods", look_up, "kube-proxy")
            enforced = partial(_succeeds, machine, sys.executable, "-I", "-c", _CONNECT)
            self._wait(machine, "network policies are enforced", enforced, "policy")
        self._forget_removed_nodes()

    def _node_ready(self, address: NodeAddress) -> bool:
        found = self._api.object(f"/api/v1/nodes/{address.name}")
        lease = self._api.object(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{address.name}")
        if not found or not lease:
            return False
        conditions = {condition["type"]: condition["status"] for condition in found["status"].get("conditions", ())}
        # A node says that it is ready for a while after its kubelet was killed.
        renewed = datetime.datetime.fromisoformat(lease["spec"]["renewTime"]).timestamp()
        fresh = renewed > (self._began if self._started else time.time() - node.LEASE_SECONDS)
        return conditions.get("Ready") == "True" and fresh

    def _forget_removed_nodes(self) -> None:
        ours = {address.name for address in self._nodes}
        for found in (self._api.object("/api/v1/nodes") or {"items": ()})["items"]:
            if found["metadata"]["name"] not in ours and not simulation.is_simulated(found):
                self._api.delete(f"/api/v1/nodes/{found['metadata']['name']}")

    def _wait(self, machine: Machine, what: str, met: Callable[[], object], *components: str) -> None:
        """Wait until a machine's components have come so far; not for one that has ended."""

        def ended() -> list[str]:
            processes = {name: machine.process(name) for name in components}
            return [name for name, process in processes.items() if not (process and process.alive)]

        def explain() -> str:
            return "\n".join(
                [f"{name} has ended" for name in ended()] + [tail(machine.log(name)) for name in components]
            )

        wait_until(lambda: met() or ended(), f"{machine.name}: {what}", READY_WITHIN, explain=explain)
        if ended():
            raise ClusterError(f"{machine.name}, before {what}: {explain()}")


def _look_up(family: Family) -> str:
    """Asks for the API server's name where pods ask: at the DNS service's address, which takes kube-proxy to reach."""
    kind, record = ("AF_INET", 1) if family.version == 4 else ("AF_INET6", 28)
    return f"""
import socket, struct
name = "kubernetes.default.svc.{CLUSTER_DOMAIN}"
labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
question = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack(">BHH", 0, {record}, 1)
asker = socket.socket(socket.{kind}, socket.SOCK_DGRAM)
asker.settimeout(2)
asker.sendto(question, ("{family.dns_service}", 53))
flags, _, answers = struct.unpack(">3H", asker.recv(512)[2:8])
raise SystemExit(flags & 15 != 0 or answers == 0)
"""


def _url(family: Family) -> str:
    """The API server's."""
    address = f"{family.control_plane}" if family.version == 4 else f"[{family.control_plane}]"
    return f"https://{address}:{API_PORT}"


_CONNECT = f"import socket; socket.socket(socket.AF_UNIX).connect({SOCKET!r})"
"""The controller listens once all policies are in force. Its socket's file may be there since it was killed."""


def _succeeds(machine: Machine, *command: str) -> bool:
    try:
        machine.run(*command)
    except ClusterError:
        return False
    return True
