"""Where ranks meet, and how they wait for that place: in what goes there, the framework's function or a socket of the
script's own, so that they import and prepare meanwhile. Before the script :func:`prepare` sees to it where
``PRACTICUS_MEETS`` names the framework; ranks of others wait before they start.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import time
from types import ModuleType
from typing import Any, Callable

from practicus_runtime.imports import Execute, wrap
from practicus_runtime.relay import by_ipv4
from practicus_runtime.waiting import Wait

from .contract import Env

RENDEZVOUS = ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")
PATIENCE = 30.0
"""Seconds for which torch's ranks wait for a place that is known but refuses them; then torch may say what is wrong."""


def named() -> Wait:
    """For the place to be known to DNS: it is not before that pod has an address."""
    return Wait("rank 0", os.environ["MASTER_ADDR"])


def rendezvous() -> Wait:
    """For Horovod's to answer; Horovod itself asks three times only."""
    host, port = (os.environ[name] for name in RENDEZVOUS)
    return Wait("worker-0", host, int(port))


def torch_waits(url: Any, rank: Any = -1, *_: Any, **__: Any) -> None:
    """As ``torch.distributed.rendezvous`` is called. Who goes to rank 0 before that listens is refused, and torch tries
    again only after a backoff (torch 2.13, ``SocketConnectOp`` in ``c10d/socket.cpp``)."""
    host, port = os.environ.get("MASTER_ADDR"), os.environ.get("MASTER_PORT", "")
    if host is None:  # then torch is told of the place by its URL, or says that it is not
        return
    named().wait()
    own = os.environ.get("RANK") if rank == -1 else str(rank)
    if str(url).startswith("env://") and own != "0" and port.isdigit():
        Wait("rank 0", host, int(port)).wait(time.monotonic() + PATIENCE)


def horovod_waits(*_: Any, **__: Any) -> None:
    """As ``horovod.init`` is called, which asks there by IPv4 alone (Horovod 0.28, ``third_party/HTTPRequest``)."""
    rendezvous().wait()
    host, port = by_ipv4(os.environ[RENDEZVOUS[0]], int(os.environ[RENDEZVOUS[1]]))
    os.environ.update(zip(RENDEZVOUS, (host, str(port))))


FUNCTIONS = {
    "torch": ("torch.distributed.rendezvous", "rendezvous", torch_waits),
    "horovod": ("horovod.common.basics", "HorovodBasics.init", horovod_waits),
}
"""Framework -> the module and the function that goes to the place, and what waits until it may, called likewise."""


def delay(owner: Any, name: str, waits: Callable[..., None]) -> None:
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
        waits(*args, **kwargs)
        return function(*args, **kwargs)

    setattr(owner, last, late)


def install(module: str, name: str, waits: Callable[..., None]) -> None:
    """Have that function of a module wait, once that is imported."""

    def around(execute: Execute) -> Execute:
        def executed(found: ModuleType) -> None:
            execute(found)
            delay(found, name, waits)

        return executed

    wrap(lambda imported: imported == module, around)


def sockets_wait() -> None:
    """Have Python's sockets wait that go to ``MASTER_ADDR``, until it is known; then they are as they were."""
    place, lookup, methods = os.environ.get("MASTER_ADDR"), socket.getaddrinfo, ("bind", "connect", "connect_ex")

    def goes(_: Any, address: Any) -> None:
        if isinstance(address, tuple):
            looks(address[0])

    def looks(host: Any) -> None:
        if host == place and socket.getaddrinfo is late_lookup:
            named().wait()
            socket.getaddrinfo = lookup
            for name in methods:
                with contextlib.suppress(AttributeError):  # another thread has waited, too
                    delattr(socket.socket, name)

    def late_lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        looks(host)
        return lookup(host, *args, **kwargs)

    socket.getaddrinfo = late_lookup
    for name in methods:
        delay(socket.socket, name, goes)


def prepare() -> None:
    """Before the script."""
    sockets_wait()
    install(*FUNCTIONS[os.environ[Env.MEETS]])
