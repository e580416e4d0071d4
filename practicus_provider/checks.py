"""What values of arguments are checked for, whatever they belong to. Each check raises a ``SpecError`` that names the
argument, its value, and the way out. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from posixpath import normpath

from practicus_provider.errors import SpecError

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A variable's name, as a shell takes it."""
OBJECT_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
"""An object's name in Kubernetes (*DNS subdomain names* in its documentation)."""
LABEL_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,61}[a-z0-9])?")
"""The same where it is a label's value, too, which is shorter."""


def instance(name: str, value: object, kind: type | tuple[type, ...], way_out: str) -> None:
    """Refuse what is no instance of a type.

    :raises SpecError: it is none.
    """
    if not isinstance(value, kind):
        raise SpecError(name, value, way_out)


def positive_int(name: str, value: object, also: str = "") -> None:
    """Refuse what is no whole number of at least 1.

    :param also: what else may be given, for the message.
    :raises SpecError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise SpecError(name, value, f"give a whole number of at least 1 {also}".rstrip())


def strings(name: str, value: object) -> None:
    """Refuse what is no list of strings that a process can be given.

    :raises SpecError: it is none.
    """
    if isinstance(value, str) or not (isinstance(value, Sequence) and all(isinstance(item, str) for item in value)):
        raise SpecError(name, value, "give a list of strings")
    for item in value:
        no_nul(name, item, item)


def keyed(name: str, value: object) -> None:
    """Refuse what is no dict whose keys are strings.

    :raises SpecError: it is none.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise SpecError(name, value, "give a dict whose keys are strings")


def no_nul(name: str, value: object, text: str) -> None:
    """Refuse a text that no process can be given.

    :param value: what the message shows of it.
    :raises SpecError: there is a NUL in it.
    """
    if "\0" in text:
        raise SpecError(name, value, "leave out the NUL character: no process can be given one")


def absolute(name: str, value: object) -> None:
    """Refuse what is no absolute path in its shortest form.

    :raises SpecError: it is none.
    """
    if not isinstance(value, str) or not value.startswith("/") or normpath(value) != value or value.startswith("//"):
        raise SpecError(name, value, "give an absolute path without '..' and without '/' at its end")


def is_below(path: str, folder: str) -> bool:
    """Whether a path is that folder's, or something in it."""
    return f"{path}/".startswith(f"{folder}/")
