"""Parent of an application on a Dask cluster.

``python -S -m practicus_runtime.dask_driver HOST PORT COMMAND...`` runs the command. At that place the scheduler says
from where clients have come to it (``practicus_runtime.dask_scheduler``).
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time

from practicus_runtime.driver import Driver

POLL = 0.5
"""Seconds between two looks for a scheduler that is on its way."""
UNUSED = (
    "the cluster was not used: no Client of the application has come to its scheduler. Ask for Client() without "
    "arguments, or for practicus_runtime.get_client(): a LocalCluster, or no Client at all, computes where the "
    "application runs, alone"
)


class Asking:
    """Of a scheduler, whether a client of this machine's has come to it."""

    def __init__(self, host: str, port: int) -> None:
        self.place = (host, port)
        self.there = threading.Event()
        threading.Thread(target=self._await, daemon=True).start()

    def used(self) -> bool:
        """Where the scheduler is gone again, as after ``Client.shutdown()``, somebody used it."""
        try:
            return self._ask()
        except (OSError, ValueError):
            return self.there.is_set()

    def _ask(self) -> bool:
        with socket.create_connection(self.place, timeout=5.0) as connection:
            own = connection.getsockname()[0]
            hosts = json.loads(connection.makefile("rb").readline())
        self.there.set()
        return own in hosts

    def _await(self) -> None:
        while not self.there.is_set():
            with contextlib.suppress(OSError, ValueError):
                self._ask()
            time.sleep(POLL)


if __name__ == "__main__":
    asking = Asking(sys.argv[1], int(sys.argv[2]))
    Driver(sys.argv[3:], asking.used, UNUSED).run()
