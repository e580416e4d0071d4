"""Where ranks meet, and how they wait for that place: in the framework's function that goes there, so that they
import and prepare meanwhile. Imported before the script where ``PRACTICUS_MEETS`` names the framework; ranks of others
wait before they start.
"""

from __future__ import annotations

import functools
import os
import socket
import time
from types import ModuleType
from typing import Any, Callable

from practicus_runtime.imports import Execute, wrap

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


def delay(owner: Any, name: str, there: Callable[[], bool]) -> None:
    """Have a function wait; a version that has none of that name goes to the place by itself, as without us.

    :param name: of the function, from its owner on.
    """
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part, None)
    function = getattr(owner, last, None)
    if function is None:
        return

    @functools.wraps(function)
    def late(*args: Any, **kwargs: Any) -> Any:
        while not there():
            time.sleep(POLL)
        return function(*args, **kwargs)

    setattr(owner, last, late)


def install(module: str, name: str, there: Callable[[], bool]) -> None:
    """Have that function of a module wait, once that is imported."""

    def around(execute: Execute) -> Execute:
        def executed(found: ModuleType) -> None:
            execute(found)
            delay(found, name, there)

        return executed

    wrap(lambda imported: imported == module, around)


if "PRACTICUS_MEETS" in os.environ:
    install(*FUNCTIONS[os.environ["PRACTICUS_MEETS"]])
