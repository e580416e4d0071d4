"""The objects of the API, reduced to what decides about a packet.

Whatever is in a policy and not in here is :class:`Unsupported`: a policy that is understood only in part could allow
what its author forbids.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from tests.cluster.layout import Address, Network

Object = Mapping[str, Any]
Labels = Mapping[str, str]
Direction = Literal["ingress", "egress"]

PROTOCOLS = ("TCP", "UDP", "SCTP")


class Unsupported(Exception):
    """A policy has something in it that cannot be enforced here; the message names it."""


@dataclass(frozen=True)
class Requirement:
    """One condition on labels."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, raw: Object) -> Requirement:
        _only(raw, "key", "operator", "values")
        if raw["operator"] not in ("In", "NotIn", "Exists", "DoesNotExist"):
            raise Unsupported(f"operator {raw['operator']}")
        return cls(raw["key"], raw["operator"], frozenset(raw.get("values") or ()))

    def met_by(self, labels: Labels) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":  # so does what has no such label at all
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


@dataclass(frozen=True)
class Selector:
    """A LabelSelector; the empty one selects everything."""

    requirements: tuple[Requirement, ...] = ()

    @classmethod
    def parse(cls, raw: Object) -> Selector:
        _only(raw, "matchLabels", "matchExpressions")
        labels = (raw.get("matchLabels") or {}).items()
        return cls(
            tuple(Requirement(key, "In", frozenset({value})) for key, value in sorted(labels))
            + tuple(Requirement.parse(each) for each in raw.get("matchExpressions") or ())
        )

    def selects(self, labels: Labels) -> bool:
        return all(requirement.met_by(labels) for requirement in self.requirements)


@dataclass(frozen=True)
class IPBlock:
    """A range of addresses without some parts of it."""

    cidr: Network
    excepted: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, raw: Object) -> IPBlock:
        _only(raw, "cidr", "except")
        # The API server takes host bits, and ignores them.
        cidr, *excepted = (ip_network(each, strict=False) for each in (raw["cidr"], *(raw.get("except") or ())))
        if any(each.version != cidr.version for each in excepted):
            raise Unsupported(f"{cidr} without what is no part of it")
        return cls(cidr, tuple(excepted))

    def contains(self, address: Address) -> bool:
        return address in self.cidr and not any(address in each for each in self.excepted)


@dataclass(frozen=True)
class PodPeer:
    """Pods, by their labels and their namespaces'."""

    pods: Selector
    namespaces: Selector | None
    """None: the policy's own namespace."""

    @classmethod
    def parse(cls, raw: Object) -> PodPeer:
        _only(raw, "podSelector", "namespaceSelector")
        namespaces = raw.get("namespaceSelector")
        return cls(
            Selector.parse(raw.get("podSelector") or {}), None if namespaces is None else Selector.parse(namespaces)
        )


Peer = IPBlock | PodPeer


@dataclass(frozen=True)
class Port:
    """A port, a range of ports, or with neither all ports of a protocol."""

    protocol: str
    port: int | str | None = None
    """A name is looked up in the pod that the packet goes to."""
    end: int | None = None

    @classmethod
    def parse(cls, raw: Object) -> Port:
        _only(raw, "protocol", "port", "endPort")
        protocol, port, end = raw.get("protocol") or "TCP", raw.get("port"), raw.get("endPort")
        if protocol not in PROTOCOLS:
            raise Unsupported(f"protocol {protocol}")
        if end is not None and not isinstance(port, int):
            raise Unsupported(f"endPort {end} after port {port!r}")
        return cls(protocol, port, end)


@dataclass(frozen=True)
class Rule:
    """Allows some peers on some ports; none of either means all."""

    peers: tuple[Peer, ...] = ()
    ports: tuple[Port, ...] = ()

    @classmethod
    def parse(cls, raw: Object, peers: str) -> Rule:
        _only(raw, peers, "ports")
        return cls(
            tuple(_peer(each) for each in raw.get(peers) or ()),
            tuple(Port.parse(each) for each in raw.get("ports") or ()),
        )


@dataclass(frozen=True)
class Policy:
    """A NetworkPolicy."""

    namespace: str
    name: str
    uid: str
    selector: Selector
    ingress: tuple[Rule, ...] | None = None
    """None: it says nothing about this direction; empty: it allows nothing."""
    egress: tuple[Rule, ...] | None = None
    refused: str | None = None
    """Why it cannot be enforced. Nothing then goes to or from the pods that it selects, whatever others allow."""

    @classmethod
    def parse(cls, raw: Object, versions: Container[int] = (4,)) -> Policy:
        """What a policy says, or that it is refused.

        :param versions: of IP, that there are here.
        """
        spec = raw.get("spec") or {}
        metadata = raw["metadata"]
        policy = partial(cls, metadata["namespace"], metadata["name"], metadata["uid"])
        selector = Selector()  # where even that is not understood: all pods of the namespace
        try:
            selector = Selector.parse(spec.get("podSelector") or {})
            _only(spec, "podSelector", "policyTypes", "ingress", "egress")
            types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
            if unknown := set(types) - {"Ingress", "Egress"}:
                raise Unsupported(f"policyTypes {', '.join(sorted(unknown))}")
            ingress, egress = (
                tuple(Rule.parse(each, peers) for each in spec.get(kind.lower()) or ()) if kind in types else None
                for kind, peers in (("Ingress", "from"), ("Egress", "to"))
            )
            for rule in (*(ingress or ()), *(egress or ())):
                for peer in rule.peers:
                    if isinstance(peer, IPBlock) and peer.cidr.version not in versions:
                        raise Unsupported(f"{peer.cidr}: there is no IPv{peer.cidr.version} here")
        except (Unsupported, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(f"{error}".split()) or repr(error)  # it becomes a comment, of one line
            return policy(selector, (), (), refused=reason)
        return policy(selector, ingress, egress)

    def isolates(self, pod: Pod, direction: Direction) -> bool:
        """Whether of the pod's packets in this direction only those may pass that some policy allows."""
        in_force = self.rules(direction) is not None
        return in_force and pod.namespace == self.namespace and self.selector.selects(pod.labels)

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        return self.ingress if direction == "ingress" else self.egress


@dataclass(frozen=True)
class Pod:
    """A pod that has, or will have, addresses of its own: one of each family."""

    namespace: str
    name: str
    uid: str
    labels: Labels
    created: str
    addresses: frozenset[Address]
    ports: frozenset[tuple[str, str, int]]
    """Name, protocol and number of those that have a name."""

    @classmethod
    def parse(cls, raw: Object) -> Pod | None:
        """None for a pod that no policy is about: it uses its node's network, or has ended and lost its address."""
        metadata, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
        if spec.get("hostNetwork") or status.get("phase") in ("Succeeded", "Failed"):
            return None
        return cls(
            metadata["namespace"],
            metadata["name"],
            metadata["uid"],
            metadata.get("labels") or {},
            metadata["creationTimestamp"],
            frozenset(ip_address(each["ip"]) for each in status.get("podIPs") or ()),
            frozenset(_named_ports(spec)),
        )


@dataclass(frozen=True)
class Namespace:
    """A namespace."""

    name: str
    labels: Labels

    @classmethod
    def parse(cls, raw: Object) -> Namespace:
        return cls(raw["metadata"]["name"], raw["metadata"].get("labels") or {})


@dataclass(frozen=True)
class Node:
    """The node that the rules are for."""

    name: str
    pods: tuple[Network, ...]
    """Its pods have addresses of these ranges, one of each family, and nobody else has."""
    cluster: tuple[Network, ...]
    """Likewise those of all nodes; simulated pods have others, which nothing is sent from."""

    @property
    def versions(self) -> tuple[int, ...]:
        """Of IP, that its pods have addresses of."""
        return tuple(network.version for network in self.pods)


def _peer(raw: Object) -> Peer:
    _only(raw, "podSelector", "namespaceSelector", "ipBlock")
    if not raw:
        raise Unsupported("a peer that says nothing")
    if (block := raw.get("ipBlock")) is None:
        return PodPeer.parse(raw)
    if len(raw) > 1:
        raise Unsupported("a peer with an ipBlock and a selector")
    return IPBlock.parse(block)


def _named_ports(spec: Object) -> Iterator[tuple[str, str, int]]:
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    for container in (*sidecars, *spec["containers"]):
        for port in container.get("ports") or ():
            if name := port.get("name"):
                yield name, port.get("protocol") or "TCP", port["containerPort"]


def _only(raw: Object, *known: str) -> None:
    if unknown := sorted(raw.keys() - set(known)):
        raise Unsupported(f"field {', '.join(unknown)}")
