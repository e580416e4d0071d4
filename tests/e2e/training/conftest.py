from __future__ import annotations

import os
from pathlib import Path

import pytest

from practicus_provider.backends.base import Backend
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.local import LocalBackend
from tests.kubernetes import pods


@pytest.fixture(scope="session")
def python() -> str:
    """The Python that has the frameworks: the one that ``PRACTICUS_TEST_TRAINING_PYTHON`` names, else it is made."""
    if named := os.environ.get("PRACTICUS_TEST_TRAINING_PYTHON"):
        return named
    from tests.training import environment

    return str(environment.python())


@pytest.fixture
def local(tmp_path: Path, request: pytest.FixtureRequest) -> LocalBackend:
    return LocalBackend(tmp_path / "root", python=request.getfixturevalue("python"))


@pytest.fixture
def in_pods(request: pytest.FixtureRequest) -> KubernetesBackend:
    namespace, image = request.getfixturevalue("namespace"), request.getfixturevalue("image")
    return pods(namespace, image("training"))


@pytest.fixture(params=["local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
def backend(request: pytest.FixtureRequest) -> Backend:
    backend: Backend = request.getfixturevalue("local" if request.param == "local" else "in_pods")
    return backend


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.training)
