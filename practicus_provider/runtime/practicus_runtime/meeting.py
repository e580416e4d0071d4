"""Where ranks meet, and how they wait for that place: in the framework's function that goes there, so that they
import and prepare meanwhile. Imported before the script where ``PRACTICUS_MEETS`` names the framework; ranks of others
wait before they start.
"""

from __future__ import annotations

import functools
import os
import socket
import sys
import time
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, Optional

POLL = 0.05
"""Seconds between two looks for the place."""


def known() -> bool:
    """Whether DNS knows the place: it does not before that pod has an address."""
    try:
        socket.getaddrinfo(os.environ["MASTER_ADDR"], None)
    except OSError:
        return False
    return True


def answers() -> bool:
    """Whether Horovod's rendezvous does; Horovod itself asks three times only."""
    address = (os.environ["HOROVOD_GLOO_RENDEZVOUS_ADDR"], int(os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"]))
    try:
        socket.create_connection(address, timeout=1.0).close()
    except OSError:
        return False
    return True


FUNCTIONS = {
    "torch": ("torch.distributed.rendezvous", "rendezvous", known),
    "horovod": ("horovod.common.basics", "HorovodBasics.init", answers),
}
"""Framework -> the module and the function that goes to the place, and whether it is there."""


class Finder:
    """Finds one module as Python does, and has a function of it wait once it is there.

    :param name: of the function, from the module on.
    """

    def __init__(self, module: str, name: str, there: Callable[[], bool]) -> None:
        self.module = module
        self.name = name
        self.there = there

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Optional[ModuleSpec]:  # noqa: UP045
        """See ``importlib.abc.MetaPathFinder``."""
        if name != self.module:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec is not None and spec.loader is not None:
            loader: Any = spec.loader
            execute = loader.exec_module

            def executed(module: ModuleType) -> None:
                execute(module)
                self.delay(module)

            loader.exec_module = executed
        return spec

    def delay(self, module: ModuleType) -> None:
        """Have the function wait; a version that has none of that name goes to the place by itself, as without us."""
        *path, last = self.name.split(".")
        owner: Any = module
        for name in path:
            owner = getattr(owner, name, None)
        function = getattr(owner, last, None)
        if function is None:
            return

        @functools.wraps(function)
        def late(*args: Any, **kwargs: Any) -> Any:
            while not self.there():
                time.sleep(POLL)
            return function(*args, **kwargs)

        setattr(owner, last, late)


if "PRACTICUS_MEETS" in os.environ:
    sys.meta_path.insert(0, Finder(*FUNCTIONS[os.environ["PRACTICUS_MEETS"]]))
