"""What a page may cost whoever passes it on. What goes beyond is ended, or slowed down where it says so."""

from __future__ import annotations

KIB, MIB = 1 << 10, 1 << 20

# ---- requests at once

PER_TICKET = 32
"""Requests and WebSockets of one ticket that are answered at once; others wait."""
PER_VISITOR = 64
"""The same, of all tickets of one user of Airflow: a quarter of what all may take."""
PER_CLUSTER = 64
"""The same, of all tickets of one cluster."""
TOTAL = 256
"""The same, of all clusters: four times what one may take."""
LINED_UP = 256
"""Requests of one cluster that wait; others are refused at once."""
LINE = 30.0
"""Seconds that one waits."""

# ---- an answer

CONNECT = 30.0
"""Seconds until the replica is connected to."""
ANSWER = 60.0
"""Seconds until the head of its answer is there, however busily it sends."""
IDLE = 60.0
"""Seconds in which nothing comes, or nothing is taken."""
WHOLE = 600.0
"""Seconds until the answer's end."""
HEAD = 32 * KIB
"""Bytes of the status line and the headers, of interim answers too."""
INTERIM = 8
"""Interim answers (HTTP 1xx) before the answer."""

# ---- a WebSocket

MESSAGE = 2 * MIB
"""Bytes of a message, either way. The API server compresses it for the browser in one go, at 10 MiB/s at worst."""
FRAMES = 4096
"""Frames that one message may be cut into."""
QUIET = 20
"""Frames in a second that carry nothing: pings, pongs, empty parts of a message."""

# ---- processors

SLICE = KIB
"""Bytes of a replica that are parsed before others have their turn: some 5 ms, if they are pings."""
OF_PROXY = 0.2
"""Part of this process' time that one cluster may take; it is slowed down to that."""
OF_SERVER = 0.1
"""Part of the API server's time that passing on one cluster's pages may take; they are slowed down to that."""
OF_SERVER_IN_ALL = 0.3
"""The same, of all clusters."""
BURST = 1.0
"""Seconds for which one may have taken nothing, and may catch up with at once."""
FRAME = 200e-6
"""Seconds that the API server takes to pass on a piece of an answer, or a message, as measured."""
BODY_BYTE = 1 / (400 * MIB)
"""Seconds for each byte of an answer."""
MESSAGE_BYTE = 1 / (10 * MIB)
"""Seconds for each byte of a message, which the API server compresses."""


class Beyond(Exception):
    """A budget is used up; the message says which."""


class Slow(Beyond):
    """One of time."""


class Busy(Beyond):
    """One of requests at once."""
