"""How a replica waits for another one: it says after a while for whom, and what is in the way, and gives up in the end.

What is in the way tells how long to wait. A replica that is still to be placed has no name in DNS, and one whose image
is being pulled refuses connections: both may last for as long as all replicas have for their start. But DNS that does
not answer, and packets that are lost, do not come right by another replica's start.

Whoever gives up writes it into the file ``PRACTICUS_RANK_FAILURE``, or ``PRACTICUS_FAILURE``, and ends this process.
"""

from __future__ import annotations

import _socket  # its getaddrinfo is never one that waits itself: see practicus_runtime.meeting
import contextlib
import json
import math
import os
import socket
import threading
import time
from typing import Any, Callable, Optional

from .contract import NO_DNS, NO_NAME, REFUSED, TIMED_OUT, End, Env, Unreached, WaitLine

POLL = 0.05
"""Seconds between two looks."""
TRY = 1.0
"""Seconds that one try to connect takes at most, for each address of the host."""
SLOW = 5.0
"""Seconds after which a lookup of a name will not be answered: resolvers wait for so long for one server
(resolv.conf(5)), and then go on to the next."""
SAY = 10.0
"""Seconds of waiting after which it is said, and between two reasons that differ."""
SAY_AGAIN = 60.0
"""Seconds after which it is said again."""
PATIENCE = 300.0
"""Seconds for which what another replica's start does not cure is put up with; less where there are less for it."""
START = 600.0
"""Seconds for the start of all replicas, where ``PRACTICUS_START_TIMEOUT`` does not tell."""
EXIT_CODE = 69
"""Of a process that gives up: ``EX_UNAVAILABLE`` of sysexits.h."""

BY_START = (NO_NAME, REFUSED)
"""What the other replica's start cures."""


class Wait:
    """For one other replica.

    :param who: it is.
    :param port: None: until its name resolves.
    :param connect: goes there, in a thread of its own, once the name resolves. By default it connects, and no more.
    """

    def __init__(
        self,
        who: str,
        host: str,
        port: Optional[int] = None,  # noqa: UP045  (Python 3.8)
        *,
        connect: Optional[Callable[[], Any]] = None,  # noqa: UP045
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.who = who
        self.host = host
        self.port = port
        self.connect = connect or self._connect
        self.clock = clock
        self.patience = min(PATIENCE, start_timeout())
        self.began = clock()
        self.why = self.said = ""
        self.why_since = self.said_at = self.began
        self.there = False
        self.trying: Optional[threading.Thread] = None  # noqa: UP045

    @property
    def place(self) -> str:
        """Who it is, and where."""
        from practicus_runtime.addresses import joined  # not where the words alone are read

        where = self.host if self.port is None else joined(self.host, self.port)
        return f"{self.who} ({where})"

    def over(self) -> bool:
        """Look; whether it is there.

        It does not wait for long: a lookup in DNS may take a minute, and whoever waits has signals to see to.

        :raises SystemExit: it is given up.
        """
        if self.there:
            return True
        if self.trying is None:
            self.resolved, self.found, self.tried_at = False, "", self.clock()
            self.trying = threading.Thread(target=self._try, daemon=True)
            self.trying.start()
        self.trying.join(POLL)
        if not self.trying.is_alive():
            self.trying = None
            self.there = not self.found
            self._note(self.found)
        elif self.clock() - self.tried_at >= SLOW:
            self._note(TIMED_OUT if self.resolved else NO_DNS)
        return self.there

    def wait(self, until: float = math.inf) -> None:
        """Until it is there, or refuses connections at that time of the clock: then whoever goes there may say why.

        :raises SystemExit: it is given up.
        """
        while not self.over() and not (self.why == REFUSED and self.clock() >= until):
            time.sleep(POLL)

    def _try(self) -> None:
        try:
            _socket.getaddrinfo(self.host, None)
            self.resolved = True
            if self.port is not None:
                self.connect()
        except OSError as error:
            self.found = hindrance(error)

    def _connect(self) -> None:
        assert self.port is not None
        socket.create_connection((self.host, self.port), timeout=TRY).close()

    def _note(self, why: str) -> None:
        """Say what is in the way where that is due, or that nothing is any more; give up where it has been for long."""
        now = self.clock()
        if not why:
            if self.said:
                say(WaitLine(self.place, round(now - self.began)).text())
            return
        if why != self.why:
            self.why, self.why_since = why, now
        if now - self.said_at >= (SAY_AGAIN if why == self.said else SAY):
            self.said, self.said_at = why, now
            say(WaitLine(self.place, round(now - self.began), why).text())
        patience = self.patience + (start_timeout() if why in BY_START else 0)
        if now - self.why_since >= patience:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        waited = round(now - self.began)
        say(WaitLine(self.place, waited, self.why, given_up=True).text())
        end = End(EXIT_CODE, at=time.time(), unreached=Unreached(self.place, self.why, waited))
        path = os.environ.get(Env.RANK_FAILURE) or os.environ.get(Env.FAILURE)
        with contextlib.suppress(OSError):
            if path:
                with open(path, "w") as file:
                    json.dump(end.to_json(), file)
        raise SystemExit(EXIT_CODE)


def start_timeout() -> float:
    """Seconds in which all replicas should run."""
    return float(os.environ.get(Env.START_TIMEOUT) or START)


def hindrance(error: OSError) -> str:
    """What is in the way, by the error of who went there."""
    if isinstance(error, socket.gaierror):
        return NO_DNS if error.errno in (socket.EAI_AGAIN, socket.EAI_FAIL) else NO_NAME
    if isinstance(error, ConnectionRefusedError):
        return REFUSED
    if isinstance(error, (TimeoutError, socket.timeout)):
        return TIMED_OUT
    return error.strerror or str(error)


def say(line: str) -> None:
    """Write a line into the log, in one piece."""
    print(f"{line}\n", end="", flush=True)
