"""Debian packages that the cluster needs, by the file that each is there for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.layout import CACHE
from tests.cluster.process import exclusive

TO_RUN = {
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "iptables": "iptables",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "nsenter": "util-linux",
    "openssl": "openssl",
}
TO_BUILD_IMAGES = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "unshare": "util-linux",
}


def ensure(needed: Mapping[str, str]) -> None:
    """Install what is missing; where that cannot be done, say how to.

    :param needed: command or file -> package.
    """
    with exclusive(CACHE / "packages"):  # apt takes one at a time
        _install(_missing(needed), needed)


def _install(missing: list[str], needed: Mapping[str, str]) -> None:
    if not missing:
        return
    names = " ".join(missing)
    if not shutil.which("apt-get"):
        raise ClusterError(f"these Debian packages are needed, and this is no Debian: {names}")
    if os.geteuid() != 0:
        raise ClusterError(f"packages are missing: sudo apt-get install --no-install-recommends {names}")
    print(f"installing {names}", flush=True)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *missing]):
        done = subprocess.run(
            ["apt-get", *command], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise ClusterError(f"apt-get {' '.join(command)} failed:\n{done.stdout[-2000:]}")
    if still := _missing(needed):
        raise ClusterError(f"apt-get has installed {names}, but not what they are needed for: {' '.join(still)}")


def _missing(needed: Mapping[str, str]) -> list[str]:
    return sorted({package for what, package in needed.items() if not _there(what)})


def _there(what: str) -> bool:
    return Path(what).exists() if what.startswith("/") else shutil.which(what) is not None
