"""Reads the user's application from disk: what is shipped, and the command that runs it."""

from __future__ import annotations

import json
import os
import stat
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from practicus_provider.adapters import Program
from practicus_provider.errors import SpecError
from practicus_provider.function import script
from practicus_provider.plan import Here
from practicus_provider.spec import Function

SHIP_LIMIT = 64 << 20
"""Bytes that an application and its files may have in all; more belongs on a volume or behind a URL."""
_SKIPPED = {"__pycache__", ".git", ".venv", ".mypy_cache", ".pytest_cache"}
_PYTHON_SUFFIXES = {"", ".py", ".pyc", ".pyz", ".zip"}
"""Of files that Python runs: sources, bytecode, and archives with a ``__main__.py``."""

PACKAGE_ENTRY = "__practicus_main__.py"
"""Beside the ``__main__.py`` of a package, which it runs."""
RUN_PACKAGE = b'''\
"""Runs the package in whose folder this is, as ``python -m`` does: its modules may be imported by relative names."""
import os, runpy
runpy._run_module_as_main(os.path.basename(os.path.dirname(os.path.abspath(__file__))))
'''


@dataclass(frozen=True)
class Shipment:
    """The application, ready to be launched.

    :param program: the command that runs it, with its arguments.
    :param files: path below ``Here.APP`` -> content.
    :param executable: those of them that may be run as programs here, and so where the job runs.
    """

    program: Program
    files: dict[str, bytes] = field(default_factory=dict)
    executable: frozenset[str] = frozenset()


def ship(application: str | Function, args: Sequence[str], files: Sequence[str], base: Path) -> Shipment:
    """Read what the job needs.

    :param application: a file, or a folder with a ``__main__.py`` or ``main.py``, relative to ``base``; a
        ``local:///path`` that is there where the job runs; an http(s) URL that a replica fetches; or a function.
    :param files: further files and folders to ship, beside it.
    :raises SpecError: absent, unreadable, no Python, without entry point, or too large.
    """
    shipped: dict[str, bytes] = {}
    programs: set[str] = set()
    for name in files:
        programs |= _add("files", shipped, locate("files", name, base))
    if isinstance(application, Function):
        entry = f"{application.name}.py"
        _put("application", shipped, entry, script(application), application.name)
        return Shipment((Here.PYTHON, (Here.APP, "/", entry), *args), shipped, frozenset(programs))
    scheme = urlsplit(application).scheme
    if scheme == "local":
        if not application.startswith("local:///"):
            raise SpecError("application", application, "give an absolute path, as in local:///path")
        _check_python(application, application)
        return Shipment((Here.PYTHON, application.removeprefix("local://"), *args), shipped, frozenset(programs))
    if scheme in ("http", "https"):
        _check_python(application, urlsplit(application).path)
        fetch = (Here.PYTHON, "-m", "practicus_runtime.fetch", application)
        return Shipment((*fetch, *args), shipped, frozenset(programs))
    if "://" in application:
        raise SpecError("application", application, "give a path, a local:///path, or an http(s) URL")
    path = locate("application", application, base)
    if path.is_file():
        _check_python(application, path.name)
    programs |= _add("application", shipped, path)
    entry = path.name if path.is_file() else f"{path.name}/{_entry_point(application, path)}"
    if entry == f"{path.name}/__main__.py" and path.name.isidentifier() and (path / "__init__.py").is_file():
        entry = f"{path.name}/{PACKAGE_ENTRY}"
        _put("application", shipped, entry, RUN_PACKAGE, application)
    return Shipment((Here.PYTHON, (Here.APP, "/", entry), *args), shipped, frozenset(programs))


def read_settings(field_name: str, name: str, base: Path) -> dict[str, Any]:
    """The JSON object in the file of that name.

    :raises SpecError: it is absent, cannot be read, or holds something else.
    """
    path = locate(field_name, name, base)
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SpecError(field_name, name, f"give a dict, or the path of a JSON file beside the DAG: {error}") from error
    if not isinstance(found, dict):
        raise SpecError(field_name, name, f"it holds a {type(found).__name__}: give a JSON file that holds an object")
    return found


def locate(field_name: str, name: str, base: Path) -> Path | zipfile.Path:
    """The file or folder of that name. A relative one starts at ``base``; either may lead into a zip, as a DAG may be.

    :raises SpecError: there is none.
    """
    path = base / name  # an absolute name stays as it is
    found = path if path.exists() else _in_archive(path)
    if found is None:
        where = "" if Path(name).is_absolute() else "; a relative path starts at the folder of the DAG's file"
        way_out = f"there is no such file or folder; looked for {path}{where}: give an absolute one for another folder"
        raise SpecError(field_name, name, way_out)
    return found


def _in_archive(path: Path) -> zipfile.Path | None:
    """What a path means that leads into a zip, or None."""
    path = Path(os.path.normpath(path))
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    if archive is None or not zipfile.is_zipfile(archive):
        return None
    inside = path.relative_to(archive).as_posix()
    for found in (zipfile.Path(archive, inside), zipfile.Path(archive, f"{inside}/")):
        if found.exists():
            return found
    return None


def _check_python(application: str, name: str) -> None:
    if PurePosixPath(name).suffix not in _PYTHON_SUFFIXES:
        way_out = (
            "give a Python file (.py, .pyz or .zip) or a folder with a __main__.py or main.py; what is no Python can "
            "be started by one, as by subprocess.run"
        )
        raise SpecError("application", application, way_out)


def _entry_point(application: str, folder: Path | zipfile.Path) -> str:
    for name in ("__main__.py", "main.py"):
        if (folder / name).is_file():
            return name
    raise SpecError("application", application, "the folder has no __main__.py and no main.py to start")


def _add(field_name: str, shipped: dict[str, bytes], path: Path | zipfile.Path) -> set[str]:
    """Read a file, or all of a folder; the names of those that may be run as programs."""
    programs = set()
    for relative, item in _contents(path):
        if _SKIPPED.isdisjoint(relative.parts):
            try:
                content = item.read_bytes()
            except OSError as error:
                raise SpecError(field_name, str(item), f"cannot be read: {error.strerror}") from error
            _put(field_name, shipped, relative.as_posix(), content, str(item))
            if _is_program(item):
                programs.add(relative.as_posix())
    size = sum(map(len, shipped.values()))
    if size > SHIP_LIMIT:
        raise SpecError(
            field_name,
            str(path),
            f"{size >> 20} MiB are over the {SHIP_LIMIT >> 20} MiB that travel with a job; put the data on a volume, "
            "in the image, or behind a URL",
        )
    return programs


def _is_program(path: Path | zipfile.Path) -> bool:
    """Whether its owner may run it; a zip that was made on Unix tells that in the upper half of its attributes."""
    mode = path.stat().st_mode if isinstance(path, Path) else path.root.getinfo(path.at).external_attr >> 16
    return bool(mode & stat.S_IXUSR)


def _contents(path: Path | zipfile.Path) -> Iterator[tuple[PurePosixPath, Path | zipfile.Path]]:
    """Every file of a folder, or a file itself: its path from the parent folder on, and where it is."""
    if path.is_file():
        yield PurePosixPath(path.name), path
    elif isinstance(path, Path):
        for item in sorted(path.rglob("*")):
            if item.is_file():
                yield PurePosixPath(item.relative_to(path.parent).as_posix()), item
    else:
        for name in sorted(path.root.namelist()):
            if name.startswith(path.at) and not name.endswith("/"):
                yield PurePosixPath(path.name) / name.removeprefix(path.at), zipfile.Path(path.root, name)


def _put(field_name: str, shipped: dict[str, bytes], name: str, content: bytes, value: str) -> None:
    if shipped.setdefault(name, content) != content:
        raise SpecError(field_name, value, f"another file is shipped as {name} already; rename one")
