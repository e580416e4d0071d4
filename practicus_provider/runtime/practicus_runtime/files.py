"""Reads files that a job may have written, or put anything else in the place of: it runs as the same user."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import BinaryIO, Optional


def opened(path: str) -> BinaryIO:
    """Open a file to read it. A link is not followed, and a pipe that nobody writes into is not waited for.

    :raises FileNotFoundError: there is none.
    :raises OSError: it is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "It is no regular file", path)
    return os.fdopen(descriptor, "rb")


def left_in(path: Optional[str], limit: int) -> bytes:  # noqa: UP045  (Python 3.8)
    """A file's content; empty if there is no file.

    :param limit: bytes that may be taken; of what has more, one more is read.
    """
    with contextlib.suppress(OSError, ValueError), opened(path or "") as file:  # ValueError: a path that holds a NUL
        return file.read(limit + 1)
    return b""
