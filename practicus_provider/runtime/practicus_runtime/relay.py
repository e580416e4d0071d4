"""Has programs that know IPv4 alone reach a place that has addresses of IPv6 alone: by way of their own loopback."""

from __future__ import annotations

import contextlib
import functools
import socket
import socketserver
import threading
from typing import Tuple

Place = Tuple[str, int]
CHUNK = 1 << 16


def by_ipv4(host: str, port: int) -> Place:
    """Where such a program reaches a place as long as this process lives: there, if it can."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:  # it will say so itself
        return host, port
    families = [family for family, *_ in found]
    if socket.AF_INET6 not in families or socket.AF_INET in families:
        return host, port
    return _relayed(host, port)


@functools.lru_cache(maxsize=None)
def _relayed(host: str, port: int) -> Place:
    server = Relay((host, port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own: Place = server.server_address[:2]  # type: ignore[assignment]
    return own


class Relay(socketserver.ThreadingTCPServer):
    """Passes on what connections to a port of loopback carry."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, place: Place) -> None:
        self.place = place
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(socketserver.BaseRequestHandler):
    """One connection. If the place does not answer, it is closed at once: whoever asks then asks again."""

    server: Relay

    def handle(self) -> None:
        """See ``socketserver.BaseRequestHandler``."""
        with contextlib.suppress(OSError), socket.create_connection(self.server.place) as there:
            back = threading.Thread(target=pass_on, args=(there, self.request), daemon=True)
            back.start()
            pass_on(self.request, there)
            back.join()


def pass_on(source: socket.socket, target: socket.socket) -> None:
    """All that one end says, to the other."""
    with contextlib.suppress(OSError):
        while data := source.recv(CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
