"""Free ports on loopback that no other cluster on this machine is given meanwhile."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import stat
import tempfile
from pathlib import Path

from practicus_provider.backends.local.refusals import refused
from practicus_provider.errors import BackendError

LOOPBACK = "127.0.0.1"
RANGE = range(20_000, 32_768)
"""Below Linux's ephemeral ports (``net.ipv4.ip_local_port_range``), so no outgoing connection takes one of them."""


class PortReservations:
    """Ports that are ours until :meth:`close`, or this process' death."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.gettempdir()) / f"practicus-ports-{os.getuid()}"
        with refused(f"reserve ports in {self._folder}"):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            found = self._folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise BackendError(
                f"ports are reserved in {self._folder}, which is no folder of this user's own that nobody else may "
                "write to: remove it, or set TMPDIR to another folder for temporary files"
            )
        self._held: list[int] = []

    def take(self) -> int:
        """A free port.

        :raises BackendError: there is none, or none can be reserved.
        """
        for port in random.sample(RANGE, len(RANGE)):
            with refused(f"reserve port {port}"):
                descriptor = os.open(self._folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as probe:
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    probe.bind((LOOPBACK, port))
            except OSError:
                os.close(descriptor)
                continue
            self._held.append(descriptor)
            return port
        raise BackendError(
            f"no port from {RANGE.start} to {RANGE.stop - 1} on {LOOPBACK} is free: end what holds them, clusters of "
            "ours among it, or ask for fewer replicas"
        )

    def close(self) -> None:
        """Give all of them back."""
        while self._held:
            os.close(self._held.pop())
