"""Parent of an application on a cluster: says at its good end if it has never used that, and may give it up."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from typing import Callable, NoReturn, Optional, Sequence

from practicus_runtime.launcher import LINUX, PR_SET_PDEATHSIG

from .contract import End, Env

PATIENCE = 3.0
"""Seconds between SIGTERM and SIGKILL for an application that is given up."""


class Driver:
    """One run of the application.

    :param used: says whether the cluster was used; asked once, at a good end.
    :param advice: what to say if it was not.
    """

    def __init__(self, command: Sequence[str], used: Callable[[], bool], advice: str) -> None:
        self.used = used
        self.advice = advice
        self.stopped = False
        self.cause: Optional[End] = None  # noqa: UP045  (Python 3.8)
        self.why: Sequence[str] = ()
        for number in (signal.SIGTERM, signal.SIGINT):  # sent to the group: the application has it already
            signal.signal(number, self._stop)
        self.child = subprocess.Popen(command, preexec_fn=die_with_parent)

    def run(self) -> NoReturn:
        """Until its end, which is this process' own."""
        code = self.child.wait()
        if self.cause is not None:
            print(*self.why, sep="\n", file=sys.stderr, flush=True)
            with contextlib.suppress(OSError, KeyError), open(os.environ[Env.FAILURE], "w") as file:
                json.dump(self.cause.to_json(), file)
            code = 1
        elif code == 0 and not self.stopped and not self.used():
            print(f"WARNING: {self.advice}", file=sys.stderr, flush=True)
        leave(code)

    def give_up(self, cause: End, why: Sequence[str]) -> None:
        """End the application for what happened elsewhere.

        :param cause: how the process ended for which it fails.
        :param why: last lines of this replica's log.
        """
        if self.cause is None:
            self.cause, self.why = cause, why
            self.child.terminate()
            late = threading.Timer(PATIENCE, self.child.kill)
            late.daemon = True
            late.start()

    def _stop(self, number: int, frame: object) -> None:
        self.stopped = True


def leave(code: int) -> NoReturn:
    """End as a child has ended: with its exit code, or by the signal of that number below 0."""
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def die_with_parent() -> None:
    """In a new child."""
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
