"""The images hold what the project is tested with."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def locked() -> dict[str, set[str]]:
    """Package -> its versions in the lock file: more than one where they depend on Python's."""
    versions: dict[str, set[str]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        versions.setdefault(package["name"], set()).add(package.get("version", ""))
    return versions


@pytest.mark.parametrize("image", ["dask", "spark"])
def test_an_image_has_the_versions_of_the_lock_file(image: str) -> None:
    requirements = (ROOT / "images" / image / "requirements.txt").read_text()
    pinned = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", requirements, re.MULTILINE))
    wanted = re.findall(r"^[a-z0-9-]+", (ROOT / "images" / image / "requirements.in").read_text(), re.MULTILINE)
    assert pinned.keys() >= set(wanted)
    differ = {name: version for name, version in pinned.items() if version not in locked()[name]}
    assert differ == {}, "make image-requirements"
