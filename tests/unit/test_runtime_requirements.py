"""What a job requires, installed for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from practicus_runtime import requirements

from practicus_provider import runtime


def test_what_is_there_counts_as_installed_and_what_cannot_be_had_ends_the_replica_with_the_way_out(
    tmp_path: Path,
) -> None:
    wanted = ["psutil", "no-such-distribution==1"]
    done = subprocess.run(
        [sys.executable, "-m", "practicus_runtime.requirements", str(tmp_path), *wanted, "--", "never", "started"],
        env={**os.environ, "PYTHONPATH": str(runtime.FOLDER), "PIP_NO_INDEX": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[0].startswith("ERROR: Could not find a version that satisfies the requirement no-such-distribution==1")
    assert lines[-1] == (
        "cannot install psutil, no-such-distribution==1: pip ended with exit code 1. On Kubernetes a replica reaches a "
        "package index only if egress= names it"
    )


def test_a_python_that_can_install_nothing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pip", "ensurepip"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SystemExit, match=f"^cannot install a, b: {sys.executable} has neither pip nor ensurepip. Have"):
        requirements.install(("a", "b"), ".")
