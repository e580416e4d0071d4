"""What a stranger does who follows a tutorial: each file is saved, each command typed, word for word."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from tests.docs import REPO, blocks
from tests.e2e.airflow_home import free_ports

PATIENCE = 600
"""Seconds for a whole tutorial."""


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

    It has job control, as a shell has that somebody types into.
    """
    clean = {key: value for key, value in os.environ.items() if not key.lstrip("_").startswith("AIRFLOW")}
    cache = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))  # of what `make venv` has installed
    shell = subprocess.Popen(
        ["bash", "-euxmo", "pipefail"],
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
        printed, _ = shell.communicate(script)
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


@pytest.fixture
def its_namespace(kubectl: Callable[..., str]) -> Iterator[None]:
    """It is gone afterwards, even if the tutorial did not come to its end."""
    yield
    kubectl("delete", "namespace", "jobs", "--ignore-not-found")


@pytest.mark.usefixtures("its_namespace")
def test_the_second_tutorial_runs_spark_on_kubernetes_and_leaves_nothing(
    kubernetes: Path, kubectl, image: Callable[[str], str], tmp_path: Path
) -> None:
    """On our cluster instead of kind's: it has another kubeconfig, and its image another name. Airflow gets ports that
    are free, since other tests have one too."""
    script = typed(REPO / "docs" / "tutorial-kubernetes.md")
    assert script.count("practicus-spark:tutorial") == 1
    api, worker_logs, trigger_logs = free_ports(3)
    here = {
        "KUBECONFIG": str(kubernetes),
        "PATH": f"{Path(kubectl.command[0]).parent}{os.pathsep}{os.environ['PATH']}",
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{api}/execution/",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
    }
    printed = follow(script.replace("practicus-spark:tutorial", image("spark")), tmp_path, here)
    assert "pi is roughly 3.1" in printed
    assert "Completed: driver-0 ended" in printed
    assert "\nsuccess" in printed
    assert not (tmp_path / "practicus-kind").exists()
