"""Where the cluster lives: folders, and the addresses on its own network.

The network is the cluster's own. The host has one end of one cable in it; everything else is in network namespaces.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path

from tests.cluster.errors import ClusterError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "practicus"
"""What is built once: binaries, images."""
REPOSITORY = Path(__file__).resolve().parents[2]

NUMBER = int(os.environ.get("PRACTICUS_TEST_CLUSTER_NUMBER") or 0)
"""From 0 to 9: clusters with different numbers can run side by side."""
HOST_INTERFACE = f"practicus{NUMBER}"
CLUSTER_DOMAIN = "cluster.local"
API_PORT = 6443
MAX_NODES = 9


@dataclass(frozen=True)
class Family:
    """The cluster's networks, by addresses of one family."""

    name: str
    fabric: Network
    pods: Network
    services: Network

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.fabric.version

    @property
    def host(self) -> Address:
        return self.fabric[1]

    @property
    def control_plane(self) -> Address:
        return self.fabric[2]

    @property
    def api_service(self) -> Address:
        return self.services[1]

    @property
    def dns_service(self) -> Address:
        return self.services[10]

    @property
    def everywhere(self) -> str:
        """The network that all addresses are of."""
        return "0.0.0.0/0" if self.version == 4 else "::/0"

    def on_fabric(self, address: Address) -> str:
        """The address as ``ip address add`` wants it."""
        return f"{address}/{self.fabric.prefixlen}"


IPV4 = Family(
    "ipv4",
    IPv4Network(f"10.{213 + 3 * NUMBER}.0.0/24"),
    IPv4Network(f"10.{214 + 3 * NUMBER}.0.0/16"),
    IPv4Network(f"10.{215 + 3 * NUMBER}.0.0/16"),
)
IPV6 = Family(
    "ipv6",
    IPv6Network(f"fd00:10:{213 + 3 * NUMBER}::/64"),
    IPv6Network(f"fd00:10:{214 + 3 * NUMBER}::/56"),
    IPv6Network(f"fd00:10:{215 + 3 * NUMBER}::/108"),  # the largest that the API server takes
)
Families = Sequence[Family]
"""Those of a cluster's addresses, the primary one first: it is that of Services, and of what tells one address only."""


def families(names: str) -> Families:
    """Those with these names, separated by commas.

    :raises ClusterError: there is no such one, or it is named twice.
    """
    known = {family.name: family for family in (IPV4, IPV6)}
    given = names.split(",")
    if len(set(given)) < len(given) or not known.keys() >= set(given):
        raise ClusterError(f"a cluster's families are ipv4, ipv6, or both with the primary one first, not {names!r}")
    return tuple(known[name] for name in given)


def joined(of: Families, what: str) -> str:
    """Each family's network, address or other attribute of this name, as options take several."""
    return ",".join(str(getattr(family, what)) for family in of)


@dataclass(frozen=True)
class Layout:
    """The one folder that holds all of a running cluster."""

    root: Path

    @classmethod
    def default(cls) -> Layout:
        """The folder named by ``PRACTICUS_TEST_CLUSTER_DIR``, else one in the cache."""
        return cls(Path(os.environ.get("PRACTICUS_TEST_CLUSTER_DIR") or CACHE / f"cluster{NUMBER or ''}").resolve())

    @property
    def kubeconfig(self) -> Path:
        """The administrator's."""
        return self.root / "kubeconfig"

    @property
    def kubectl(self) -> Path:
        """Of the cluster's version."""
        return self.root / "kubectl"

    @property
    def ctr(self) -> Path:
        """Speaks to the containerd of the node that it is run on."""
        return self.root / "ctr"

    @property
    def simulated(self) -> Path:
        """Says how many simulated nodes it was last told to have."""
        return self.root / "simulated-nodes"

    @property
    def families(self) -> Families:
        """Of the addresses in it: it was made with them, and keeps them."""
        return families(self._families.read_text()) if self._families.exists() else (IPV4,)

    def keep(self, of: Families) -> None:
        """Have it know which these are."""
        self._families.write_text(joined(of, "name"))

    @property
    def _families(self) -> Path:
        return self.root / "families"

    @property
    def pki(self) -> Path:
        return self.root / "pki"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def processes(self) -> Path:
        return self.root / "processes"

    @property
    def audit_log(self) -> Path:
        """Every request to the API server but lease renewals: one JSON object (``audit.k8s.io/v1``) a line."""
        return self.logs / "audit.jsonl"

    def machine(self, name: str) -> Path:
        """A machine's own folder."""
        return self.root / "machines" / name


@dataclass(frozen=True)
class NodeAddress:
    """The addresses that belong to the node of this number, from 1 on."""

    number: int

    @property
    def name(self) -> str:
        return f"node{self.number}"

    def address(self, family: Family) -> Address:
        """Its own."""
        return family.fabric[10 + self.number]

    def pods(self, family: Family) -> Network:
        """Where those of its pods are from."""
        prefix = family.pods.prefixlen + 8
        first = int(family.pods.network_address) + (self.number << (family.pods.max_prefixlen - prefix))
        return ip_network((first, prefix))
