"""Which of the shipped files Python imports from: zips, eggs and wheels. Pure, of their content."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import PurePosixPath

from practicus_provider.errors import SpecError

PYTHONS = {".whl", ".egg"}
"""Suffixes of archives that are for Python alone; a zip may hold anything."""
SOURCES = (".py", ".pyc")
COMPILED = (".so", ".pyd")


def importable(files: Mapping[str, bytes]) -> list[str]:
    """Names of the archives that belong on the search path, in their order.

    :param files: path -> content; an archive in a folder is part of that, and looked at by whoever ships it.
    :raises SpecError: a wheel or an egg that Python cannot import from.
    """
    return [name for name, content in files.items() if "/" not in name and _is_importable(name, content)]


def _is_importable(name: str, content: bytes) -> bool:
    suffix = PurePosixPath(name).suffix
    if suffix not in {*PYTHONS, ".zip"}:
        return False
    try:
        members = [PurePosixPath(member) for member in zipfile.ZipFile(io.BytesIO(content)).namelist()]
    except zipfile.BadZipFile:
        members = []
    compiled = next((str(member) for member in members if member.suffix in COMPILED), None)
    holds = any(_is_module(member) for member in members)
    if suffix in PYTHONS and compiled:
        way_out = f"it holds {compiled}, which Python cannot import from an archive: name its package in requirements="
        raise SpecError("files", name, way_out)
    if suffix in PYTHONS and not holds:
        raise SpecError("files", name, "it is no zip that holds a Python module or package: build it anew")
    return holds


def _is_module(member: PurePosixPath) -> bool:
    """Whether it is a module, or makes its folder a package, where ``import`` looks first."""
    package = len(member.parts) == 2 and member.stem == "__init__"
    return member.suffix in SOURCES and (len(member.parts) == 1 or package)
