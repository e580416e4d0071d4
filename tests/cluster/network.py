"""The cables between the machines.

The control plane's machine holds a bridge; every other machine, and the host, has one cable to it. The host forwards
nothing, has no iptables rule of ours, and its end of the cable goes with the control plane's machine.
"""

from __future__ import annotations

import json
import subprocess
from ipaddress import ip_network
from typing import Any

from tests.cluster.errors import ClusterError
from tests.cluster.layout import HOST_INTERFACE, IPV6, Address, Families, Family, NodeAddress
from tests.cluster.machine import Machine

_BRIDGE = "fabric"
_IN_MACHINE = "eth0"
_TO_HOST = "host"


def connect_host(hub: Machine, families: Families) -> None:
    """Make the bridge on the hub, and the host's cable to it."""
    _prepare(hub, families)
    if not _has(hub, _BRIDGE):
        hub.run("ip", "link", "add", _BRIDGE, "type", "bridge")
    for family in families:
        hub.run("ip", *_address(family, family.control_plane), "dev", _BRIDGE)
    hub.run("ip", "link", "set", _BRIDGE, "up")
    if not _has(hub, _TO_HOST):
        disconnect_host(hub)
        if taken():
            raise ClusterError(
                f"{HOST_INTERFACE} belongs to another test cluster: take it down with PRACTICUS_TEST_CLUSTER_DIR set "
                "to its folder and `python -m tests.cluster down`, or set PRACTICUS_TEST_CLUSTER_NUMBER to have two"
            )
        _refuse_taken_addresses(families)
        _ip("link", "add", HOST_INTERFACE, "type", "veth", "peer", "name", _TO_HOST, "netns", _namespace(hub))
        _ip("link", "set", HOST_INTERFACE, "alias", str(hub.folder))
    hub.run("ip", "link", "set", _TO_HOST, "master", _BRIDGE, "up")
    for family in families:
        _ip(*_address(family, family.host), "dev", HOST_INTERFACE)
    _ip("link", "set", HOST_INTERFACE, "up")


def connect(hub: Machine, machine: Machine, node: NodeAddress, families: Families) -> None:
    """Plug a node's cable in."""
    _prepare(machine, families)
    if not _has(machine, _IN_MACHINE):
        if _has(hub, machine.name):  # the kernel takes a while to take back what a machine had
            hub.run("ip", "link", "delete", machine.name)
        ends = ("name", machine.name, "netns", _namespace(hub)), ("name", _IN_MACHINE, "netns", _namespace(machine))
        _ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
    hub.run("ip", "link", "set", machine.name, "master", _BRIDGE, "up")
    for family in families:
        machine.run("ip", *_address(family, node.address(family)), "dev", _IN_MACHINE)
    machine.run("ip", "link", "set", _IN_MACHINE, "up")
    # For service addresses: the kernel asks for a route before kube-proxy's rules give the packet another destination.
    for family in families:
        machine.run("ip", "route", "replace", family.everywhere, "via", str(family.control_plane))


def route(machine: Machine, nodes: list[NodeAddress], families: Families) -> None:
    """Tell a machine which node has which pods. Packets keep their source all the way: policies judge by it."""
    for node in nodes:
        if node.name != machine.name:
            for family in families:
                machine.run("ip", "route", "replace", str(node.pods(family)), "via", str(node.address(family)))


def disconnect_host(hub: Machine) -> None:
    """Take the host's end of this hub's cable away; with the hub's own namespace it would go when the kernel likes."""
    link = _host_end()
    if link is None or link.get("ifalias") != str(hub.folder):
        return
    try:
        _ip("link", "delete", HOST_INTERFACE)
    except ClusterError:
        if taken():  # else the kernel was quicker
            raise


def taken() -> bool:
    """Whether the host has a cable to a cluster of this number."""
    return _host_end() is not None


def _host_end() -> dict[str, Any] | None:
    links: list[dict[str, Any]] = json.loads(_ip("-json", "link"))
    return next((link for link in links if link["ifname"] == HOST_INTERFACE), None)


def _prepare(machine: Machine, families: Families) -> None:
    """Have a machine forward IPv6 as it does IPv4, and use an address at once: by default it first asks for a second
    whether another one has it (duplicate address detection)."""
    if IPV6 in families:
        settings = {"all/forwarding": 1, "default/accept_dad": 0}
        machine.run("sh", "-ec", "\n".join(f"echo {v} > /proc/sys/net/ipv6/conf/{k}" for k, v in settings.items()))


def _address(family: Family, address: Address) -> list[str]:
    return ["address", "replace", family.on_fabric(address), *(["nodad"] if family is IPV6 else [])]


def _refuse_taken_addresses(families: Families) -> None:
    """Ours must not hide somebody else's network from this machine."""
    for family in families:
        for taken in json.loads(_ip("-json", f"-{family.version}", "route")):
            if taken["dst"] == "default":
                continue
            for ours in (family.fabric, family.pods, family.services):
                if ours.overlaps(ip_network(taken["dst"])):
                    raise ClusterError(
                        f"{ours} is the test cluster's, and this machine has a route to {taken['dst']} "
                        f"({taken['dev']}): set PRACTICUS_TEST_CLUSTER_NUMBER (0 to 9) for other networks"
                    )


def _has(machine: Machine, name: str) -> bool:
    return any(link["ifname"] == name for link in json.loads(machine.run("ip", "-json", "link")))


def _namespace(machine: Machine) -> str:
    assert machine.init, f"{machine.name} does not run"
    return str(machine.init.pid)


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"ip {' '.join(arguments)} failed: {done.stderr.strip()}")
    return done.stdout
