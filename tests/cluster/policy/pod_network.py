"""Listens to the pod network: to the plugin that gives word of every address, and waits for its rules."""

from __future__ import annotations

import contextlib
import json
import logging
import socketserver
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from tests.cluster.policy.controller import Controller

_log = logging.getLogger(__name__)
_PATIENCE = 8.0


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 100

    def __init__(self, socket: Path, controller: Controller) -> None:
        self.controller = controller
        super().__init__(str(socket), _Handler)


class _Handler(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        """Answer a line with a line: empty if all is well, else what is wrong."""
        question = self.rfile.readline()
        if not question:  # somebody only wanted to know whether we are here
            return
        asked = json.loads(question)
        uid, wrong = asked["uid"], ""
        addresses = frozenset(map(ip_address, asked["addresses"]))
        if not self.server.controller.assign(uid, addresses, _PATIENCE):
            wrong = f"the API server has not told of pod {uid} for {_PATIENCE:.0f} s"
            _log.warning(wrong)
        self.wfile.write(f"{wrong}\n".encode())


@contextlib.contextmanager
def listening(socket: Path, controller: Controller) -> Iterator[None]:
    """Answer the plugin. The socket is there as long as somebody does."""
    socket.unlink(missing_ok=True)
    with _Server(socket, controller) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            socket.unlink(missing_ok=True)
