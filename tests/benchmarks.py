"""Runs a benchmark as its user does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from tests.cluster.layout import REPOSITORY


def measured(module: str, *args: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Its report, and of that the rows by what was measured."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    command = [sys.executable, "-m", module, "--json", *args]
    done = subprocess.run(command, cwd=REPOSITORY, env=env, check=True, stdout=subprocess.PIPE, text=True)
    report = json.loads(done.stdout)
    return report, {row["measure"]: row for row in report["measures"]}
