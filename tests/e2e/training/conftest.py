from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def python() -> str:
    """The Python that has the frameworks: the one that ``PRACTICUS_TEST_TRAINING_PYTHON`` names, else it is made."""
    if named := os.environ.get("PRACTICUS_TEST_TRAINING_PYTHON"):
        return named
    from tests.training import environment

    return str(environment.python())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.training)
