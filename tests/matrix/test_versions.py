"""What holds on the newest Airflow holds on every other that is supported: unit tests of what meets Airflow, the
trigger, and a real scheduler with all that may happen to a task."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.matrix.environments import CHOSEN, REPO, environment

MEETS_AIRFLOW = re.compile(r"\b(airflow|practicus_provider\.(operators|sensors|decorators|hooks|plugins|triggers))\b")
ELSEWHERE = ("test_docs.py", "test_dependencies.py")
"""They are about this tree, and not about what is installed."""
TESTS = [
    *(
        path
        for path in sorted((REPO / "tests" / "unit").glob("test_*.py"))
        if MEETS_AIRFLOW.search(path.read_text()) and path.name not in ELSEWHERE
    ),
    REPO / "tests" / "integration" / "test_trigger.py",
    REPO / "tests" / "e2e" / "test_standalone.py",
]
OLD = ("-W", "ignore::DeprecationWarning", "-W", "ignore::FutureWarning", "-p", "no:anyio")
"""Airflow's packages of that day warn of what has been replaced since, and anyio's plugin does not fit our pytest."""


@pytest.mark.parametrize("airflow", CHOSEN)
def test_what_holds_on_the_newest_airflow_holds_on_an_older_one(airflow: str, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "AIRFLOW"))}
    command = [environment(airflow) / "python", "-m", "pytest", "-q", "-n", "2", "--no-loadscope-reorder"]
    options = ("-p", "no:cacheprovider", "--basetemp", tmp_path / "of-them", *OLD)
    done = subprocess.run([*command, *options, *TESTS], cwd=REPO, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout + done.stderr)[-20_000:]
