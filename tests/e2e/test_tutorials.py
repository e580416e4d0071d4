"""What a stranger does who follows a tutorial: each file is saved, each command typed, word for word."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.fixture import Kubectl
from tests.docs import REPO, blocks
from tests.e2e.airflow_home import beside_others

PATIENCE = 1200
"""Seconds for a whole tutorial, on a machine that has other things to do."""


def typed(page: Path) -> str:
    """All that a reader of a page does, as one script; without the blocks that are marked as not run."""
    steps = []
    for block in blocks(page):
        match block.mark, block.language:
            case "file", _:
                steps.append(f"cat > {block.about} <<'END OF FILE'\n{block.text}END OF FILE\n")
            case "", "sh":
                steps.append(block.text)
    return "".join(steps)


def follow(script: str, home: Path, more: Mapping[str, str]) -> str:
    """What a new shell prints that does this in a clone of the repository, for a user whose home is ``home``.

    It has job control, and what it starts can be interrupted, as of a shell that somebody types into.
    """
    clean = {key: value for key, value in os.environ.items() if not key.lstrip("_").startswith("AIRFLOW")}
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # of what `make venv` has installed
    shell = subprocess.Popen(
        ["env", "--default-signal=INT", "bash", "-euxo", "pipefail"],
        cwd=REPO,
        env=clean | {"HOME": str(home), "XDG_CACHE_HOME": cache, **more},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    timer = threading.Timer(PATIENCE, end, [shell.pid])
    timer.start()
    try:
        printed, _ = shell.communicate(f"set -m\n{script}")  # as an option, -m wants a terminal
    finally:
        timer.cancel()
        end(shell.pid)
    assert shell.returncode == 0, printed
    return printed


def end(session: int) -> None:
    """Kill what is left of a shell and of all that it has started."""
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == session:
                process.kill()


def test_the_first_tutorial_counts_words_on_this_machine_and_leaves_nothing(tmp_path: Path) -> None:
    printed = follow(typed(REPO / "docs" / "tutorial.md"), tmp_path, {})
    assert "2 workers" in printed
    assert "Completed: driver-0 ended" in printed
    assert "most frequent: to" in printed
    assert "==> " in printed  # head names each replica's log
    assert "No data found" in printed
    assert not (tmp_path / "practicus-tutorial").exists()


DOCKER = """#!/bin/sh -eu
case "$*" in
    "build --tag practicus-spark:tutorial images/spark") {cluster} load spark ;;
    *) exit 64 ;;
esac
"""
KIND = """#!/bin/sh -eu
case "$*" in
    "create cluster") install -D -m 600 {kubeconfig} ~/.kube/config ;;
    "load docker-image practicus-spark:tutorial")
        for node in {nodes}; do
            {cluster} exec $node -- {ctr} --namespace k8s.io images tag --force \\
                localhost/practicus/spark:dev docker.io/library/practicus-spark:tutorial
        done ;;
    "delete cluster") rm ~/.kube/config ;;
    *) exit 64 ;;
esac
"""
"""What the tutorial asks of Docker and kind, done to the test cluster, which is there before and after."""


@pytest.fixture
def programs(kubernetes: Path, kubectl: Kubectl, cluster: Cluster, tmp_path: Path) -> Iterator[Path]:
    """A folder with all that the tutorial wants installed; its namespace is gone afterwards, whatever it came to."""
    (bin_ := tmp_path / "bin").mkdir()
    facts = {
        "cluster": f"{sys.executable} -m tests.cluster",
        "kubeconfig": kubernetes,
        "ctr": cluster.layout.ctr,
        "nodes": " ".join(node.name for node in cluster.nodes),
    }
    for name, script in {"docker": DOCKER, "kind": KIND}.items():
        (bin_ / name).write_text(script.format_map(facts))
        (bin_ / name).chmod(0o755)
    (bin_ / "kubectl").symlink_to(cluster.layout.kubectl)
    yield bin_
    kubectl("delete", "namespace", "jobs", "--ignore-not-found")


def test_the_second_tutorial_runs_spark_on_kubernetes_and_leaves_nothing(programs: Path, tmp_path: Path) -> None:
    _, own = beside_others()
    here = {**own, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    printed = follow(typed(REPO / "docs" / "tutorial-kubernetes.md"), tmp_path, here)
    assert "pi is roughly 3.1" in printed
    assert "Completed: driver-0 ended" in printed
    assert "\nsuccess" in printed
    assert "No resources found in jobs namespace" in printed
    assert not (tmp_path / "practicus-kind").exists()
