"""The client's side of a WebSocket over a connection to a replica."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import WebSocketURI

from practicus_provider.backends.base import Connection
from practicus_provider.errors import BackendError

LARGEST = 16 << 20
"""Bytes of a message; a larger one ends the connection. The same as uvicorn's for what comes from the browser."""


class WebSocketClient:
    """Messages, strings or bytes, to and from a replica.

    :param path: of the request.
    :param query: without its question mark.
    :param subprotocols: that are offered.
    """

    def __init__(self, connection: Connection, path: str, query: str, subprotocols: Sequence[str]) -> None:
        self._connection = connection
        uri = WebSocketURI(False, "localhost", 80, path, query)
        offered = [Subprotocol(name) for name in subprotocols]
        self._protocol = ClientProtocol(uri, subprotocols=offered or None, max_size=LARGEST)
        self._frames: deque[Frame] = deque()
        self._writing = asyncio.Lock()

    async def open(self) -> str | None:
        """Shake hands; the subprotocol that was chosen.

        :raises BackendError: the replica does not want to.
        """
        self._protocol.send_request(self._protocol.connect())
        await self._flush()
        while self._protocol.handshake_exc is None and self._protocol.state is State.CONNECTING:
            if not await self._advance():
                break
        if self._protocol.state is not State.OPEN:
            raise BackendError(f"the WebSocket is not opened: {self._protocol.handshake_exc or 'no answer'}")
        return self._protocol.subprotocol

    async def receive(self) -> str | bytes | None:
        """The next message; None at the end.

        :raises BackendError: the connection broke.
        """
        parts: list[bytes] = []
        text = False
        while True:
            while self._frames:
                frame = self._frames.popleft()
                if frame.opcode is Opcode.CLOSE:
                    return None
                if frame.opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
                    text = text or frame.opcode is Opcode.TEXT
                    parts.append(bytes(frame.data))
                    if frame.fin:
                        message = b"".join(parts)
                        return message.decode(errors="replace") if text else message
            if not await self._advance():
                return None

    async def send(self, message: str | bytes) -> None:
        """Send a message.

        :raises BackendError: the connection broke.
        """
        try:
            if isinstance(message, str):
                self._protocol.send_text(message.encode())
            else:
                self._protocol.send_binary(message)
        except WebSocketException as error:
            raise BackendError(f"the WebSocket is closed: {error}") from error
        await self._flush()

    async def _advance(self) -> bool:
        """Read what comes next; False at the end."""
        data = await self._connection.read()
        if data:
            self._protocol.receive_data(data)
        else:
            self._protocol.receive_eof()
        self._frames.extend(event for event in self._protocol.events_received() if isinstance(event, Frame))
        await self._flush()
        return bool(data) and self._protocol.parser_exc is None

    async def _flush(self) -> None:
        async with self._writing:
            for data in self._protocol.data_to_send():
                if data:
                    await self._connection.write(data)
