"""Gives every test an Airflow of its own, in a folder that is gone afterwards: before anything imports Airflow."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.fixture import image, kubectl, kubernetes, machines  # noqa: F401
from tests.kubernetes import Namespace, fresh

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kubernetes" in getattr(item, "fixturenames", ()) or "cluster" in item.path.parts:
            item.add_marker(pytest.mark.cluster)


@pytest.fixture
def namespace(kubernetes: Path) -> Iterator[Namespace]:  # noqa: F811
    """A namespace of its own on the test cluster."""
    with fresh(str(kubernetes)) as namespace:
        yield namespace
