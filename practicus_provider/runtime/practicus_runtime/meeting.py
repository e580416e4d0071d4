"""Where ranks meet, and how they wait for that place: in what goes there, the framework's function or a socket of the
script's own, so that they import and prepare meanwhile. Imported before the script where ``PRACTICUS_MEETS`` names the
framework; ranks of others wait before they start.
"""

from __future__ import annotations

import _socket
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
        _socket.getaddrinfo(os.environ["MASTER_ADDR"], None)
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


def wait(there: Callable[[], bool]) -> None:
    """Until the place is there."""
    while not there():
        time.sleep(POLL)


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
        wait(there)
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


def sockets_wait() -> None:
    """Have Python's sockets wait that go to ``MASTER_ADDR``, until it is known; then they are as they were."""
    place, lookup, own = os.environ.get("MASTER_ADDR"), socket.getaddrinfo, ("bind", "connect", "connect_ex")

    def found(host: Any) -> None:
        if host == place and socket.getaddrinfo is late_lookup:
            wait(known)
            socket.getaddrinfo = lookup
            for name in own:
                delattr(socket.socket, name)

    def late_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        found(host)
        return lookup(host, *args, **kwargs)

    def late(name: str) -> Callable[[socket.socket, Any], Any]:
        def method(self: socket.socket, address: Any) -> Any:
            if isinstance(address, tuple):
                found(address[0])
            return getattr(super(socket.socket, self), name)(address)

        return method

    socket.getaddrinfo = late_lookup
    for name in own:
        setattr(socket.socket, name, late(name))


if "PRACTICUS_MEETS" in os.environ:
    sockets_wait()
    install(*FUNCTIONS[os.environ["PRACTICUS_MEETS"]])
