"""Parent of one of Spark's executors: tells the driver of its start, and of an end that nobody asked for.

``python -S -m practicus_runtime.executor JAVA ARGS...`` runs that. In a standalone worker, the executor's output goes
into the files that Spark's pages show, and into the worker's log.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from typing import IO, Any, Deque, Dict, List

from practicus_runtime.driver import die_with_parent, leave

from .contract import End, Env

STANDALONE = "org.apache.spark.executor.CoarseGrainedExecutorBackend"
"""Class of an executor that a standalone worker starts."""
TAIL = 20
"""Lines of an executor's output that its driver is told."""
LINE = 65536
"""Bytes of a line that are copied at once."""


class Executor:
    """One executor's life."""

    def __init__(self, command: List[str]) -> None:  # noqa: UP006  (Python 3.8)
        self.command = command
        self.stopped = False
        self.tail: Deque[str] = deque(maxlen=TAIL)  # noqa: UP006  (Python 3.8)
        option = dict(zip(command, command[1:]))
        self.driver = address(option["--driver-url"])
        index = os.environ.get(Env.INDEX) or option["--executor-id"]
        self.facts = {
            "token": os.environ.get(Env.DRIVER_TOKEN),
            "executor": f"{option['--app-id']}/{option['--executor-id']}",
            "replica": f"{os.environ.get(Env.ROLE, 'worker')}-{index}",
        }

    def run(self) -> int:
        """Until its end; the exit code, or minus the signal's number."""
        signal.signal(signal.SIGTERM, self._stop)
        began = time.monotonic()
        pipes: Dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}  # noqa: UP006  (Python 3.8)
        self.child = subprocess.Popen(self.command, preexec_fn=die_with_parent, **pipes)
        start = threading.Thread(target=self._tell, args=({},))
        start.start()
        log = worker_log() if STANDALONE in self.command else -1
        streams = ((self.child.stdout, 1), (self.child.stderr, 2))
        copies = [threading.Thread(target=self._copy, args=(stream, to, log)) for stream, to in streams]
        for copy in copies:
            copy.start()
        code = self.child.wait()
        for copy in copies:
            copy.join(1.0)  # what it has left behind may hold them open
        start.join()
        if code and not self.stopped:
            end = End(code) if code > 0 else End(signal=-code)
            self._tell({"end": end.to_json(), "seconds": time.monotonic() - began, "tail": list(self.tail)})
        return code

    def _stop(self, number: int, frame: object) -> None:
        self.stopped = True
        self.child.send_signal(number)

    def _tell(self, what: Dict[str, Any]) -> None:  # noqa: UP006  (Python 3.8)
        with contextlib.suppress(OSError, KeyError, ValueError):
            place = (self.driver, int(os.environ[Env.DRIVER_PORT]))
            with socket.create_connection(place, timeout=5.0) as connection:
                connection.sendall(json.dumps({**self.facts, **what}).encode() + b"\n")

    def _copy(self, stream: IO[bytes], to: int, log: int) -> None:
        for line in iter(lambda: stream.readline(LINE), b""):
            self.tail.append(line.decode(errors="replace").rstrip("\n"))
            for output in (to, log):
                with contextlib.suppress(OSError):
                    os.write(output, line)


def address(url: str) -> str:
    """The host in ``spark://CoarseGrainedScheduler@host:port``; an IPv6 address stands in brackets there."""
    found = re.search(r"@\[?([^\]]+?)\]?:\d+$", url)
    return found[1] if found else ""


def worker_log() -> int:
    """Where this process' parent, Spark's worker, writes; -1 if nobody can tell."""
    try:
        return os.open(f"/proc/{os.getppid()}/fd/1", os.O_WRONLY | os.O_APPEND)
    except OSError:
        return -1


if __name__ == "__main__":
    leave(Executor(sys.argv[1:]).run())
