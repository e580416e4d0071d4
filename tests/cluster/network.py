"""The cables between the machines.

The control plane's machine holds a bridge; every other machine, and the host, has one cable to it. The host forwards
nothing, has no iptables rule of ours, and its end of the cable goes with the control plane's machine.
"""

from __future__ import annotations

import json
import subprocess
from ipaddress import IPv4Address, IPv4Network

from tests.cluster.errors import ClusterError
from tests.cluster.layout import CONTROL_PLANE, FABRIC, HOST, HOST_INTERFACE, PODS, SERVICES, NodeAddress, on_fabric
from tests.cluster.machine import Machine
from tests.cluster.process import wait_until

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
        wait_until_disconnected()  # the kernel takes a while to take back what a machine had
        _refuse_taken_addresses()
        _ip("link", "add", HOST_INTERFACE, "type", "veth", "peer", "name", _TO_HOST, "netns", _namespace(hub))
    hub.run("ip", "link", "set", _TO_HOST, "master", _BRIDGE, "up")
    _ip("address", "replace", on_fabric(HOST), "dev", HOST_INTERFACE)
    _ip("link", "set", HOST_INTERFACE, "up")


def connect(hub: Machine, machine: Machine, address: IPv4Address) -> None:
    """Plug a machine's cable in."""
    if not _has(machine, _IN_MACHINE):
        # The hub's end of the old cable is there until the kernel has taken back the other.
        wait_until(lambda: not _has(hub, machine.name), f"the old cable of {machine.name} is gone", 20)
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


def host_connected(hub: Machine) -> bool:
    """Whether the host's cable is this hub's."""
    return hub.init is not None and _has(hub, _TO_HOST)


def wait_until_disconnected() -> None:
    """Return when the host's end of the cable is gone."""
    wait_until(
        lambda: not taken(),
        f"{HOST_INTERFACE} is gone",
        20,
        explain=lambda: (
            f"{HOST_INTERFACE} belongs to another test cluster: take it down with PRACTICUS_TEST_CLUSTER_DIR set to "
            "its folder and `python -m tests.cluster down`, or set PRACTICUS_TEST_CLUSTER_NUMBER to have two"
        ),
    )


def taken() -> bool:
    """Whether the host has a cable to a cluster of this number."""
    return any(link["ifname"] == HOST_INTERFACE for link in json.loads(_ip("-json", "link")))


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
