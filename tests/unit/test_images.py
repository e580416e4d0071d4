"""The images hold what the project is tested with."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def locked() -> dict[str, set[str]]:
    """Package -> its versions in the lock file: more than one where they depend on Python's."""
    versions: dict[str, set[str]] = {}
    for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]:
        versions.setdefault(package["name"], set()).add(package.get("version", ""))
    return versions


def pinned(requirements: str) -> dict[str, set[str]]:
    """Package -> its versions in such a file."""
    versions: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / requirements).read_text(), re.MULTILINE):
        versions.setdefault(name, set()).add(version)
    return versions


def wanted(requirements: str) -> set[str]:
    return set(re.findall(r"^[a-z0-9][a-z0-9-]*", (ROOT / requirements).read_text(), re.MULTILINE))


@pytest.mark.parametrize("folder", ["images/dask", "images/spark", "images/training", "tests/training"])
def test_what_is_in_the_lock_file_has_its_version(folder: str) -> None:
    versions, known = pinned(f"{folder}/requirements.txt"), locked()
    assert versions.keys() >= wanted(f"{folder}/requirements.in")
    here = {
        distribution.name.lower().replace("_", "-") for distribution in distributions()
    }  # without trainings' extras
    differ = {name: found for name, found in versions.items() if name in here and not found <= known[name]}
    assert differ == {}, "make image-requirements"


@pytest.mark.parametrize("image", ["dask", "spark"])
def test_all_that_an_image_has_is_in_the_lock_file(image: str) -> None:
    assert pinned(f"images/{image}/requirements.txt").keys() <= locked().keys(), "make image-requirements"


def test_the_training_image_has_the_versions_of_the_training_tests() -> None:
    tested = pinned("tests/training/requirements.txt")
    differ = {
        name: found
        for name, found in pinned("images/training/requirements.txt").items()
        if not found <= tested.get(name, set())
    }
    assert differ == {}, "make image-requirements"
    assert pinned("images/training/sources.txt") == pinned("images/training/sources.in"), "make image-requirements"
