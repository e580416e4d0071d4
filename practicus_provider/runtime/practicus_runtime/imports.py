"""Has something happen as modules are imported."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, Optional

Execute = Callable[[ModuleType], None]
"""Runs a module's code, as a loader's ``exec_module`` does."""


class Finder:
    """Finds modules as Python does, and has those that are wanted executed in another way.

    :param wanted: says whether a module is, by its full name.
    :param around: makes of a loader's ``exec_module`` what is called instead.
    """

    def __init__(self, wanted: Callable[[str], bool], around: Callable[[Execute], Execute]) -> None:
        self.wanted = wanted
        self.around = around

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:  # noqa: UP045
        """See ``importlib.abc.MetaPathFinder``."""
        if not self.wanted(name):
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            loader.exec_module = self.around(loader.exec_module)
        return spec


def wrap(wanted: Callable[[str], bool], around: Callable[[Execute], Execute]) -> None:
    """From now on; see :class:`Finder`."""
    sys.meta_path.insert(0, Finder(wanted, around))
