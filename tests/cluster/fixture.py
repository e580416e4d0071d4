"""Gives tests the cluster that they run on."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import target
from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.layout import Layout
from tests.cluster.target import KUBECONFIG

BOOTS_ITS_OWN = [
    pytest.mark.skipif(os.environ.get(KUBECONFIG) is not None, reason=f"{KUBECONFIG} names a cluster that is not ours"),
    pytest.mark.skipif(os.geteuid() != 0 and os.environ.get("CI") != "true", reason="only root can boot a cluster"),
]
"""Of tests that need another cluster than all others have, whatever that is."""


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl on the cluster."""

    command: Sequence[str]

    def __call__(self, *arguments: str, stdin: str | None = None, timeout: float = 60) -> str:
        """Return what it printed.

        :raises CalledProcessError: it failed.
        """
        return subprocess.run(
            [*self.command, *arguments], input=stdin, check=True, capture_output=True, text=True, timeout=timeout
        ).stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Have it run, to talk with it."""
        return subprocess.Popen(
            [*self.command, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[Path]:
    """The kubeconfig of a cluster that is ready. It is gone afterwards if it was not there before."""
    with target.as_found():
        with needed():
            target.stock()
            kubeconfig = target.kubeconfig()
        yield kubeconfig


@pytest.fixture(scope="session")
def kubectl(kubernetes: Path) -> Kubectl:
    """kubectl, for the administrator of that cluster."""
    with needed():
        return Kubectl((target.kubectl(), f"--kubeconfig={kubernetes}"))


@pytest.fixture(scope="session")
def image(kubernetes: Path) -> Callable[[str], str]:
    """Gives the full name of an image of ``images/``, which the cluster's nodes then have or can pull."""

    def loaded(name: str) -> str:
        with needed():
            return target.image(name)

    return loaded


@pytest.fixture(scope="session")
def cluster(kubernetes: Path) -> Cluster:
    """The test cluster's own machines, for a test that changes something on them."""
    if os.environ.get(KUBECONFIG):
        pytest.skip("it changes machines of the cluster, which tests do to their own alone")
    return Cluster(Layout.default())


@pytest.fixture
def machines(cluster: Cluster) -> Iterator[Cluster]:
    """The same, for a test that takes something away; the cluster is whole again afterwards."""
    try:
        yield cluster
    finally:
        repair()


def repair() -> None:
    """Bring back what a test has taken away, and wait until it is ready."""
    with needed():
        target.kubeconfig()


@contextlib.contextmanager
def needed() -> Iterator[None]:
    """A developer without a cluster may go on; where all must have run, nothing is skipped."""
    try:
        yield
    except ClusterError as error:
        if os.environ.get("CI") == "true" or os.environ.get(KUBECONFIG):
            pytest.fail(str(error))
        pytest.skip(str(error))
