"""Pods that try to reach each other, for tests of what policies allow."""

from __future__ import annotations

import json
import string
import subprocess
from collections.abc import Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from tests.cluster.fixture import Kubectl

Object = dict[str, Any]
Closed = dict[str, Set[str]]
"""Client -> targets that it does not reach; it reaches all others."""

WEB, ADMIN, TOP, OUTSIDE, UDP = 8080, 8081, 8085, 8090, 5300
SERVER = {"web", "admin", "top", "outside", "udp", "service"}
"""The server's ports, and its Service, which leads to the first."""
ABROAD = {"friend", "api", "kubelet", "dns"}
TARGETS: dict[str, Set[str]] = {
    "near": SERVER | ABROAD,
    "far": SERVER,
    "friend": SERVER,
    "stranger": SERVER,
    "server": {"near", "far", "friend"},
}
"""Client -> what it tries. All but two clients are in the namespace ``here`` that has the policies; ``near`` and
``friend`` are on the server's node."""

WITHIN = 15.0
"""Seconds after which a change must have had its effect."""
RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}

LISTEN = f"""
import asyncio, signal, socket

class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, sender):
        self.transport.sendto(data, sender)

async def echo(reader, writer):
    while data := await reader.read(100):
        writer.write(data)
    writer.close()

async def main():
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, ended.set)
    everywhere = "::" if socket.has_dualstack_ipv6() else "0.0.0.0"
    for port in {(WEB, ADMIN, TOP, OUTSIDE)}:
        await asyncio.start_server(echo, None, port)
    await loop.create_datagram_endpoint(Echo, local_addr=(everywhere, {UDP}))
    await ended.wait()

asyncio.run(main())
"""

TRY = f"""
import concurrent.futures, json, re, socket, sys, time

QUESTION = b"\\0\\7\\1\\0\\0\\1" + bytes(6) + b"\\7example\\0\\0\\1\\0\\1"

def reached(kind, host, port, patience):
    if kind == "dns":
        host = re.search(r"^nameserver (\\S+)", open("/etc/resolv.conf").read(), re.MULTILINE)[1]
    give_up = time.monotonic() + patience
    while time.monotonic() < give_up:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            with socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as asker:
                asker.settimeout(patience if kind == "tcp" else 0.5)  # what is lost is sent again
                asker.connect((host, port))
                return kind == "tcp" or bool(asker.send(QUESTION) and asker.recv(1))
        except OSError:
            time.sleep(0.05)
    return False

def look(targets, wanted):
    found = pool.map(lambda name: reached(*targets[name], 3 if name in wanted else 0.5), targets)
    return [name for name, there in zip(targets, found) if there]

with concurrent.futures.ThreadPoolExecutor(16) as pool:
    for line in sys.stdin:
        targets, wanted = json.loads(line)
        give_up = time.monotonic() + {WITHIN}
        while look(targets, wanted) != wanted and time.monotonic() < give_up:
            time.sleep(0.05)
        print(json.dumps(look(targets, wanted)), flush=True)
"""
"""Waits until all is as wanted, and says what it then reaches; as often as it is asked."""

HOLD = """
import socket, sys, time
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as connection:
    connection.settimeout(1)
    try:
        while connection.send(b"?") and connection.recv(1):
            print("open", flush=True)
            time.sleep(0.05)
    except OSError:
        print("cut", flush=True)
"""

HURRY = """
import json, socket, sys, time
began, tries = time.monotonic(), []
while time.monotonic() < began + 3 and True not in tries:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 0.3).close()
        tries.append(True)
    except OSError:
        tries.append(False)
print(json.dumps(tries))
"""


@dataclass(frozen=True)
class World:
    """Two namespaces, of which policies are only in the first."""

    kubectl: Kubectl
    image: str
    here: str
    there: str
    node: str
    """Of ``near`` and the server."""
    addresses: Mapping[str, str]
    """Of the pods, by name; and of what else is a target."""
    probes: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    """Client -> the process in it that tries: starting one for every look would take most of the time."""

    def expect(self, closed: Closed) -> None:
        """Have it so within a while, and then stay so."""
        wanted = {client: sorted(targets - closed.get(client, set())) for client, targets in TARGETS.items()}
        with ThreadPoolExecutor() as pool:
            found = dict(zip(wanted, pool.map(self._reached, wanted, wanted.values()), strict=True))
        assert found == wanted

    def _reached(self, client: str, wanted: list[str]) -> list[str]:
        targets = {name: self._target(name) for name in sorted(TARGETS[client])}
        probe = self.probes.get(client)
        if not probe or probe.poll() is not None:
            probe = self.probes[client] = self.kubectl.start(*self.exec(client, TRY))
        assert probe.stdin
        assert probe.stdout
        probe.stdin.write(json.dumps([targets, wanted]) + "\n")
        reached: list[str] = json.loads(probe.stdout.readline())
        return reached

    def end_probes(self) -> None:
        """To be called in the end, and when their connections are lost."""
        for probe in self.probes.values():
            probe.communicate()
        self.probes.clear()

    def _target(self, name: str) -> tuple[str, str, int]:
        match name:
            case "dns":
                return "dns", "", 53
            case "udp":
                return "udp", self.addresses["server"], UDP
            case "web" | "admin" | "top" | "outside":
                ports = {"web": WEB, "admin": ADMIN, "top": TOP, "outside": OUTSIDE}
                return "tcp", self.addresses["server"], ports[name]
            case _:
                port = {"service": 80, "api": 443, "kubelet": 10250}.get(name, WEB)
                return "tcp", self.addresses[name], port

    def exec(self, client: str, code: str, *arguments: str) -> list[str]:
        """Arguments for kubectl."""
        namespace = self.there if client in ("friend", "stranger") else self.here
        return ["--namespace", namespace, "exec", "--stdin", client, "--", "python3", "-c", code, *arguments]

    def apply(self, *specs: Object) -> None:
        """Have these policies: ``$NAME`` in them stands for an address, ``$one`` for the length of the prefix that is a
        whole address, and ``$all`` for the block of all."""
        one, everything = ("128", "::/0") if ":" in self.addresses["server"] else ("32", "0.0.0.0/0")
        known = {**self.addresses, "one": one, "all": everything}
        filled = json.loads(string.Template(json.dumps(specs)).substitute(known))
        create(
            self.kubectl,
            *(
                {
                    "apiVersion": "networking.k8s.io/v1",
                    "kind": "NetworkPolicy",
                    "metadata": {"name": f"policy{number}", "namespace": self.here},
                    "spec": {"podSelector": {}, **spec},
                }
                for number, spec in enumerate(filled)
            ),
        )

    def delete_policies(self) -> None:
        self.kubectl("--namespace", self.here, "delete", "networkpolicies", "--all")

    def run(self, name: str, code: str, *arguments: str, **container: Any) -> None:
        """Start a pod in the namespace that has the policies."""
        create(self.kubectl, pod(self.here, name, "new", self.node, self.image, code, *arguments, **container))


def make_world(kubectl: Kubectl, image: str, here: str, there: str) -> World:
    for namespace in (here, there):
        kubectl("--namespace", namespace, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
    nodes = json.loads(kubectl("get", "nodes", "--output=json"))["items"]
    usable = [each["metadata"]["name"] for each in nodes if not each["spec"].get("taints")]
    first, last = usable[0], usable[-1]
    ports = [
        {"name": "web", "containerPort": WEB},
        {"name": "admin", "containerPort": ADMIN},
        {"name": "echo", "containerPort": UDP, "protocol": "UDP"},
    ]
    create(
        kubectl,
        pod(here, "server", "server", first, image, LISTEN, ports=ports),
        pod(here, "near", "client", first, image, LISTEN),
        pod(here, "far", "client", last, image, LISTEN),
        pod(there, "friend", "client", first, image, LISTEN),
        pod(there, "stranger", "stranger", last, image, LISTEN),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "server", "namespace": here},
            "spec": {"selector": {"app": "server"}, "ports": [{"port": 80, "targetPort": "web"}]},
        },
    )
    addresses: dict[str, str] = {}
    for namespace in (here, there):
        kubectl("--namespace", namespace, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        for each in json.loads(kubectl("--namespace", namespace, "get", "pods", "--output=json"))["items"]:
            addresses[each["metadata"]["name"]] = each["status"]["podIP"]
            if each["metadata"]["name"] == "near":
                addresses["kubelet"] = each["status"]["hostIP"]
    for name, namespace, service in (("service", here, "server"), ("api", "default", "kubernetes")):
        addresses[name] = kubectl("-n", namespace, "get", "service", service, "--output=jsonpath={.spec.clusterIP}")
    return World(kubectl, image, here, there, first, addresses)


def create(kubectl: Kubectl, *objects: Object) -> None:
    kubectl("apply", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def pod(
    namespace: str, name: str, label: str, node: str, image: str, code: str, *arguments: str, **container: Any
) -> Object:
    main = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", code, *arguments],
        "securityContext": RESTRICTED,
        "resources": {"requests": {"cpu": "50m"}},  # without any it gets next to nothing of a busy machine
        **container,
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": label}},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "nodeSelector": {"kubernetes.io/hostname": node},
            "containers": [main],
        },
    }
