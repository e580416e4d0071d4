"""Parent of an application on a Dask cluster.

``python -S -m practicus_runtime.dask_driver HOST PORT COMMAND...`` runs the command. At that place the scheduler says
from where clients have come to it (``practicus_runtime.dask_scheduler``). As long as it is on its way the client waits,
and this process says for whom.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading

from practicus_runtime.driver import Driver
from practicus_runtime.waiting import Wait

from .contract import FAILURE_LIMIT, End, Env, parsed
from .files import left_in

UNUSED = (
    "the cluster was not used: no Client of the application has come to its scheduler. Ask for Client() without "
    "arguments, or for practicus_runtime.get_client(): a LocalCluster, or no Client at all, computes where the "
    "application runs, alone"
)
GIVEN_UP = "the application was ended, as the scheduler of its cluster is not reached"


class Asking:
    """Of a scheduler, whether a client of this machine's has come to it."""

    def __init__(self, host: str, port: int) -> None:
        self.place = (host, port)
        self.wait = Wait("coordinator-0", host, port, connect=self._ask)

    def used(self) -> bool:
        """Where the scheduler is gone again, as after ``Client.shutdown()``, somebody used it."""
        try:
            return self._ask()
        except OSError:
            return bool(self.wait.there)

    def follow(self, driver: Driver) -> None:
        """Wait for the scheduler beside the application, which is ended if that is given up."""
        try:
            self.wait.wait()
        except SystemExit:
            cause = End.from_json(parsed(left_in(os.environ.get(Env.FAILURE), FAILURE_LIMIT), FAILURE_LIMIT))
            driver.give_up(cause, [GIVEN_UP])

    def _ask(self) -> bool:
        """:raises OSError: it does not answer."""
        with socket.create_connection(self.place, timeout=5.0) as connection:
            own = connection.getsockname()[0]
            try:
                return bool(own in json.loads(connection.makefile("rb").readline()))
            except ValueError as error:
                raise ConnectionError("what it answers is no answer") from error


if __name__ == "__main__":
    asking = Asking(sys.argv[1], int(sys.argv[2]))
    driver = Driver(sys.argv[3:], asking.used, UNUSED)
    threading.Thread(target=asking.follow, args=(driver,), daemon=True).start()
    driver.run()
