"""Gives every test an Airflow of its own, in a folder that is gone afterwards: before anything imports Airflow."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

if worker := os.environ.get("PYTEST_XDIST_WORKER"):  # each has a cluster of its own: some tests break theirs
    os.environ.setdefault("PRACTICUS_TEST_CLUSTER_NUMBER", worker.removeprefix("gw"))

from tests.cluster.fixture import cluster, image, kubectl, kubernetes, machines  # noqa: F401
from tests.kubernetes import QUICK_JAVA, Namespace, fresh

assert "airflow" not in sys.modules, "Airflow was imported before its home could be set"

for name in [name for name in os.environ if name.lstrip("_").startswith("AIRFLOW")]:
    del os.environ[name]
HOME = tempfile.mkdtemp(prefix="practicus-tests-")
os.environ |= {
    "AIRFLOW_HOME": HOME,
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__UNIT_TEST_MODE": "True",
    "JAVA_TOOL_OPTIONS": QUICK_JAVA,
}


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(HOME, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "kubernetes" in getattr(item, "fixturenames", ()) or "cluster" in item.path.parts:
            item.add_marker(pytest.mark.cluster)


APART = re.compile(r"tests/e2e/training/(?!test_training_examples\.py)")
"""Files whose tests are long, and share nothing."""


class _ByFileAndBackend(LoadScopeScheduling):
    """A worker takes all tests of a file for one backend, because they share what they have started.

    The first worker takes them in order, all others from the last one back: so tests that load the processors, which
    come first, run beside tests that mostly wait. Where they meet, tests are taken one by one, so that no worker still
    has a whole file before it when the others have ended.
    """

    def _assign_work_unit(self, node: WorkerController) -> None:
        if node is not self.nodes[0]:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)

    def _split_scope(self, nodeid: str) -> str:
        if APART.match(nodeid):
            return nodeid
        file, _, test = nodeid.partition("::")
        backend = re.search(r"\[((?:local|kubernetes)[^]-]*)", test)
        return f"{file} {backend[1]}" if backend else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return _ByFileAndBackend(config, log)


@pytest.fixture
def namespace(kubernetes: Path) -> Iterator[Namespace]:  # noqa: F811
    """A namespace of its own on the test cluster."""
    with fresh(str(kubernetes)) as namespace:
        yield namespace
