"""What the operating system refuses, in words that say what to do."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from practicus_provider.errors import BackendError

ADVICE = {
    errno.E2BIG: "One variable of the environment or one argument may have 128 KiB, all of them together a quarter of "
    "the stack's limit (ulimit -s), 2 MiB as a rule: give what is larger as a file, by files=.",
    errno.ENOSPC: "Make room on that disk, or set the connection's extra 'root' to a folder on another one.",
    errno.EDQUOT: "Make room within this user's quota, or set the connection's extra 'root' to a folder elsewhere.",
    errno.EROFS: "Set the connection's extra 'root' to a folder that can be written to.",
    errno.EACCES: "Give this user the right to it, or set the connection's extra 'root' to a folder of its own.",
    errno.EMFILE: "Raise the number of files that a process may open (ulimit -n), or ask for fewer replicas.",
    errno.EAGAIN: "Raise the number of processes that this user may have (ulimit -u), or ask for fewer replicas.",
    errno.ENOMEM: "The machine's memory is taken: free some, or ask for fewer replicas.",
}
"""Error number -> what the user may do. The limits of E2BIG are execve(2)'s."""


def words(error: OSError) -> str:
    """The system's own, and what it concerns."""
    about = f": {error.filename}" if error.filename else ""
    return f"{error.strerror or error}{about}"


def advice_for(error: OSError) -> str:
    """What the user may do; empty where there is no saying."""
    return ADVICE.get(error.errno or 0, "")


@contextlib.contextmanager
def refused(what: str) -> Iterator[None]:
    """:raises BackendError: the system refuses; the message says what cannot be done, why, and what to do."""
    try:
        yield
    except OSError as error:
        raise BackendError(". ".join(filter(None, (f"cannot {what}: {words(error)}", advice_for(error))))) from error
