"""What the API server and the proxy say to each other: frames, on a socket for each request.

The API server begins with :class:`Asked`, and closes the socket when the browser has gone. Nothing that comes back is
unpickled, and no frame is larger than a message may be.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from practicus_provider.backends.base import Backend, Handle
from practicus_provider.plan import Port
from practicus_provider.proxy.budgets import KIB, MESSAGE

_PREFIX = struct.Struct("!BI")
BUFFERED = 64 * KIB
"""Bytes that are read ahead before whoever sends is held up."""


class Kind(IntEnum):
    """What a frame holds."""

    ASKED = 0
    """To the proxy: a pickled :class:`Asked`."""
    TAKEN = 1
    """From the proxy, before it is asked: it is there."""
    HEAD = 2
    """JSON: ``status`` and ``headers`` of an answer, or the ``subprotocol`` of a WebSocket that is open now."""
    BYTES = 3
    """A piece of an answer's body, or a message."""
    TEXT = 4
    """A message, in UTF-8."""
    END = 5
    """The body's, or JSON: ``code`` and ``reason`` that the WebSocket closes with."""
    CUT = 6
    """The body ends too soon; why, in UTF-8."""


@dataclass(frozen=True)
class Asked:
    """One request.

    :param visitor: whose requests are counted together, of all tickets.
    :param ticket: likewise.
    :param backend: where the cluster runs.
    :param port: of the cluster, that serves the page.
    :param target: path and query, as the browser has sent them.
    :param headers: of the browser.
    :param prefix: the path that the browser sees before the page's own.
    :param apart: headers that the browser gets with whatever is answered.
    :param subprotocols: that a WebSocket offers; None: it is none.
    """

    visitor: str
    ticket: str
    backend: Backend
    handle: Handle
    port: Port
    method: str
    target: bytes
    headers: Sequence[tuple[str, str]]
    prefix: str
    apart: Mapping[str, str]
    subprotocols: Sequence[str] | None = None


@dataclass
class Channel:
    """One side of a request's socket.

    :ivar begun: the head of the answer was sent.
    """

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    begun: bool = False

    @classmethod
    async def over(cls, end: socket.socket) -> Self:
        """Over one end of a pair of sockets."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=BUFFERED))

    async def send(self, kind: Kind, data: bytes = b"") -> None:
        """Send a frame; returns once more can be taken.

        :raises OSError: the other side has gone.
        """
        self.begun = self.begun or kind is Kind.HEAD
        self.writer.write(_PREFIX.pack(kind, len(data)) + data)
        await self.writer.drain()

    async def send_json(self, kind: Kind, data: Any) -> None:
        """As :meth:`send`."""
        await self.send(kind, json.dumps(data).encode())

    async def ask(self, asked: Asked) -> None:
        """Of the API server: say what the request is."""
        await self.send(Kind.ASKED, pickle.dumps(asked))

    async def asked(self) -> Asked | None:
        """Of the proxy: hear that; None: the other side has gone."""
        frame = await self.receive()
        if frame is None:
            return None
        asked: Asked = pickle.loads(frame[1])
        return asked

    async def receive(self) -> tuple[Kind, bytes] | None:
        """The next frame; None: the other side has gone."""
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            kind, size = _PREFIX.unpack(await self.reader.readexactly(_PREFIX.size))
            if size <= MESSAGE:
                return Kind(kind), await self.reader.readexactly(size)
        return None

    async def close(self) -> None:
        """End it, for the other side too."""
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()
