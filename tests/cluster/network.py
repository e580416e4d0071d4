"""The cables between the machines.

The control plane's machine holds a bridge; every other machine, and the host, has one cable to it. The host forwards
nothing, has no iptables rule of ours, and its end of the cable goes with the control plane's machine.
"""

from __future__ import annotations

import json
import subprocess
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from tests.cluster.errors import ClusterError
from tests.cluster.layout import CONTROL_PLANE, FABRIC, HOST, HOST_INTERFACE, PODS, SERVICES, NodeAddress, on_fabric
from tests.cluster.machine import Machine

_BRIDGE = "fabric"
_IN_MACHINE = "eth0"
_TO_HOST = "host"


def connect_host(hub: Machine) -> None:
    """Make the bridge on the hub, and the host's cable to it."""
    if not _has(hub, _BRIDGE):
        hub.run("ip", "link", "add", _BRIDGE, "type", "bridge")
    hub.run("ip", "address", "replace", on_fabric(CONTROL_PLANE), "dev", _BRIDGE)
    hub.run("ip", "link", "set", _BRIDGE, "up")
    if not _has(hub, _TO_HOST):
        disconnect_host(hub)
        if taken():
            raise ClusterError(
                f"{HOST_INTERFACE} belongs to another test cluster: take it down with PRACTICUS_TEST_CLUSTER_DIR set "
                "to its folder and `python -m tests.cluster down`, or set PRACTICUS_TEST_CLUSTER_NUMBER to have two"
            )
        _refuse_taken_addresses()
        _ip("link", "add", HOST_INTERFACE, "type", "veth", "peer", "name", _TO_HOST, "netns", _namespace(hub))
        _ip("link", "set", HOST_INTERFACE, "alias", str(hub.folder))
    hub.run("ip", "link", "set", _TO_HOST, "master", _BRIDGE, "up")
    _ip("address", "replace", on_fabric(HOST), "dev", HOST_INTERFACE)
    _ip("link", "set", HOST_INTERFACE, "up")


def connect(hub: Machine, machine: Machine, address: IPv4Address) -> None:
    """Plug a machine's cable in."""
    if not _has(machine, _IN_MACHINE):
        if _has(hub, machine.name):  # the kernel takes a while to take back what a machine had
            hub.run("ip", "link", "delete", machine.name)
        ends = ("name", machine.name, "netns", _namespace(hub)), ("name", _IN_MACHINE, "netns", _namespace(machine))
        _ip("link", "add", *ends[0], "type", "veth", "peer", *ends[1])
    hub.run("ip", "link", "set", machine.name, "master", _BRIDGE, "up")
    machine.run("ip", "address", "replace", on_fabric(address), "dev", _IN_MACHINE)
    machine.run("ip", "link", "set", _IN_MACHINE, "up")
    # For service addresses: the kernel asks for a route before kube-proxy's rules give the packet another destination.
    machine.run("ip", "route", "replace", "default", "via", str(CONTROL_PLANE))


def route(machine: Machine, nodes: list[NodeAddress]) -> None:
    """Tell a machine which node has which pods. Packets keep their source all the way: policies judge by it."""
    for node in nodes:
        if node.name != machine.name:
            machine.run("ip", "route", "replace", str(node.pods), "via", str(node.address))


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


def _refuse_taken_addresses() -> None:
    """Ours must not hide somebody else's network from this machine."""
    for taken in json.loads(_ip("-json", "-4", "route")):
        if taken["dst"] == "default":
            continue
        for ours in (FABRIC, PODS, SERVICES):
            if ours.overlaps(IPv4Network(taken["dst"])):
                raise ClusterError(
                    f"{ours} is the test cluster's, and this machine has a route to {taken['dst']} ({taken['dev']}): "
                    "set PRACTICUS_TEST_CLUSTER_NUMBER (0 to 9) for other networks"
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
