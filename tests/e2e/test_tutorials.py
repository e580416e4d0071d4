"""What a stranger does who follows a tutorial: each file is saved, each command typed, word for word."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import psutil

from tests.docs import REPO, blocks

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
