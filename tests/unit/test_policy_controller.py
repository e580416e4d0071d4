"""Who has an address is what the node's own pod network says, where it says anything."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any

import pytest

from tests.cluster.layout import Address
from tests.cluster.policy.controller import networked, settled
from tests.cluster.policy.model import Pod

FIRST, SECOND, SIX = IPv4Address("10.214.1.2"), IPv4Address("10.214.1.3"), IPv6Address("fd00:10:214:1::2")


def pod(uid: str, *addresses: Address) -> Pod:
    return Pod("jobs", uid, uid, {}, "2026-01-01T00:00:00Z", frozenset(addresses), frozenset())


def test_a_pod_has_its_addresses_before_the_api_server_says_so() -> None:
    assert settled([pod("new"), pod("old", FIRST)], {"new": frozenset({SECOND, SIX})}) == [
        pod("new", SECOND, SIX),
        pod("old", FIRST),
    ]


def test_an_address_that_was_given_again_is_its_new_pods() -> None:
    assert settled([pod("new"), pod("old", FIRST, SIX)], {"new": frozenset({FIRST})}) == [
        pod("new", FIRST),
        pod("old", SIX),
    ]


def raw(*addresses: str) -> dict[str, Any]:
    metadata = {"namespace": "jobs", "name": "a", "uid": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {
        "metadata": metadata,
        "spec": {"containers": []},
        "status": {"podIPs": [{"ip": address} for address in addresses]},
    }


@pytest.mark.parametrize(
    ("addresses", "known"),
    [
        ((), pod("a")),
        (("10.214.1.2",), pod("a", FIRST)),
        (("fd00:10:214:1::2", "10.214.1.2"), pod("a", SIX, FIRST)),
        (("10.0.0.7",), None),
    ],
)
def test_a_pod_that_is_no_part_of_the_network_is_none_of_the_rules(
    addresses: tuple[str, ...], known: Pod | None
) -> None:
    assert networked((IPv6Network("fd00:10:214::/56"), IPv4Network("10.214.0.0/16")), raw(*addresses)) == known


def test_without_word_from_the_pod_network_the_api_server_is_believed() -> None:
    pods = [pod("near", FIRST), pod("far", SECOND), pod("pending")]
    assert settled(pods, {}) == pods
