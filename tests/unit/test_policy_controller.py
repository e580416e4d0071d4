"""Who has an address is what the node's own pod network says, where it says anything."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from tests.cluster.policy.controller import networked, settled
from tests.cluster.policy.model import Pod

FIRST, SECOND = IPv4Address("10.214.1.2"), IPv4Address("10.214.1.3")


def pod(uid: str, address: IPv4Address | None) -> Pod:
    return Pod("jobs", uid, uid, {}, "2026-01-01T00:00:00Z", address, frozenset())


def test_a_pod_has_its_address_before_the_api_server_says_so() -> None:
    assert settled([pod("new", None), pod("old", FIRST)], {"new": SECOND}) == [pod("new", SECOND), pod("old", FIRST)]


def test_an_address_that_was_given_again_is_its_new_pods() -> None:
    assert settled([pod("new", None), pod("old", FIRST)], {"new": FIRST}) == [pod("new", FIRST), pod("old", None)]


def raw(address: str | None) -> dict[str, Any]:
    metadata = {"namespace": "jobs", "name": "a", "uid": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {
        "metadata": metadata,
        "spec": {"containers": []},
        "status": {"podIPs": [{"ip": address}] if address else []},
    }


@pytest.mark.parametrize(
    ("address", "known"), [(None, pod("a", None)), ("10.214.1.2", pod("a", FIRST)), ("10.0.0.7", None)]
)
def test_a_pod_that_is_no_part_of_the_network_is_none_of_the_rules(address, known) -> None:
    assert networked(IPv4Network("10.214.0.0/16"), raw(address)) == known


def test_without_word_from_the_pod_network_the_api_server_is_believed() -> None:
    pods = [pod("near", FIRST), pod("far", SECOND), pod("pending", None)]
    assert settled(pods, {}) == pods
