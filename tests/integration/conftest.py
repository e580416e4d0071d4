"""Backends for tests of plain Python processes, where a file has no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from practicus_provider.backends.base import Backend
from practicus_provider.backends.local import LocalBackend
from tests.kubernetes import pods


@pytest.fixture
def local(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "root")


@pytest.fixture(params=["local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
def backend(request: pytest.FixtureRequest) -> Backend:
    if request.param == "local":
        return request.getfixturevalue("local")
    namespace, image = request.getfixturevalue("namespace"), request.getfixturevalue("image")
    return pods(namespace, image("python"))
