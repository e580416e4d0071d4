"""From policies to the rules of the kernel's packet filter: pure, so that every case can be tested as text."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import collapse_addresses

from tests.cluster.layout import Address, Network
from tests.cluster.policy.model import PROTOCOLS, Direction, IPBlock, Namespace, Node, Peer, Pod, Policy, Port, Rule

TABLE = "inet practicus_policy"
_DROP = "drop"
_ALLOW = "return"  # from the egress check, so that the ingress check comes next

_ALL_PORTS = 0, 65535
_IP = {4: "ip", 6: "ip6"}
"""Version -> the expression of its header."""
_SUFFIX = {4: "", 6: "-6"}
"""Version -> of the names of what is there for each."""

_Addresses = Callable[[str, Peer], frozenset[Address]]
_Range = tuple[str, int, int]  # protocol, first port, last port


def compile(policies: Iterable[Policy], pods: Iterable[Pod], namespaces: Iterable[Namespace], node: Node) -> str:
    """The ruleset that enforces the policies on a node, as one transaction of ``nft -f``.

    It lets nothing through to or from addresses of the node's range that belong to none of the pods. So without pods,
    it is what protects those pods of which nothing is known yet.
    """
    holders = _holders(pods, node)
    labels = {namespace.name: namespace.labels for namespace in namespaces}

    @functools.cache
    def addresses(namespace: str, peer: Peer) -> frozenset[Address]:
        """Those of a peer, as a policy of this namespace means it, that belong to pods."""
        if isinstance(peer, IPBlock):
            return frozenset(address for address in holders if peer.contains(address))
        if peer.namespaces is None:
            meant = {namespace}
        else:
            meant = {name for name, having in labels.items() if peer.namespaces.selects(having)}
        return frozenset(
            address for address, pod in holders.items() if pod.namespace in meant and peer.pods.selects(pod.labels)
        )

    ordered = sorted(policies, key=lambda policy: (policy.namespace, policy.name))
    own = {network.version: _within(network, holders) for network in node.pods}
    chains: list[str] = []
    directions: tuple[Direction, ...] = ("egress", "ingress")
    for direction in directions:
        bodies: dict[tuple[str, ...], str] = {}  # pods of the same rules share a chain
        verdicts: dict[int, list[str]] = {version: [] for version in own}
        for address in itertools.chain.from_iterable(own.values()):
            body = tuple(_body(ordered, holders, address, direction, addresses))
            chain = bodies.setdefault(body, f"{direction}-{len(bodies) + 1}") if body else None
            verdicts[address.version].append(f"{address} : {f'goto {chain}' if chain else _ALLOW}")
        field = "saddr" if direction == "egress" else "daddr"
        chains += (_chain(name, body) for body, name in bodies.items())
        for version, elements in verdicts.items():
            chains.append(_map(f"{direction}-of{_SUFFIX[version]}", f"ipv{version}_addr : verdict", elements))
        # Nothing is known of an address that is not in the map.
        lookups = (f"{_IP[version]} {field} vmap @{direction}-of{_SUFFIX[version]}" for version in own)
        chains.append(_chain(direction, (*lookups, _DROP)))
    for version, its in own.items():
        # A pod reaches itself, by way of a Service.
        pairs = (f"{address} . {address}" for address in its)
        chains.append(_map(f"itself{_SUFFIX[version]}", f"ipv{version}_addr . ipv{version}_addr", pairs, kind="set"))
    chains += _hooks(node)
    parts = "".join(f"{chain}\n" for chain in chains)
    # The first line is there for the second, which fails where there is no table.
    return f"table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n{parts}}}\n"


def _holders(pods: Iterable[Pod], node: Node) -> dict[Address, Pod]:
    """Who has an address: of several pods the newest, for an address is given again after its pod's end."""
    by_age = sorted(pods, key=lambda pod: (pod.created, pod.uid))
    return {address: pod for pod in by_age for address in pod.addresses if address.version in node.versions}


def _within(network: Network, addresses: Iterable[Address]) -> list[Address]:
    return sorted((address for address in addresses if address in network), key=int)


def _by_version(addresses: Iterable[Address]) -> dict[int, list[Address]]:
    """Version -> those of it, if there are any: a header has one version's alone."""
    ordered = sorted(addresses, key=lambda address: (address.version, int(address)))
    return {version: list(its) for version, its in itertools.groupby(ordered, lambda address: address.version)}


def _body(
    policies: Iterable[Policy],
    holders: Mapping[Address, Pod],
    address: Address,
    direction: Direction,
    addresses: _Addresses,
) -> Iterator[str]:
    """What is asked of a pod's packets in one direction; nothing if no policy isolates it."""
    pod = holders[address]
    isolating = [policy for policy in policies if policy.isolates(pod, direction)]
    for policy in isolating:
        yield f"# {policy.namespace}/{policy.name}" + (f" is refused: {policy.refused}" if policy.refused else "")
    if not any(policy.refused for policy in isolating):
        for policy in isolating:
            for rule in policy.rules(direction) or ():
                if direction == "ingress":
                    yield from _ingress(rule, policy.namespace, pod, addresses)
                else:
                    yield from _egress(rule, policy.namespace, holders, addresses)
    if isolating:
        yield _DROP


def _ingress(rule: Rule, namespace: str, pod: Pod, addresses: _Addresses) -> Iterator[str]:
    ports = [each for port in rule.ports for each in _ranges(port, pod)]
    if ports or not rule.ports:
        yield from _combined(_peers(rule.peers, "saddr", namespace, addresses), _ports(ports))


def _egress(rule: Rule, namespace: str, holders: Mapping[Address, Pod], addresses: _Addresses) -> Iterator[str]:
    ports = [each for port in rule.ports for each in _ranges(port, None)]
    if ports or not rule.ports:
        yield from _combined(_peers(rule.peers, "daddr", namespace, addresses), _ports(ports))
    # A name stands for another number in every pod.
    receivers = _union(addresses(namespace, peer) for peer in rule.peers) if rule.peers else holders.keys()
    for version, its in _by_version(receivers).items():
        named = {
            f"{address} . {protocol.lower()} . {number}"
            for port in rule.ports
            if isinstance(port.port, str)
            for address in its
            for protocol, number, _ in _ranges(port, holders[address])
        }
        if named:
            yield f"{_IP[version]} daddr . meta l4proto . th dport {_set(sorted(named))} {_ALLOW}"


def _ranges(port: Port, receiver: Pod | None) -> list[_Range]:
    """What a port stands for: a name for what the receiving pod calls so, which may be nothing."""
    if port.port is None:
        return [(port.protocol, *_ALL_PORTS)]
    if isinstance(port.port, int):
        return [(port.protocol, port.port, port.end or port.port)]
    wanted = port.port, port.protocol
    named = sorted(receiver.ports) if receiver else ()
    return [(protocol, number, number) for name, protocol, number in named if (name, protocol) == wanted]


def _peers(peers: tuple[Peer, ...], field: str, namespace: str, addresses: _Addresses) -> list[str]:
    """Expressions one of which is true of an allowed peer."""
    if not peers:
        return [""]
    found = []
    pods = _union(addresses(namespace, peer) for peer in peers if not isinstance(peer, IPBlock))
    for version, its in _by_version(pods).items():
        found.append(f"{_IP[version]} {field} {_set(its)}")
    for peer in peers:
        if isinstance(peer, IPBlock):
            address = f"{_IP[peer.cidr.version]} {field}"
            excepted = list(collapse_addresses(peer.excepted))  # type: ignore[type-var]  # all of one family
            found.append(f"{address} {peer.cidr}" + (f" {address} != {_set(excepted)}" if excepted else ""))
    return found


def _ports(ranges: list[_Range]) -> list[str]:
    """Expressions one of which is true of an allowed port."""
    if not ranges:
        return [""]
    found = []
    for protocol in PROTOCOLS:
        merged = _merged((first, last) for having, first, last in ranges if having == protocol)
        if merged == [_ALL_PORTS]:
            found.append(f"meta l4proto {protocol.lower()}")
        elif merged:
            numbers = (f"{first}" if first == last else f"{first}-{last}" for first, last in merged)
            found.append(f"{protocol.lower()} dport {_set(numbers)}")
    return found


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges that do not overlap: nft refuses others."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1]:
            first, previous = merged.pop()
            last = max(last, previous)
        merged.append((first, last))
    return merged


def _union(sets: Iterable[frozenset[Address]]) -> frozenset[Address]:
    return frozenset(itertools.chain.from_iterable(sets))


def _combined(peers: list[str], ports: list[str]) -> Iterator[str]:
    for peer in peers:
        for port in ports:
            yield " ".join(part for part in (peer, port, _ALLOW) if part)


def _set(elements: Iterable[object]) -> str:
    return f"{{ {', '.join(map(str, elements))} }}"


def _map(name: str, type: str, elements: Iterable[str], kind: str = "map") -> str:
    given = list(elements)
    listed = f"\t\telements = {_set(given)}\n" if given else ""
    return f"\t{kind} {name} {{\n\t\ttype {type}\n{listed}\t}}"


def _chain(name: str, rules: Iterable[str]) -> str:
    return f"\tchain {name} {{\n" + "".join(f"\t\t{rule}\n" for rule in rules) + "\t}"


def _hooks(node: Node) -> list[str]:
    """Where packets come by, as chains.

    In the forward hook, kube-proxy has put a pod's address and port in place of a Service's. What a node sends to its
    own pods, such as a kubelet's probes, passes neither hook. Connections are asked about with every packet of the side
    that opened them: so one that is no longer allowed ends at once, and only answers need to be told from requests.
    """
    ranges = {_IP[network.version]: network for network in node.pods}
    check = []
    for version in sorted({*_IP} - {*node.versions}):
        check += [
            f"# Pods have no address of version {version}, but an interface has.",
            f"meta nfproto ipv{version} drop",
        ]
    neighbours = []
    if 6 in node.versions:
        neighbours = [
            "# Who has an address on a cable is asked and told by packets, which are no connection of anybody's.",
            "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept",
        ]
        check += ["# An address that an interface gives itself tells no pod.", "ip6 saddr fe80::/10 drop"]
    check += [
        "# A pod that gives another's address as its own.",
        "fib saddr . iif oif missing drop",
        "ct state established ct direction reply accept",
        "ct state related accept",
        *(f"{_IP[version]} saddr . {_IP[version]} daddr @itself{_SUFFIX[version]} accept" for version in node.versions),
        *(f"{ip} saddr {range} jump egress" for ip, range in ranges.items()),
    ]
    ingress = (f"{ip} daddr {range} jump ingress" for ip, range in ranges.items())
    filter = "type filter hook {} priority filter; policy accept;"
    return [
        _chain("check", check),
        _chain("forward", (filter.format("forward"), "jump check", *ingress)),
        _chain("input", (filter.format("input"), "iifname lo accept", *neighbours, "jump check")),
    ]
