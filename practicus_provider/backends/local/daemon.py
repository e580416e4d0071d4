"""The process that holds a local cluster: ``python -m practicus_provider.backends.local.daemon FOLDER``."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from pathlib import Path

from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.processes import adopt_orphans
from practicus_provider.backends.local.refusals import words
from practicus_provider.backends.local.supervisor import Supervisor
from practicus_provider.errors import BackendError
from practicus_provider.runtime.practicus_runtime.control import connectable

LOCK_POLL = 0.01


def _take(folder: ClusterFolder) -> int | None:
    """The supervisor's lock; None once another one answers, or one has ended."""
    while (lock := folder.lock()) is None:
        if _answers(folder):
            return None
        time.sleep(LOCK_POLL)
    if folder.status() is None:
        return lock
    os.close(lock)
    return None


def _sign(lock: int) -> None:
    """With this process' id, which takes as much room whoever's it is."""
    os.pwrite(lock, f"{os.getpid():>10}".encode(), 0)


def _answers(folder: ClusterFolder) -> bool:
    with connectable(str(folder.control)) as path, socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _listening() -> socket.socket:
    """At ``control`` in the working folder."""
    Path("control").unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("control")
    listener.listen()
    listener.setblocking(False)
    return listener


def main(path: str) -> int:
    """Take the lock, listen, and go on in the background: once this returns, the cluster answers.

    What stands against that is said on standard output.
    """
    folder = ClusterFolder(Path(path))
    try:
        lock = _take(folder)
        if lock is None:
            return 0
        os.chdir(folder.path)
        listener = _listening()  # first: whoever finds the cluster from now on waits for its answer
        supervisor = Supervisor(folder)
        supervisor.prepare()
        _sign(lock)
    except OSError as error:
        print(words(error))
        return 1
    except BackendError as error:
        print(error)
        return 1
    if os.fork():
        os._exit(0)
    os.dup2(2, 1)  # whoever started us reads that to its end
    os.setsid()
    adopt_orphans()
    _sign(lock)
    asyncio.run(supervisor.run(listener))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
