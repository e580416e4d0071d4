"""Every backend passes the same suite: a new one is a parameter here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from practicus_provider.backends.base import Backend
from practicus_provider.backends.local import LocalBackend
from tests.kubernetes import plain


@pytest.fixture(params=["local", pytest.param("kubernetes", marks=pytest.mark.cluster)])
async def backend(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Backend]:
    """A backend that holds nothing, and must hold nothing afterwards."""
    backend: Backend
    if request.param == "local":
        backend = LocalBackend(tmp_path / "root")
    else:
        namespace, image = request.getfixturevalue("namespace"), request.getfixturevalue("image")
        backend = plain(namespace, image("python"))
    yield backend
    left = await backend.list()
    for listing in left:
        await backend.delete(listing.handle)
    assert left == []
