"""What NetworkPolicies allow passes, and nothing else does; with ``PRACTICUS_TEST_KUBECONFIG``, on your own cluster.

The cases are those of Kubernetes' own tests of network policies. In every one of them all clients try all targets, at
first without policies: so nothing is closed for another reason than the case's.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Set

import pytest

from tests.cluster.fixture import Kubectl
from tests.cluster.layout import IPV4, REPOSITORY, Layout
from tests.cluster.machine import Machine
from tests.cluster.process import wait_until
from tests.cluster.target import KUBECONFIG
from tests.cluster.tests.probing import (
    ABROAD,
    ADMIN,
    HOLD,
    HURRY,
    LISTEN,
    SERVER,
    TARGETS,
    TOP,
    UDP,
    WEB,
    WITHIN,
    Closed,
    Object,
    World,
    create,
    make_world,
)

ours = pytest.mark.skipif(os.environ.get(KUBECONFIG) is not None, reason="this is about our own test cluster")


@pytest.fixture(scope="module")
def permanent(kubectl: Kubectl, image: Callable[[str], str]) -> Iterator[World]:
    suffix = uuid.uuid4().hex[:8]
    spaces = {"here": f"practicus-here-{suffix}", "there": f"practicus-there-{suffix}"}
    for team, name in spaces.items():
        labels = {"practicus-team": team, "pod-security.kubernetes.io/enforce": "restricted"}
        create(kubectl, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    try:
        world = make_world(kubectl, image("python"), **spaces)
        yield world
        world.end_probes()
    finally:
        kubectl("delete", "namespace", *spaces.values(), "--wait=false")


@pytest.fixture
def world(permanent: World) -> Iterator[World]:
    """Without policies before and after: so every one has an effect, and so has its deletion."""
    permanent.expect({})
    yield permanent
    permanent.delete_policies()


# ---- the table

TO_SERVER: Object = {"podSelector": {"matchLabels": {"app": "server"}}}
OF_CLIENTS: Object = {"podSelector": {"matchLabels": {"app": "client"}}}
THERE: Object = {"namespaceSelector": {"matchLabels": {"practicus-team": "there"}}}
HERE: Object = {"namespaceSelector": {"matchLabels": {"practicus-team": "here"}}}
CLIENT: Object = {"podSelector": {"matchLabels": {"app": "client"}}}


def expression(key: str, operator: str, *values: str) -> Object:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": values} if values else {})}]}


def into(*peers: Object, ports: Iterable[Object] = ()) -> Object:
    """A policy that lets these reach the server."""
    return {**TO_SERVER, "ingress": [{"from": list(peers), "ports": list(ports)}]}


def out(*peers: Object, ports: Iterable[Object] = ()) -> Object:
    """A policy that lets the clients of its namespace reach these."""
    return {**OF_CLIENTS, "policyTypes": ["Egress"], "egress": [{"to": list(peers), "ports": list(ports)}]}


def only(*clients: str, ports: Set[str] = SERVER) -> Closed:
    """The server's ports are closed but to these clients, and but for these ports."""
    return {name: SERVER - ports if name in clients else SERVER for name in TARGETS if name != "server"}


def reaching(*targets: str) -> Closed:
    """The clients that the policies are about reach these targets only."""
    return {name: TARGETS[name] - set(targets) for name in ("near", "far")}


NOTHING = only() | {"near": SERVER | ABROAD, "server": TARGETS["server"]}
WEB_ALONE = {"web", "service"}
CASES: dict[str, tuple[list[Object], Closed]] = {
    # Default deny.
    "nobody reaches pods": ([{}], only() | {"server": {"near", "far"}}),
    "nobody reaches the server": ([TO_SERVER], only()),
    "pods reach nobody": (
        [{"policyTypes": ["Egress"]}],
        {"near": SERVER | ABROAD, "far": SERVER, "server": {"near", "far", "friend"}},
    ),
    "neither": ([{"policyTypes": ["Ingress", "Egress"]}], NOTHING),
    "egress that is given without policyTypes is ruled too": (
        [{**OF_CLIENTS, "egress": [{}]}],
        {"server": {"near", "far"}},
    ),
    "policyTypes come before what is given": (
        [{**TO_SERVER, "policyTypes": ["Egress"], "ingress": []}],
        {"server": TARGETS["server"]},
    ),
    "allow all": ([{"ingress": [{}]}, {}], {}),
    # Peers.
    "from all pods of the namespace": ([into({"podSelector": {}})], only("near", "far")),
    "from a label, in the own namespace": ([into(CLIENT)], only("near", "far")),
    "from a label that nobody has": ([into({"podSelector": {"matchLabels": {"app": "nobody"}}})], only()),
    "from another namespace": ([into(THERE)], only("friend", "stranger")),
    "from all namespaces": ([into({"namespaceSelector": {}})], {}),
    "from some pods of another namespace": ([into(THERE | CLIENT)], only("friend")),
    "from some pods of all namespaces": ([into({"namespaceSelector": {}} | CLIENT)], only("near", "far", "friend")),
    "from either of two peers": ([into(THERE, CLIENT)], only("near", "far", "friend", "stranger")),
    "to pods of another namespace": ([out(THERE)], reaching("friend")),
    # Labels.
    "In": ([into({"namespaceSelector": expression("practicus-team", "In", "x", "there")})], only("friend", "stranger")),
    "NotIn": ([into(THERE | {"podSelector": expression("app", "NotIn", "x", "client")})], only("stranger")),
    "Exists": ([into({"podSelector": expression("app", "Exists")})], only("near", "far")),
    "DoesNotExist": ([into({"podSelector": expression("app", "DoesNotExist")})], only()),
    "a selector of two expressions": (
        [{"podSelector": expression("app", "In", "server", "client") | {"matchLabels": {"app": "server"}}}],
        only(),
    ),
    # Addresses.
    "from a block": ([into({"ipBlock": {"cidr": "$friend/$one"}})], only("friend")),
    "from a block with exceptions": (
        [into({"ipBlock": {"cidr": "$all", "except": ["$friend/$one", "$near/$one"]}})],
        only("far", "stranger"),
    ),
    "to a block": ([out({"ipBlock": {"cidr": "$friend/$one"}})], reaching("friend")),
    "to a block with an exception": (
        [out({"ipBlock": {"cidr": "$all", "except": ["$server/$one"]}})],
        reaching(*ABROAD),
    ),
    # Ports.
    "a port": ([into(ports=[{"port": ADMIN}])], only("near", "far", "friend", "stranger", ports={"admin"})),
    "two ports": ([into(CLIENT, ports=[{"port": ADMIN}, {"port": TOP}])], only("near", "far", ports={"admin", "top"})),
    "a named port": ([into(CLIENT, ports=[{"port": "web"}])], only("near", "far", ports=WEB_ALONE)),
    "a named UDP port": (
        [into(CLIENT, ports=[{"port": "echo", "protocol": "UDP"}])],
        only("near", "far", ports={"udp"}),
    ),
    "a port's name with another protocol": ([into(CLIENT, ports=[{"port": "web", "protocol": "UDP"}])], only()),
    "a range of ports": (
        [into(CLIENT, ports=[{"port": ADMIN, "endPort": TOP}])],
        only("near", "far", ports={"admin", "top"}),
    ),
    "ranges that overlap": (
        [into(CLIENT, ports=[{"port": WEB, "endPort": TOP - 1}, {"port": ADMIN, "endPort": TOP}])],
        only("near", "far", ports=WEB_ALONE | {"admin", "top"}),
    ),
    "a UDP port": ([into(CLIENT, ports=[{"port": UDP, "protocol": "UDP"}])], only("near", "far", ports={"udp"})),
    "all TCP ports": ([into(CLIENT, ports=[{"protocol": "TCP"}])], only("near", "far", ports=SERVER - {"udp"})),
    "an SCTP port": ([into(CLIENT, ports=[{"port": WEB, "protocol": "SCTP"}])], only()),
    "peers and ports of one rule are both asked": (
        [{**TO_SERVER, "ingress": [{"from": [CLIENT], "ports": [{"port": WEB}]}, {"from": [THERE]}]}],
        only("friend", "stranger") | {"near": SERVER - WEB_ALONE, "far": SERVER - WEB_ALONE},
    ),
    "to a port": ([out(ports=[{"port": ADMIN}])], reaching("admin")),
    "to a named port": ([out({"podSelector": {}}, ports=[{"port": "web"}])], reaching(*WEB_ALONE)),
    # A Service is the pods behind it, with their ports.
    "to a Service's pods": ([out(TO_SERVER, ports=[{"port": WEB}])], reaching(*WEB_ALONE)),
    "a Service's own port means nothing": ([out(ports=[{"port": 80}])], reaching()),
    # Names.
    "names and nothing else": ([out(ports=[{"port": 53, "protocol": "UDP"}, {"port": 53}])], reaching("dns")),
    # Policies add up, and both ends must agree.
    "two policies allow what either does": (
        [into(CLIENT, ports=[{"port": WEB}]), into(THERE, ports=[{"port": ADMIN}])],
        only("near", "far", ports=WEB_ALONE) | {"friend": SERVER - {"admin"}, "stranger": SERVER - {"admin"}},
    ),
    "egress that the receiver denies": ([TO_SERVER, out(TO_SERVER)], only() | {"near": SERVER | ABROAD}),
    "ingress that the sender denies": ([into(CLIENT), out(THERE)], only() | reaching("friend")),
}


@pytest.mark.parametrize("case", CASES)
def test_what_policies_allow(world: World, case: str) -> None:
    specs, closed = CASES[case]
    world.apply(*specs)
    world.expect(closed)


# ---- changes


def test_an_edited_policy_takes_effect(world: World) -> None:
    world.apply(into(CLIENT))
    world.expect(only("near", "far"))
    world.apply(into(THERE))
    world.expect(only("friend", "stranger"))


def test_a_pods_new_labels_take_effect_as_peer_and_as_target(world: World) -> None:
    world.apply(into(CLIENT), {"podSelector": {"matchLabels": {"app": "suspect"}}, "policyTypes": ["Egress"]})
    world.expect(only("near", "far"))
    label = "--namespace", world.here, "label", "--overwrite", "pod", "near"
    world.kubectl(*label, "app=suspect")
    try:
        world.expect(only("far") | {"near": SERVER | ABROAD})
    finally:
        world.kubectl(*label, "app=client")
    world.expect(only("near", "far"))


def test_a_namespaces_new_labels_take_effect(world: World) -> None:
    world.apply(into(THERE))
    world.expect(only("friend", "stranger"))
    label = "label", "--overwrite", "namespace", world.there
    world.kubectl(*label, "practicus-team=elsewhere")
    try:
        world.expect(only())
    finally:
        world.kubectl(*label, "practicus-team=there")


def test_a_new_pod_is_never_unprotected_and_its_probes_pass(world: World) -> None:
    world.run("open", HURRY, world.addresses["friend"], str(WEB))
    assert tries(world, "open")[-1]
    world.apply({"policyTypes": ["Ingress", "Egress"]})
    world.expect(NOTHING)
    world.run("probed", LISTEN, readinessProbe={"tcpSocket": {"port": WEB}, "periodSeconds": 1})
    world.run("hurried", HURRY, world.addresses["friend"], str(WEB))
    assert set(tries(world, "hurried")) == {False}
    world.kubectl("--namespace", world.here, "wait", "--for=condition=Ready", "pod/probed", "--timeout=30s")
    world.kubectl("--namespace", world.here, "delete", "pod", "open", "probed", "hurried", "--wait=false")


def tries(world: World, name: str) -> list[bool]:
    """Whether each try of a pod to connect, from its first moment on, was a success."""
    world.kubectl(
        *("--namespace", world.here, "wait", f"pod/{name}", "--for=jsonpath={.status.phase}=Succeeded"),
        "--timeout=30s",
    )
    found: list[bool] = json.loads(world.kubectl("--namespace", world.here, "logs", name))
    return found


# ---- our own controller


@ours
def test_a_connection_ends_when_it_is_no_longer_allowed(world: World) -> None:
    with world.kubectl.start(*world.exec("near", HOLD, world.addresses["server"], str(WEB))) as held:
        assert held.stdout
        assert held.stdout.readline() == "open\n"
        world.apply({})
        assert held.stdout.read().splitlines()[-1] == "cut"


@ours
def test_what_it_cannot_enforce_cuts_the_pods_off_and_is_said(world: World) -> None:
    if Layout.default().families != (IPV4,):
        pytest.skip("IPv6 is what it cannot enforce, where there is none")
    world.apply(into({"ipBlock": {"cidr": "2001:db8::/32"}}), {"ingress": [{}]})
    world.expect(only() | {"server": TARGETS["server"]})
    events = "--namespace", world.here, "events", "--for=networkpolicy/policy0", "--output=json"
    wait_until(lambda: json.loads(world.kubectl(*events))["items"], "there is an event", WITHIN)
    (event,) = json.loads(world.kubectl(*events))["items"]
    assert (event["type"], event["reason"], event["message"]) == (
        "Warning",
        "Refused",
        "cannot be enforced, so the pods that it selects are cut off: 2001:db8::/32: there is no IPv6 here",
    )


@ours
def test_rules_outlive_their_controller_and_the_api_server(world: World) -> None:
    world.apply(into(CLIENT))
    world.expect(only("near", "far"))
    kill("node1", "policy")
    kill("node2", "policy")
    world.expect(only("near", "far"))
    kill("control-plane", "kube-apiserver")
    world.end_probes()
    subprocess.run([sys.executable, "-m", "tests.cluster", "up"], cwd=REPOSITORY, check=True, capture_output=True)
    world.expect(only("near", "far"))
    world.apply(into(THERE))
    world.expect(only("friend", "stranger"))


def kill(machine: str, component: str) -> None:
    process = Machine(Layout.default(), machine).process(component)
    assert process
    process.kill()
