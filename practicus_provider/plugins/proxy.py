"""The proxy's process (:mod:`practicus_provider.proxy`), as the API server starts it and passes its answers on.

Its first request starts it, and waits until it is there; so does the next one once it has died, or was killed because
it did not answer. Nothing is read here that a replica has sent, but frames of the proxy's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import subprocess
import sys
import time
from typing import NoReturn

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from practicus_provider.aiotasks import first
from practicus_provider.backends.local.processes import inherited
from practicus_provider.errors import BackendError
from practicus_provider.proxy.budgets import MESSAGE, MIB
from practicus_provider.proxy.content import message
from practicus_provider.proxy.wire import Asked, Channel, Kind

log = logging.getLogger(__name__)
PATIENCE = 30.0
"""Seconds that the process has to take a request, from its own start on; one that does not hangs, and is killed."""
AGAIN = 5.0
"""Seconds after the start of one that has ended before it took anything, until there is another."""
TOO_BIG = 1009
"""Why a WebSocket is closed (RFC 6455, 7.4.1)."""
INTERNAL_ERROR = 1011
BROKEN_OFF = "the process that fetches clusters' pages has broken off"


class Cut(Exception):
    """An answer ends too soon."""


class Proxy:
    """One for each process of the API server."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline: socket.socket | None = None
        self._started = float("-inf")
        self._used = True
        self._end = ""

    async def ask(self, asked: Asked) -> Channel:
        """Where the answer comes.

        :raises BackendError: the process does not do its work.
        """
        channel = await Channel.over(self._hand_over())
        process = self._process
        try:
            async with asyncio.timeout(PATIENCE):
                taken = await channel.receive()
            if taken is None:
                raise BackendError(f"{self._ended()}; open the page again")
            self._used = True
            await channel.ask(asked)
        except TimeoutError:
            await channel.close()
            if process is self._process:
                self.close()
            raise BackendError(
                f"the process that fetches clusters' pages did not answer within {PATIENCE:g} s, and was ended; open "
                "the page again, which starts another"
            ) from None
        except OSError as error:
            await channel.close()
            raise BackendError(f"{self._ended()}; open the page again") from error
        except BaseException:
            await channel.close()
            raise
        return channel

    def close(self) -> None:
        """End the process; the next request starts another."""
        if self._lifeline is not None:
            self._lifeline.close()
            self._lifeline = None
        if self._process is not None:
            self._process.kill()  # unless it has ended
            self._process.wait()
            self._end = self._ended()
            self._process = None

    def _hand_over(self) -> socket.socket:
        """This end of a socket whose other end the process has."""
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                while True:
                    try:
                        socket.send_fds(self._running(), [b"\0"], [theirs.fileno()])
                        return ours
                    except BlockingIOError:
                        raise BackendError("too many pages of clusters are asked for at once; try again") from None
                    except OSError:  # it has died since the last one
                        self.close()
            except BaseException:
                ours.close()
                raise

    def _running(self) -> socket.socket:
        """The process' lifeline.

        :raises BackendError: the last one ended as it was started.
        """
        if self._lifeline is not None and self._process is not None and self._process.poll() is None:
            return self._lifeline
        self.close()
        if self._end:
            log.warning("%s", self._end)
            if not self._used and time.monotonic() < self._started + AGAIN:
                raise BackendError(f"{self._end} as it was started; the log of Airflow's API server says why")
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-P", "-m", "practicus_provider.proxy", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, env=inherited(), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL
            )
        ours.setblocking(False)
        self._lifeline, self._started, self._used, self._end = ours, time.monotonic(), False, ""
        return ours

    def _ended(self) -> str:
        code = self._process.poll() if self._process else None
        how = "" if code is None else f" with exit code {code}" if code >= 0 else f" by signal {-code}"
        return f"the process that fetches clusters' pages has ended{how}"


class Answer(Response):
    """What the proxy answers, until the browser has gone."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on."""
        try:
            await first(_left(receive), self._pass_on(send))
        finally:
            await self._channel.close()

    async def _pass_on(self, send: Send) -> None:
        begun = False
        while frame := await self._channel.receive():
            match frame:
                case Kind.HEAD, data:
                    head, begun = json.loads(data), True
                    await _start(send, head["status"], head["headers"])
                case Kind.BYTES, data:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                case Kind.END, _:
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                    return
                case Kind.CUT, data:
                    await _cut(send, data.decode(errors="replace"))
        if begun:
            await _cut(send, BROKEN_OFF)
        words = f"{BROKEN_OFF}; the log of Airflow's API server says why. Open the page again"
        status, headers, page = message(502, "The cluster's page cannot be reached", words)
        await _start(send, status, headers)
        await send({"type": "http.response.body", "body": page, "more_body": False})


async def _start(send: Send, status: int, headers: dict[str, str]) -> None:
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})


async def _cut(send: Send, why: str) -> NoReturn:
    """End the connection to the browser, too, which would take the answer for whole.

    :raises Cut: in any case. That is not enough: Starlette's ``BaseHTTPMiddleware`` ends the answer well before it lets
        an error through. A message that is none stops it, as it does uvicorn.
    """
    await send({"type": "http.response.cut", "why": why})
    raise Cut(why)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def relay(websocket: WebSocket, channel: Channel) -> None:
    """Pass on the messages of a WebSocket, both ways, until either side ends it."""
    try:
        await websocket.receive()  # that it would be connected
        with contextlib.suppress(WebSocketDisconnect, RuntimeError):  # it has closed it meanwhile
            await first(_inward(websocket, channel), _outward(websocket, channel))
    finally:
        await channel.close()


async def _inward(websocket: WebSocket, channel: Channel) -> None:
    while (received := await websocket.receive())["type"] == "websocket.receive":
        text = received.get("text")
        kind, data = (Kind.BYTES, received["bytes"]) if text is None else (Kind.TEXT, text.encode())
        if len(data) > MESSAGE:
            await websocket.close(TOO_BIG, f"a message is larger than {MESSAGE // MIB} MiB")
            return
        with contextlib.suppress(OSError):  # the process has gone, which ends it below
            await channel.send(kind, data)


async def _outward(websocket: WebSocket, channel: Channel) -> None:
    code, reason = INTERNAL_ERROR, BROKEN_OFF
    while frame := await channel.receive():
        match frame:
            case Kind.HEAD, data:
                await websocket.accept(json.loads(data)["subprotocol"])
            case Kind.TEXT, data:
                await websocket.send_text(data.decode())
            case Kind.BYTES, data:
                await websocket.send_bytes(data)
            case Kind.END, data:
                end = json.loads(data)
                code, reason = end["code"], end["reason"]
                break
    await websocket.close(code, reason)
