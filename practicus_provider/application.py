"""Reads the user's application from disk: what is shipped, and the command that runs it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
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


@dataclass(frozen=True)
class Shipment:
    """The application, ready to be launched.

    :param program: the command that runs it, with its arguments.
    :param files: path below ``Here.APP`` -> content.
    """

    program: Program
    files: dict[str, bytes] = field(default_factory=dict)


def ship(application: str | Function, args: Sequence[str], files: Sequence[str], base: Path) -> Shipment:
    """Read what the job needs.

    :param application: a file, or a folder with a ``__main__.py`` or ``main.py``, relative to ``base``; a
        ``local:///path`` that is there where the job runs; an http(s) URL that a replica fetches; or a function.
    :param files: further files and folders to ship, beside it.
    :raises SpecError: absent, unreadable, without entry point, or too large.
    """
    shipped: dict[str, bytes] = {}
    for name in files:
        _add("files", shipped, locate("files", name, base))
    if isinstance(application, Function):
        entry = f"{application.name}.py"
        _put("application", shipped, entry, script(application), application.name)
        return Shipment((Here.PYTHON, (Here.APP, "/", entry), *args), shipped)
    scheme = urlsplit(application).scheme
    if scheme == "local":
        if not application.startswith("local:///"):
            raise SpecError("application", application, "give an absolute path, as in local:///path")
        return Shipment((Here.PYTHON, application.removeprefix("local://"), *args), shipped)
    if scheme in ("http", "https"):
        fetch = (Here.PYTHON, "-m", "practicus_runtime.fetch", application)
        return Shipment((*fetch, *args), shipped)
    if "://" in application:
        raise SpecError("application", application, "give a path, a local:///path, or an http(s) URL")
    path = locate("application", application, base)
    _add("application", shipped, path)
    entry = path.name if path.is_file() else f"{path.name}/{_entry_point(application, path)}"
    return Shipment((Here.PYTHON, (Here.APP, "/", entry), *args), shipped)


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


def locate(field_name: str, name: str, base: Path) -> Path:
    """The file or folder of that name, beside the DAG if it is relative.

    :raises SpecError: there is none.
    """
    path = Path(name) if Path(name).is_absolute() else base / name
    if not path.exists():
        raise SpecError(field_name, name, f"there is no such file or folder; looked for {path}")
    return path


def _entry_point(application: str, folder: Path) -> str:
    for name in ("__main__.py", "main.py"):
        if (folder / name).is_file():
            return name
    raise SpecError("application", application, "the folder has no __main__.py and no main.py to start")


def _add(field_name: str, shipped: dict[str, bytes], path: Path) -> None:
    found = [path] if path.is_file() else [item for item in sorted(path.rglob("*")) if item.is_file()]
    for item in found:
        relative = item.relative_to(path.parent)
        if _SKIPPED.isdisjoint(relative.parts):
            try:
                content = item.read_bytes()
            except OSError as error:
                raise SpecError(field_name, str(item), f"cannot be read: {error.strerror}") from error
            _put(field_name, shipped, relative.as_posix(), content, str(item))
    size = sum(map(len, shipped.values()))
    if size > SHIP_LIMIT:
        raise SpecError(
            field_name,
            str(path),
            f"{size >> 20} MiB are over the {SHIP_LIMIT >> 20} MiB that travel with a job; put the data on a volume, "
            "in the image, or behind a URL",
        )


def _put(field_name: str, shipped: dict[str, bytes], name: str, content: bytes, value: str) -> None:
    if shipped.setdefault(name, content) != content:
        raise SpecError(field_name, value, f"another file is shipped as {name} already; rename one")
