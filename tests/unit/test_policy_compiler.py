"""Policies become the rules that the API's reference says they are."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.policy.compiler import compile
from tests.cluster.policy.model import Namespace, Node, Object, Pod, Policy

GOLDEN = Path(__file__).parent / "golden" / "policy"
NODE = Node("node1", (IPv4Network("10.214.1.0/24"),), (IPv4Network("10.214.0.0/16"),))
NAMESPACES = {"jobs": {"team": "data"}, "other": {"team": "web"}}

Rules = list[str] | None
"""None: everything may pass."""


DUAL = Node(
    "node1",
    (IPv6Network("fd00:10:214:1::/64"), IPv4Network("10.214.1.0/24")),
    (IPv6Network("fd00:10:214::/56"), IPv4Network("10.214.0.0/16")),
)


def pod(name: str, address: str | None, *ports: Object, namespace: str = "jobs", age: int = 0, **more: Any) -> Object:
    """A pod whose one label is its name."""
    return {
        "metadata": {
            "namespace": namespace,
            "name": name,
            "uid": f"{namespace}/{name}",
            "labels": {"app": name},
            "creationTimestamp": f"2026-01-01T00:00:{30 - age:02}Z",
        },
        "spec": {"containers": [{"name": "main", "ports": list(ports)}], **more.get("spec", {})},
        "status": {"phase": "Running", "podIPs": [{"ip": address}] if address else [], **more.get("status", {})},
    }


PODS = [
    pod("driver", "10.214.1.2", {"name": "ui", "containerPort": 4040}, {"name": "dns", "containerPort": 53}),
    pod("worker", "10.214.1.3", {"name": "ui", "containerPort": 8081}),
    pod("worker", "10.214.2.3", {"name": "dns", "containerPort": 53, "protocol": "UDP"}, namespace="other"),
    pod("client", "10.214.2.4", namespace="other"),
]


def six(pod: Object) -> Object:
    """The same pod with an address of IPv6 too, which comes first."""
    addresses = [
        {"ip": each["ip"].replace("10.", "fd00:10:", 1).replace(".", ":", 1).replace(".", "::")}
        for each in pod["status"]["podIPs"]
    ]
    return {**pod, "status": {**pod["status"], "podIPs": [*addresses, *pod["status"]["podIPs"]]}}


def policy(spec: Object, name: str = "policy", namespace: str = "jobs", node: Node = NODE) -> Policy:
    metadata = {"namespace": namespace, "name": name, "uid": f"{namespace}/{name}"}
    return Policy.parse({"metadata": metadata, "spec": spec}, node.versions)


def ruleset(*policies: Policy, pods: list[Object] = PODS, node: Node = NODE) -> str:
    parsed = [parsed for parsed in map(Pod.parse, pods) if parsed]
    return compile(policies, parsed, [Namespace(name, labels) for name, labels in NAMESPACES.items()], node)


def rules(text: str, direction: str, address: str = "10.214.1.2") -> Rules:
    """Those of a pod, without comments."""
    elements = re.search(rf"map {direction}-of {{[^}}]*?elements = {{ (.*?) }}", text, re.DOTALL)
    verdicts = dict(each.split(" : ") for each in elements[1].split(", ")) if elements else {}
    if verdicts.get(address) == "return":
        return None
    chain = verdicts[address].removeprefix("goto ")
    found = re.search(rf"chain {chain} {{\n(.*?)\n\t}}", text, re.DOTALL)
    assert found
    return [line.strip() for line in found[1].splitlines() if "#" not in line]


def both(spec: Object) -> tuple[Rules, Rules]:
    """What a policy makes of the driver's ingress and egress."""
    text = ruleset(policy(spec))
    return rules(text, "ingress"), rules(text, "egress")


def ingress(*allowed: Object) -> Rules:
    return both({"podSelector": {}, "ingress": allowed})[0]


def egress(*allowed: Object) -> Rules:
    return both({"podSelector": {}, "policyTypes": ["Egress"], "egress": allowed})[1]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"podSelector": {}}, (["drop"], None)),
        ({"podSelector": {}, "egress": []}, (["drop"], None)),
        ({"podSelector": {}, "egress": [{}]}, (["drop"], ["return", "drop"])),
        ({"podSelector": {}, "policyTypes": ["Ingress"], "egress": [{}]}, (["drop"], None)),
        ({"podSelector": {}, "policyTypes": ["Egress"], "ingress": [{}]}, (None, ["drop"])),
        ({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, (["drop"], ["drop"])),
        ({}, (["drop"], None)),
    ],
)
def test_the_directions_of_a_policy(spec: Object, expected: tuple[Rules, Rules]) -> None:
    assert both(spec) == expected


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ({}, True),
        ({"matchLabels": {"app": "driver"}}, True),
        ({"matchLabels": {"app": "driver", "more": ""}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["x", "driver"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["driver"]}]}, False),
        ({"matchExpressions": [{"key": "more", "operator": "NotIn", "values": ["x"]}]}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, True),
        ({"matchExpressions": [{"key": "more", "operator": "Exists"}]}, False),
        ({"matchExpressions": [{"key": "more", "operator": "DoesNotExist"}]}, True),
        ({"matchLabels": {"app": "driver"}, "matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, False),
    ],
)
def test_the_pods_of_a_policy(selector: Object, selected: bool) -> None:
    assert both({"podSelector": selector})[0] == (["drop"] if selected else None)


def test_a_policy_is_about_its_own_namespace() -> None:
    assert rules(ruleset(policy({"podSelector": {}}, namespace="other")), "ingress") is None


@pytest.mark.parametrize(
    ("peer", "expected"),
    [
        ({"podSelector": {}}, "{ 10.214.1.2, 10.214.1.3 }"),
        ({"podSelector": {"matchLabels": {"app": "worker"}}}, "{ 10.214.1.3 }"),
        ({"namespaceSelector": {}}, "{ 10.214.1.2, 10.214.1.3, 10.214.2.3, 10.214.2.4 }"),
        ({"namespaceSelector": {"matchLabels": {"team": "web"}}}, "{ 10.214.2.3, 10.214.2.4 }"),
        (
            {
                "namespaceSelector": {"matchLabels": {"team": "web"}},
                "podSelector": {"matchLabels": {"app": "worker"}},
            },
            "{ 10.214.2.3 }",
        ),
        ({"ipBlock": {"cidr": "10.0.0.0/8"}}, "10.0.0.0/8"),
        (
            {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.2.0/24", "10.1.0.0/16", "10.9.0.0/16"]}},
            "10.0.0.0/8 ip {field} != { 10.1.0.0/16, 10.9.0.0/16 }",
        ),
        ({"ipBlock": {"cidr": "10.9.8.7/8"}}, "10.0.0.0/8"),
    ],
)
def test_the_peers_of_a_rule(peer: Object, expected: str) -> None:
    assert ingress({"from": [peer]}) == [f"ip saddr {expected} return".replace("{field}", "saddr"), "drop"]
    assert egress({"to": [peer]}) == [f"ip daddr {expected} return".replace("{field}", "daddr"), "drop"]


def test_several_peers_are_a_union() -> None:
    web = {"namespaceSelector": {"matchLabels": {"team": "web"}}}
    block = {"ipBlock": {"cidr": "192.0.2.0/24"}}
    assert egress({"to": [{"podSelector": {}}, block, web]}) == [
        "ip daddr { 10.214.1.2, 10.214.1.3, 10.214.2.3, 10.214.2.4 } return",
        "ip daddr 192.0.2.0/24 return",
        "drop",
    ]


@pytest.mark.parametrize(
    "peer",
    [
        {"podSelector": {"matchLabels": {"app": "nobody"}}},
        {"namespaceSelector": {"matchLabels": {"team": "nobody"}}},
    ],
)
def test_a_peer_that_nobody_is_allows_nobody(peer: Object) -> None:
    assert ingress({"from": [peer]}) == ["drop"]
    assert egress({"to": [peer], "ports": [{"port": 80}]}) == ["drop"]


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ([], [""]),
        ([{"port": 80}], ["tcp dport { 80 } "]),
        (
            [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
            ["tcp dport { 53 } ", "udp dport { 53 } "],
        ),
        ([{"protocol": "SCTP", "port": 9}], ["sctp dport { 9 } "]),
        ([{"protocol": "UDP"}, {"protocol": "UDP", "port": 1}], ["meta l4proto udp "]),
        ([{"port": 8000, "endPort": 8010}, {"port": 80}], ["tcp dport { 80, 8000-8010 } "]),
        ([{"port": 8000, "endPort": 8010}, {"port": 8005, "endPort": 8020}], ["tcp dport { 8000-8020 } "]),
        ([{"port": 8000, "endPort": 8010}, {"port": 8005}], ["tcp dport { 8000-8010 } "]),
    ],
)
def test_the_ports_of_a_rule(ports: list[Object], expected: list[str]) -> None:
    assert ingress({"ports": ports}) == [*(f"{each}return" for each in expected), "drop"]
    assert egress({"ports": ports}) == [*(f"{each}return" for each in expected), "drop"]


def test_peers_and_ports_must_both_be_met() -> None:
    block = {"ipBlock": {"cidr": "192.0.2.0/24"}}
    assert ingress({"from": [{"podSelector": {}}, block], "ports": [{"port": 80}, {"protocol": "UDP"}]}) == [
        "ip saddr { 10.214.1.2, 10.214.1.3 } tcp dport { 80 } return",
        "ip saddr { 10.214.1.2, 10.214.1.3 } meta l4proto udp return",
        "ip saddr 192.0.2.0/24 tcp dport { 80 } return",
        "ip saddr 192.0.2.0/24 meta l4proto udp return",
        "drop",
    ]


def test_a_named_port_is_the_receivers() -> None:
    text = ruleset(policy({"podSelector": {}, "ingress": [{"ports": [{"port": "ui"}]}]}))
    assert rules(text, "ingress", "10.214.1.2") == ["tcp dport { 4040 } return", "drop"]
    assert rules(text, "ingress", "10.214.1.3") == ["tcp dport { 8081 } return", "drop"]
    assert ingress({"ports": [{"port": "unheard-of"}]}) == ["drop"]

    anywhere = "ip daddr . meta l4proto . th dport"
    ui = f"{anywhere} {{ 10.214.1.2 . tcp . 4040, 10.214.1.3 . tcp . 8081 }} return"
    dns = f"{anywhere} {{ 10.214.2.3 . udp . 53 }} return"
    worker = f"{anywhere} {{ 10.214.1.3 . tcp . 8081 }} return"
    assert egress({"ports": [{"port": "ui"}]}) == [ui, "drop"]
    assert egress({"ports": [{"port": "ui"}, {"port": 80}]}) == ["tcp dport { 80 } return", ui, "drop"]
    assert egress({"ports": [{"port": "dns", "protocol": "UDP"}]}) == [dns, "drop"]
    assert egress({"to": [{"ipBlock": {"cidr": "10.214.1.3/32"}}], "ports": [{"port": "ui"}]}) == [worker, "drop"]
    assert egress({"to": [{"podSelector": {"matchLabels": {"app": "worker"}}}], "ports": [{"port": "ui"}]}) == [
        worker,
        "drop",
    ]


def test_a_named_port_is_the_receivers_at_each_of_its_addresses() -> None:
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": [{"port": "ui"}]}]}
    text = ruleset(policy(spec, node=DUAL), pods=[*map(six, PODS)], node=DUAL)
    assert rules(text, "egress") == [
        "ip daddr . meta l4proto . th dport { 10.214.1.2 . tcp . 4040, 10.214.1.3 . tcp . 8081 } return",
        "ip6 daddr . meta l4proto . th dport { fd00:10:214:1::2 . tcp . 4040, fd00:10:214:1::3 . tcp . 8081 } return",
        "drop",
    ]


def test_policies_are_a_union() -> None:
    text = ruleset(
        policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}, name="nothing"),
        policy({"podSelector": {"matchLabels": {"app": "driver"}}, "ingress": [{"ports": [{"port": 80}]}]}),
    )
    assert rules(text, "ingress", "10.214.1.2") == ["tcp dport { 80 } return", "drop"]
    assert rules(text, "ingress", "10.214.1.3") == ["drop"]
    assert rules(text, "egress", "10.214.1.2") == ["drop"]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"podSelector": {}, "ingress": [{"from": [{"serviceSelector": {}}]}]}, "field serviceSelector"),
        ({"podSelector": {}, "ingress": [{"via": []}]}, "field via"),
        ({"podSelector": {}, "deny": []}, "field deny"),
        ({"podSelector": {}, "policyTypes": ["Transit"]}, "policyTypes Transit"),
        ({"podSelector": {}, "ingress": [{"ports": [{"protocol": "GRE"}]}]}, "protocol GRE"),
        ({"podSelector": {}, "ingress": [{"ports": [{"port": "ui", "endPort": 9}]}]}, "endPort 9 after port 'ui'"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}, "operator Like"),
        ({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {}, "podSelector": {}}]}]}, "a peer with an ipBlock"),
        ({"podSelector": {}, "ingress": [{"from": [{}]}]}, "a peer that says nothing"),
        ({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "here"}}]}]}, "'here' does not appear"),
        ({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "::/0"}}]}]}, "::/0: there is no IPv6 here"),
    ],
)
def test_what_is_not_understood_cuts_the_pods_off(spec: Object, reason: str) -> None:
    refused = policy(spec)
    assert refused.refused
    assert reason in refused.refused
    text = ruleset(refused, policy({"podSelector": {}, "ingress": [{}], "egress": [{}]}, name="everything"))
    assert (rules(text, "ingress"), rules(text, "egress")) == (["drop"], ["drop"])


def test_only_pods_that_live_on_the_pod_network_count() -> None:
    text = ruleset(
        policy({"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]}),
        pods=[
            pod("driver", "10.214.1.2"),
            pod("proxy", "10.213.0.11", spec={"hostNetwork": True}),
            pod("done", "10.214.1.4", status={"phase": "Succeeded"}),
            pod("failed", "10.214.1.5", status={"phase": "Failed"}),
            pod("pending", None),
            pod("six", "2001:db8::1"),
        ],
    )
    assert rules(text, "ingress") == ["ip saddr { 10.214.1.2 } return", "drop"]
    assert "10.214.1.4" not in text
    assert "2001" not in text


def test_an_address_is_the_newest_pods() -> None:
    alone = policy({"podSelector": {"matchLabels": {"app": "new"}}})
    old, new = pod("old", "10.214.1.2", age=9), pod("new", "10.214.1.2")
    assert rules(ruleset(alone, pods=[new, old]), "ingress") == ["drop"]


def test_a_family_that_pods_have_no_address_of_passes_nowhere() -> None:
    alone = Node("node1", DUAL.pods[:1], DUAL.cluster[:1])
    assert "meta nfproto ipv6 drop" in ruleset(node=NODE)
    assert "meta nfproto ipv4 drop" in ruleset(node=alone)
    assert "meta nfproto" not in ruleset(node=DUAL)
    block = policy({"podSelector": {}, "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}]}, node=alone)
    assert block.refused == "10.0.0.0/8: there is no IPv4 here"


@pytest.mark.parametrize("name", ["nothing-known", "isolated-job", "isolated-job-dual-stack"])
def test_golden(name: str) -> None:
    node = DUAL if "dual" in name else NODE
    everywhere = [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]
    if node is DUAL:
        everywhere.append({"ipBlock": {"cidr": "::/0", "except": ["fd00::/8"]}})
    isolated = policy(
        {
            "podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["driver", "worker"]}]},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": "ui"}, {"port": 7077}]}],
            "egress": [
                {"to": [{"podSelector": {}}]},
                {"to": everywhere, "ports": [{"port": 443}]},
                {"ports": [{"port": port, "protocol": name} for port in (53, 5353) for name in ("UDP", "TCP")]},
            ],
        },
        name="isolated",
        node=node,
    )
    pods = [] if name == "nothing-known" else [*PODS, pod("free", "10.214.1.9")]
    text = ruleset(*([isolated] if pods else []), pods=[*map(six, pods)] if node is DUAL else pods, node=node)
    assert text == (GOLDEN / f"{name}.nft").read_text()
