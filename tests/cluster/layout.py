"""Where the cluster lives: folders, and the addresses on its own network.

The network is the cluster's own. The host has one end of one cable in it; everything else is in network namespaces.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "practicus"
"""What is built once: binaries, images."""
REPOSITORY = Path(__file__).resolve().parents[2]

NUMBER = int(os.environ.get("PRACTICUS_TEST_CLUSTER_NUMBER") or 0)
"""From 0 to 9: clusters with different numbers can run side by side."""
HOST_INTERFACE = f"practicus{NUMBER}"
FABRIC = IPv4Network(f"10.{213 + 3 * NUMBER}.0.0/24")
PODS = IPv4Network(f"10.{214 + 3 * NUMBER}.0.0/16")
SERVICES = IPv4Network(f"10.{215 + 3 * NUMBER}.0.0/16")
CLUSTER_DOMAIN = "cluster.local"

HOST = FABRIC[1]
CONTROL_PLANE = FABRIC[2]
API_SERVICE = SERVICES[1]
DNS_SERVICE = SERVICES[10]
API_PORT = 6443
API_URL = f"https://{CONTROL_PLANE}:{API_PORT}"
MAX_NODES = 9


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

    @property
    def address(self) -> IPv4Address:
        return FABRIC[10 + self.number]

    @property
    def pods(self) -> IPv4Network:
        return IPv4Network((int(PODS.network_address) + (self.number << 8), 24))


def on_fabric(address: IPv4Address) -> str:
    """The address as ``ip address add`` wants it."""
    return str(IPv4Interface((address, FABRIC.prefixlen)))
