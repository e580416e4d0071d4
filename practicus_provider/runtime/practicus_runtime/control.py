"""Asks for things while the cluster runs: the local supervisor, by a socket in the cluster's folder, or Kubernetes."""

from __future__ import annotations

import json
import os
import socket
import sys
from contextlib import contextmanager
from typing import Iterator

from .contract import Env, Scale


def scale(role: str, replicas: int, timeout: float = 10.0) -> None:
    """Have ``replicas`` replicas of ``role`` in all; missing ones are started, none is stopped.

    :param timeout: seconds to wait for the answer.
    :raises OSError: the role is not elastic, or the backend cannot be reached or refuses.
    """
    if Env.CONTROL not in os.environ:
        from practicus_runtime import pods  # not where the supervisor reads this file

        pods.scale(role, replicas, timeout)
        return
    with connectable(os.environ[Env.CONTROL]) as path, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(path)
        connection.sendall(json.dumps(Scale(role, replicas).to_json()).encode() + b"\n")
        with connection.makefile("rb") as answers:
            answer = json.loads(answers.readline() or b'{"error": "the supervisor hung up"}')
    if "error" in answer:
        raise OSError(answer["error"])


@contextmanager
def connectable(path: str) -> Iterator[str]:
    """A name for the socket at ``path`` that fits ``sun_path``, which ends at 108 bytes (unix(7))."""
    if not sys.platform.startswith("linux"):
        yield path
        return
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)
