"""The cluster that tests and benchmarks run on: this machine's own, or the one of ``PRACTICUS_TEST_KUBECONFIG``."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.errors import ClusterError
from tests.cluster.images import PREFIX
from tests.cluster.layout import REPOSITORY, Layout
from tests.cluster.process import Process

KUBECONFIG = "PRACTICUS_TEST_KUBECONFIG"
IMAGE_PREFIX = "PRACTICUS_TEST_IMAGE_PREFIX"


def stock() -> None:
    """Have all images at hand before ours is booted, which saves each node to unpack them.

    :raises ClusterError: they cannot be built.
    """
    if not os.environ.get(KUBECONFIG):
        run("stock")


def kubeconfig() -> Path:
    """The kubeconfig of a cluster that is ready: ours is booted if it must be.

    :raises ClusterError: there is none to be had.
    """
    if given := os.environ.get(KUBECONFIG):
        path = Path(given).expanduser()
        if not path.exists():
            raise ClusterError(f"{KUBECONFIG} names {path}, and there is no such file")
        return path
    run("up")
    return Layout.default().kubeconfig


def simulate(nodes: int) -> None:
    """Have ours simulate so many nodes.

    :raises ClusterError: it is not ours.
    """
    if os.environ.get(KUBECONFIG):
        raise ClusterError(f"nodes are simulated on this machine's own cluster alone: unset {KUBECONFIG}")
    run("up", "--simulated-nodes", str(nodes))


@contextlib.contextmanager
def as_found() -> Iterator[None]:
    """Ours is down afterwards if it was not up before."""
    found = os.environ.get(KUBECONFIG) or _up()
    try:
        yield
    finally:
        if not found and _up():
            run("down")


def kubectl() -> str:
    """The program: of our cluster's version, or what is on ``PATH``.

    :raises ClusterError: there is none.
    """
    if not os.environ.get(KUBECONFIG):
        return str(Layout.default().kubectl)
    command = shutil.which("kubectl")
    if command is None:
        raise ClusterError("kubectl is not on PATH: install it")
    return command


def image(name: str) -> str:
    """Full name of an image of ``images/``, which the cluster's nodes then have or can pull.

    :raises ClusterError: it cannot be had.
    """
    if not os.environ.get(KUBECONFIG):
        run("load", name)
        return f"{PREFIX}{name}:dev"
    prefix = os.environ.get(IMAGE_PREFIX)
    if prefix is None:
        raise ClusterError(f"{IMAGE_PREFIX} must say where the cluster pulls our images from: see images/README.md")
    return f"{prefix}{name}:dev"


def audit_log() -> Path | None:
    """What our own cluster's API server writes of each request; nobody knows it of another's."""
    return None if os.environ.get(KUBECONFIG) else Layout.default().audit_log


def control_plane() -> Mapping[str, Process]:
    """Name -> process of our own cluster's control plane; empty: it is another's, whose processes are elsewhere."""
    return {} if os.environ.get(KUBECONFIG) else Cluster(Layout.default()).control_plane.processes


def _up() -> bool:
    return Cluster(Layout.default()).control_plane.init is not None


def run(*arguments: str, folder: Path | None = None, number: str = "") -> str:
    """What ``python -m tests.cluster`` prints. It is a process, so that the cluster's own are not the children of ours.

    :param folder: of a cluster of a test's own, and its number; None: the one of all other tests.
    :raises ClusterError: it failed.
    """
    own = {"PRACTICUS_TEST_CLUSTER_DIR": str(folder), "PRACTICUS_TEST_CLUSTER_NUMBER": number} if folder else {}
    command = [sys.executable, "-m", "tests.cluster", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ | own, capture_output=True, text=True)
    if done.returncode:
        raise ClusterError(f"python -m tests.cluster {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
