"""``up`` and ``down`` keep their word: shown on a cluster of these tests' own, beside whatever else runs here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import target
from tests.cluster.fixture import BOOTS_ITS_OWN
from tests.cluster.images import PREFIX, names
from tests.cluster.layout import CACHE

pytestmark = BOOTS_ITS_OWN

NUMBER = "9"
QUICK = 10.0
"""Seconds in which nothing can have been started anew."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("lifecycle") / "cluster"
    yield folder
    run(folder, "down")


@pytest.fixture(scope="module")
def before(folder: Path) -> dict[str, list[str]]:
    run(folder, "stock")  # installs what is missing
    return host()


def run(folder: Path, *arguments: str) -> str:
    return target.run(*arguments, folder=folder, number=NUMBER)


def processes(folder: Path) -> dict[str, int]:
    """Machine or component -> its process, of which none has ended."""
    status = run(folder, "status")
    return {name: int(pid) for name, pid in re.findall(r"^ *(\S+) +runs as (\d+)$", status, re.MULTILINE)}


def host() -> dict[str, list[str]]:
    """What a cluster could leave behind that carries its number, or no name at all."""
    links = subprocess.run(["ip", "-brief", "link"], check=True, capture_output=True, text=True).stdout
    interfaces = [line.split()[0] for line in links.splitlines()]
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True).stdout
    return {
        "interfaces": [name for name in interfaces if not re.match(rf"veth|practicus[^{NUMBER}]", name)],
        "iptables": [line for line in rules.splitlines() if not line.startswith("#")],
        "mounts": Path("/proc/self/mounts").read_text().splitlines(),
        "cgroups": sorted(map(str, Path("/sys/fs/cgroup").rglob(f"practicus-test-{NUMBER}"))),
        "folders": sorted(
            map(str, [*Path("/var/lib").iterdir(), *Path("/run").iterdir(), *Path("/var/log").iterdir()])
        ),
    }


def carry(folder: Path) -> list[str]:
    """Processes whose command line names the cluster's folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "cmdline").read_bytes():
                found.append(entry.name)
        except OSError:
            continue
    return found


def test_it_comes_up_and_a_second_up_leaves_it_alone(before: dict[str, list[str]], folder: Path) -> None:
    run(folder, "up", "--nodes", "1")
    first = processes(folder)
    assert {"control-plane", "etcd", "kube-apiserver", "node1", "containerd", "kubelet", "kube-proxy"} <= first.keys()
    began = time.monotonic()
    run(folder, "up")
    assert time.monotonic() - began < QUICK
    assert processes(folder) == first


def test_its_nodes_start_with_the_images_in_stock(folder: Path) -> None:
    if CACHE.stat().st_dev != folder.stat().st_dev:
        pytest.skip("they are shared as hard links, which no two file systems can do")
    ctr = (str(folder / "ctr"), "--namespace", "k8s.io")
    there = run(folder, "exec", "node1", "--", *ctr, "images", "list", "--quiet").split()
    assert {f"{PREFIX}{name}:dev" for name in names()} <= set(there)


def test_it_comes_back_after_components_and_machines_were_killed(folder: Path) -> None:
    running = processes(folder)
    for component in ("etcd", "kubelet"):
        os.kill(running[component], signal.SIGKILL)
    run(folder, "up")
    assert processes(folder).items() >= {(name, running[name]) for name in ("control-plane", "node1", "kube-proxy")}

    for machine in ("control-plane", "node1"):
        os.kill(running[machine], signal.SIGKILL)
    run(folder, "up")
    assert processes(folder).keys() == running.keys()


def test_it_leaves_nothing_behind(before: dict[str, list[str]], folder: Path) -> None:
    pids = processes(folder).values()
    run(folder, "down")
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []
    assert carry(folder) == []
    assert host() == before
    assert not folder.exists()
