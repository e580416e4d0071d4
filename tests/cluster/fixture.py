"""The cluster that tests run on: this machine's own, or the one of ``PRACTICUS_TEST_KUBECONFIG``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import PREFIX
from tests.cluster.layout import REPOSITORY, Layout

KUBECONFIG = "PRACTICUS_TEST_KUBECONFIG"
IMAGE_PREFIX = "PRACTICUS_TEST_IMAGE_PREFIX"


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
def kubernetes() -> Path:
    """The kubeconfig of a cluster that is ready."""
    if given := os.environ.get(KUBECONFIG):
        kubeconfig = Path(given).expanduser()
        if not kubeconfig.exists():
            pytest.fail(f"{KUBECONFIG} names {kubeconfig}, and there is no such file")
        return kubeconfig
    _cluster("up")
    return Layout.default().kubeconfig


@pytest.fixture(scope="session")
def kubectl(kubernetes: Path) -> Kubectl:
    """kubectl, for the administrator of that cluster."""
    own = Layout.default().kubectl
    command = shutil.which("kubectl") if os.environ.get(KUBECONFIG) else str(own)
    if command is None:
        _missing("kubectl is not on PATH: install it")
    return Kubectl((str(command), f"--kubeconfig={kubernetes}"))


@pytest.fixture(scope="session")
def image(kubernetes: Path) -> Callable[[str], str]:
    """Gives the full name of an image of ``images/``, which the cluster's nodes then have or can pull."""
    if os.environ.get(KUBECONFIG):
        prefix = os.environ.get(IMAGE_PREFIX)
        if prefix is None:
            _missing(f"{IMAGE_PREFIX} must say where the cluster pulls our images from: see images/README.md")
        return lambda name: f"{prefix}{name}:dev"

    def loaded(name: str) -> str:
        _cluster("load", name)
        return f"{PREFIX}{name}:dev"

    return loaded


@pytest.fixture
def machines(kubernetes: Path) -> Iterator[Cluster]:
    """The test cluster's own machines, for a test that takes something away; the cluster is whole again afterwards."""
    if os.environ.get(KUBECONFIG):
        pytest.skip("it kills parts of the cluster, which tests do to their own alone")
    try:
        yield Cluster(Layout.default())
    finally:
        repair()


def repair() -> None:
    """Bring back what a test has taken away, and wait until it is ready."""
    _cluster("up")


def _cluster(*arguments: str) -> None:
    """In a process of its own, so that the cluster's processes are not the children of the tests."""
    command = [sys.executable, "-m", "tests.cluster", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        _missing(f"python -m tests.cluster {' '.join(arguments)} failed:\n{done.stdout}")


def _missing(what: str) -> None:
    """A developer without a cluster may go on; where all must have run, nothing is skipped."""
    if os.environ.get("CI") == "true" or os.environ.get(KUBECONFIG):
        pytest.fail(what)
    pytest.skip(what)
