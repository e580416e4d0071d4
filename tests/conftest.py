"""Gives every test an Airflow of its own, in a folder that is gone afterwards: before anything imports Airflow."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

import pytest

assert "airflow" not in sys.modules, "Airflow was imported before its home could be set"

for name in [name for name in os.environ if name.lstrip("_").startswith("AIRFLOW")]:
    del os.environ[name]
HOME = tempfile.mkdtemp(prefix="practicus-tests-")
os.environ |= {
    "AIRFLOW_HOME": HOME,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
}


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(HOME, ignore_errors=True)
