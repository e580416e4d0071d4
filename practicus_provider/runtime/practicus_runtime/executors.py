"""In Spark's driver: hears of its executors, and gives up where none of them stays alive.

Spark starts a new executor for each that ends: a standalone master does so for ever, as it counts one that could be
started as a success.
"""

from __future__ import annotations

import socket
import threading
import time
from typing import Any, Callable, Dict, List

from practicus_runtime.addresses import family

from .contract import End, parsed

EARLY = 30.0
"""Seconds after its start in which an executor's end counts as one at its start."""
FEW = 3
"""Executors in a row that may end so; or as many as are alive, if these are more."""
LIMIT = 1 << 20
"""Bytes of what an executor tells."""
Report = Dict[str, Any]


class Executors:
    """Those of one driver, as far as it has heard of them."""

    def __init__(self) -> None:
        self.alive: Dict[str, float] = {}  # noqa: UP006  (Python 3.8)
        self.lost = 0

    def hear(self, report: Report, now: float) -> bool:
        """What one tells; whether no further one is worth a try.

        :param now: seconds of any clock that only goes forward.
        """
        if "seconds" not in report:
            self.alive[report["executor"]] = now
            return False
        self.alive.pop(report["executor"], None)
        well = any(now - start >= EARLY for start in self.alive.values())
        self.lost = self.lost + 1 if report["seconds"] < EARLY and not well else 0
        return self.lost >= max(FEW, len(self.alive) + 1)


def listen(host: str, port: int) -> socket.socket:
    """Where executors tell."""
    return socket.create_server((host, port), family=family(host))


def attend(
    server: socket.socket,
    token: str,
    used: Callable[[], None],
    give_up: Callable[[End, List[str]], None],  # noqa: UP006
) -> None:
    """Hear of executors, in the background, as long as this process lives.

    :param token: what they know of this driver.
    :param used: called as one has started.
    :param give_up: called with how the last one ended, and with what to say of it.
    """
    executors = Executors()

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # it was closed
                return
            report = _read(connection)
            if not isinstance(report, dict) or report.pop("token", None) != token:
                continue
            used()
            if executors.hear(report, time.monotonic()):
                give_up(*obituary(report, executors.lost))

    threading.Thread(target=serve, daemon=True).start()


def _read(connection: socket.socket) -> Any:
    """What one executor tells; None if that cannot be read."""
    with connection:
        connection.settimeout(5.0)
        try:
            return parsed(connection.makefile("rb").readline(LIMIT), LIMIT)
        except OSError:
            return None


def obituary(report: Report, lost: int) -> Any:
    """How the last one ended, as a launcher tells it, and the lines that say so."""
    cause = End.from_json(report["end"])._replace(replica=report["replica"])
    how = f"exit code {cause.exit_code}" if cause.signal is None else f"signal {cause.signal}"
    heading = (
        f"{lost} executors in a row ended within {EARLY:g} s of their start, the last one, {report['replica']}'s, "
    )
    return cause, [f"{heading}with {how}. Its last lines:", *report["tail"]]
