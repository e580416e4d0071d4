"""The cluster in one folder: made to run, told about, taken down."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

from tests.cluster import binaries, boot, cgroups, images, network, node, packages
from tests.cluster.binaries import Binaries
from tests.cluster.errors import ClusterError
from tests.cluster.layout import CACHE, MAX_NODES, Families, Layout, NodeAddress
from tests.cluster.machine import PRIVATE, Machine
from tests.cluster.process import exclusive

NODES = 2
"""How many a new cluster has."""


class Cluster:
    """What the commands act on."""

    def __init__(self, layout: Layout) -> None:
        """:raises ClusterError: its machines could not see that folder."""
        for hidden in PRIVATE:
            if layout.root.is_relative_to(hidden) or CACHE.is_relative_to(hidden):
                raise ClusterError(
                    f"its machines have a {hidden} of their own: set PRACTICUS_TEST_CLUSTER_DIR elsewhere"
                )
        self.layout = layout

    @property
    def control_plane(self) -> Machine:
        """Where the API server is."""
        return Machine(self.layout, "control-plane")

    @property
    def nodes(self) -> list[NodeAddress]:
        """Those that it was last told to have."""
        numbers = [int(folder.name.removeprefix("node")) for folder in self.layout.root.glob("machines/node*")]
        return [NodeAddress(number) for number in sorted(numbers)]

    @property
    def machines(self) -> list[Machine]:
        """All of them, running or not."""
        nodes = [Machine(self.layout, address.name) for address in self.nodes]
        return [self.control_plane, *nodes] if self.layout.root.exists() else []

    def machine(self, name: str) -> Machine:
        """One of its machines.

        :raises ClusterError: there is none of that name.
        """
        for machine in self.machines:
            if machine.name == name:
                return machine
        raise ClusterError(f"the cluster has no machine {name!r}, but {[machine.name for machine in self.machines]}")

    @property
    def simulated(self) -> int:
        """How many simulated nodes it was last told to have."""
        return int(self.layout.simulated.read_text()) if self.layout.simulated.exists() else 0

    def up(self, nodes: int | None = None, simulated: int | None = None, families: Families | None = None) -> None:
        """Make it run, whatever there is of it; return when it is ready.

        :param nodes: how many; by default as many as it has.
        :param simulated: nodes besides that only pretend to run pods; likewise.
        :param families: of its addresses; likewise. With other ones it is built anew.
        """
        with self._locked():
            wanted = nodes if nodes is not None else len(self.nodes) or NODES
            if not 1 <= wanted <= MAX_NODES:
                raise ClusterError(f"a cluster has 1 to {MAX_NODES} nodes, not {wanted}")
            simulated = simulated if simulated is not None else self.simulated
            addresses = [NodeAddress(number + 1) for number in range(wanted)]
            # Before anything is touched: what is missing here is no reason to give a cluster up.
            packages.ensure(packages.TO_RUN)
            built = binaries.built(CACHE / "binaries", binaries.NAMES - (set() if simulated else {"kwok"}))
            families = families or self.layout.families
            if self.layout.root.exists() and families != self.layout.families:
                print("it has addresses of other families: building it anew", flush=True)
                self._destroy()
            was_there = self.layout.root.exists()
            try:
                self._boot(built, addresses, simulated, families)
            except ClusterError as error:
                if not was_there:
                    raise
                print(f"{error}\nit cannot be repaired: building it anew", flush=True)
                self._destroy()
                self._boot(built, addresses, simulated, families)

    def down(self) -> None:
        """End all of it, and leave nothing."""
        with self._locked():
            self._destroy()

    @staticmethod
    def stock() -> None:
        """Build all images, and let nodes that are new start with them."""
        packages.ensure(packages.TO_RUN | packages.TO_BUILD_IMAGES)
        images.stock(CACHE / "images", binaries.built(CACHE / "binaries", {"containerd"}))

    def load(self, image: str) -> None:
        """Give an image to every node.

        :param image: an archive's file, or the name of an image in ``images/``.
        """
        packages.ensure(packages.TO_BUILD_IMAGES)
        archive = images.archive(image, CACHE / "images")
        with self._locked():
            if not self.nodes:
                raise ClusterError("there is no cluster: python -m tests.cluster up")
            machines = [Machine(self.layout, address.name) for address in self.nodes]
            with ThreadPoolExecutor() as pool:
                list(pool.map(images.give, repeat(str(self.layout.ctr)), machines, repeat(archive)))

    def _boot(self, built: Binaries, addresses: list[NodeAddress], simulated: int, families: Families) -> None:
        for address in self.nodes:
            if address not in addresses:
                self._remove(address)
        boot.Boot(self.layout, built, addresses, simulated, families).run()

    def _destroy(self) -> None:
        for address in self.nodes:
            self._remove(address)
        self.control_plane.kill()
        network.disconnect_host(self.control_plane)
        if not network.taken():  # by another cluster of this number, whose groups these would be
            cgroups.remove(node.CGROUP_ROOT)
        if self.layout.root.exists():
            shutil.rmtree(self.layout.root)

    def _remove(self, address: NodeAddress) -> None:
        machine = Machine(self.layout, address.name)
        machine.kill()
        cgroups.remove(node.cgroup(address))
        machine.forget()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One command at a time. It is the folder above that is locked, because ``down`` removes the cluster's."""
        if os.geteuid() != 0:
            raise ClusterError("the cluster makes namespaces and mounts, so it takes root: sudo --preserve-env ...")
        with exclusive(self.layout.root.parent):
            yield
