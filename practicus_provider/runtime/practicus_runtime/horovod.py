"""The ranks of a Horovod replica, and in the first replica the rendezvous at which Gloo's ranks find each other.

It is what ``horovodrun`` serves, ``horovod.runner.http.http_server``: keys and values over HTTP. Horovod's side has no
way to show who it is, so what can be had here is confined: the server listens at the replica's address alone, takes
each key once, holds few and short ones, and does nothing with a value but to give it back.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from practicus_runtime.addresses import family
from practicus_runtime.meeting import rendezvous
from practicus_runtime.ranks import Ranks

from .contract import Env

KEY = re.compile(r"(/[-.\w]{1,128}){2,4}")
VALUE_LIMIT = 64 << 10
"""Bytes of a value: a rank's addresses."""
KEYS_PER_RANK = 64
"""There are six or so: each rank's address in the global, the local and the cross communicator, and of process sets."""

LINGER = 2.0
"""Seconds without a request after which nobody needs the rendezvous any more: ranks that wait ask all the time."""
NAMES = {
    "HOROVOD_RANK": "RANK",
    "HOROVOD_LOCAL_RANK": "LOCAL_RANK",
    "HOROVOD_CROSS_RANK": "GROUP_RANK",
    "HOROVOD_GLOO_IFACE": "GLOO_SOCKET_IFNAME",
}


class Rendezvous(ThreadingHTTPServer):
    """Keys and values, each written once."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: str, port: int, ranks: int) -> None:
        self.values: dict[str, bytes] = {}
        self.limit = KEYS_PER_RANK * ranks
        self.lock = threading.Lock()
        self.asked_at = time.monotonic()
        self.address_family = family(address)
        super().__init__((address, port), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """See ``socketserver.BaseServer``. A rank that ended amid its request is told of by whoever runs it; here it
        would only put a traceback into the user's log."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    """One request of a rank's."""

    server: Rendezvous
    timeout = 30

    def handle(self) -> None:
        """See ``BaseHTTPRequestHandler``."""
        self.server.asked_at = time.monotonic()
        super().handle()

    def do_GET(self) -> None:
        """A value; 404 as long as nobody has written it: who waits for it asks again."""
        value = self.server.values.get(self.path)
        self._answer(404 if value is None else 200, value or b"")

    def do_PUT(self) -> None:
        """Write a value; whoever comes second is refused."""
        said = self.headers.get("Content-Length", "")
        length = int(said) if re.fullmatch("[0-9]{1,9}", said) else -1
        if not KEY.fullmatch(self.path) or not 0 <= length <= VALUE_LIMIT:
            self._answer(400)
            return
        value = self.rfile.read(length)
        if len(value) < length:  # a key is taken once, so part of a value would stand for good
            raise ConnectionResetError("the rank ended amid its request")
        with self.server.lock:
            known = self.server.values
            refused = known.get(self.path, value) != value or len(known) >= self.server.limit
            if not refused:
                known[self.path] = value
        self._answer(403 if refused else 200)

    def do_DELETE(self) -> None:
        """A rank is done with a communicator: nothing to do in a world that does not change."""
        self._answer(200)

    def _answer(self, code: int, body: bytes = b"") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing: the log is the application's."""


def main(*program: str) -> int:
    """Run the ranks, and in the first replica the rendezvous beside them; the exit code."""
    ranks = Ranks(list(program), rendezvous().over, NAMES)
    os.environ.setdefault("HOROVOD_HOSTNAME", f"worker-{os.environ['GROUP_RANK']}")
    if ranks.first == 0:
        host, port = os.environ[Env.HOST], int(os.environ["HOROVOD_GLOO_RENDEZVOUS_PORT"])
        server = Rendezvous(host, port, int(os.environ["HOROVOD_SIZE"]))
        threading.Thread(target=server.serve_forever, daemon=True).start()
    code: int = ranks.run()
    while ranks.first == 0 and code == 0 and time.monotonic() - server.asked_at < LINGER:
        time.sleep(0.05)  # a job that has trained at all does not come here
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
