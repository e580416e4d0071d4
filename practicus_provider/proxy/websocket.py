"""The client's side of a WebSocket over a connection to a replica."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence

from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig, WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from practicus_provider.backends.base import Connection
from practicus_provider.errors import ReplicaError
from practicus_provider.proxy import budgets
from practicus_provider.proxy.budgets import Beyond
from practicus_provider.proxy.visits import Cluster, within

MESSAGES = (Opcode.TEXT, Opcode.BINARY, Opcode.CONT)
"""Frames that messages are made of."""


class WebSocketClient:
    """Messages, strings or bytes, to and from a replica.

    :param path: of the request.
    :param query: without its question mark.
    :param subprotocols: that are offered.
    """

    def __init__(
        self, connection: Connection, cluster: Cluster, path: str, query: str, subprotocols: Sequence[str]
    ) -> None:
        self._connection = connection
        self._cluster = cluster
        uri = WebSocketURI(False, "localhost", 80, path, query)
        offered = [Subprotocol(name) for name in subprotocols]
        self._protocol = ClientProtocol(uri, subprotocols=offered or None, max_size=budgets.MESSAGE)
        self._rest = memoryview(b"")
        self._frames: deque[Frame] = deque()
        self._quiet: deque[float] = deque(maxlen=budgets.QUIET)
        self._writing = asyncio.Lock()

    async def open(self) -> str | None:
        """Shake hands; the subprotocol that was chosen.

        :raises ReplicaError: the replica does not want to.
        """
        self._protocol.send_request(self._protocol.connect())
        await self._flush()
        while self._protocol.handshake_exc is None and self._protocol.state is State.CONNECTING:
            if not await self._advance():
                break
        if self._protocol.handshake_exc is not None or self._protocol.state is State.CONNECTING:
            raise ReplicaError(f"the WebSocket is not opened: {self._protocol.handshake_exc or 'no answer'}")
        return self._protocol.subprotocol

    async def receive(self) -> str | bytes | None:
        """The next message; None at the end.

        :raises Beyond: it costs too much.
        :raises ReplicaError: the connection broke, or what came is no WebSocket's.
        """
        parts: list[bytes] = []
        frames, text = 0, False
        while True:
            while self._frames:
                frame = self._frames.popleft()
                if frame.opcode is Opcode.CLOSE:
                    return None
                if frame.opcode not in MESSAGES or not (frame.data or frame.fin):
                    self._count_quiet()
                if frame.opcode not in MESSAGES:
                    continue
                if (frames := frames + 1) > budgets.FRAMES:
                    raise Beyond(f"a message is cut into more than {budgets.FRAMES} frames")
                text = text or frame.opcode is Opcode.TEXT
                parts.append(bytes(frame.data))
                if frame.fin:
                    return _message(b"".join(parts), text)
            if self._protocol.parser_exc is not None or not await self._advance():
                self._check()
                return None

    async def send(self, message: str | bytes) -> None:
        """Send a message.

        :raises ReplicaError: the connection broke.
        """
        try:
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
        except WebSocketException as error:
            raise ReplicaError(f"the WebSocket is closed: {error}") from error
        await self._flush()

    def _count_quiet(self) -> None:
        now = time.monotonic()
        if len(self._quiet) == budgets.QUIET and now - self._quiet[0] < 1:
            raise Beyond(
                f"more than {budgets.QUIET} frames in a second carry nothing: pings, or empty parts of a message"
            )
        self._quiet.append(now)

    def _check(self) -> None:
        """:raises Exception: the connection did not end as one does."""
        match self._protocol.parser_exc:
            case PayloadTooBig():
                raise Beyond(f"a message is larger than {budgets.MESSAGE // budgets.MIB} MiB")
            case Exception() as error if not isinstance(error, EOFError):
                raise ReplicaError(f"what it sends is no WebSocket's: {str(error)[:200]}")

    async def _advance(self) -> bool:
        """Parse the next slice of what it has sent; False at the end."""
        if not self._rest:
            self._rest = memoryview(await self._connection.read())
        piece, self._rest = self._rest[: budgets.SLICE], self._rest[budgets.SLICE :]
        since = time.perf_counter()
        if piece:
            self._protocol.receive_data(bytes(piece))
        else:
            self._protocol.receive_eof()
        self._frames.extend(event for event in self._protocol.events_received() if isinstance(event, Frame))
        await self._cluster.worked(since)
        await self._flush()
        return bool(piece) and self._protocol.parser_exc is None

    async def _flush(self) -> None:
        async with self._writing:
            data = b"".join(self._protocol.data_to_send())
            if data:
                async with within(budgets.IDLE, "nothing of what it was sent was taken"):
                    await self._connection.write(data)


def _message(data: bytes, text: bool) -> str | bytes:
    try:
        return data.decode() if text else data
    except UnicodeDecodeError as error:
        raise ReplicaError("what it sends is no WebSocket's: a text is not in UTF-8") from error
