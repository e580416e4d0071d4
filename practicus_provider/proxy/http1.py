"""Requests to a replica by HTTP/1.1, and what becomes of its answers."""

from __future__ import annotations

import contextlib
import time
import zlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator

import h11

from practicus_provider.backends.base import Connection
from practicus_provider.errors import BackendError
from practicus_provider.proxy import budgets
from practicus_provider.proxy.budgets import Beyond
from practicus_provider.proxy.content import compressible, passed_on, shown, with_storage
from practicus_provider.proxy.visits import Cluster, within
from practicus_provider.proxy.wire import Asked, Channel, Kind

ANSWERS = (h11.InformationalResponse, h11.Response, h11.Data, h11.EndOfMessage)
"""What a replica says."""


class Unreadable(Exception):
    """What the replica answers is not HTTP, or nothing that is passed on."""


class Link:
    """One connection to a replica, for one request after the other."""

    def __init__(self, connection: Connection, cluster: Cluster) -> None:
        self._connection = connection
        self._cluster = cluster
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=budgets.HEAD)
        self._rest = memoryview(b"")
        self._events: deque[h11.Event] = deque()
        self._read = 0
        self._answering = False

    @property
    def silent(self) -> bool:
        """It has answered nothing to the last request."""
        return not self._read

    async def ask(self, asked: Asked) -> h11.Response:
        """The head of the answer.

        :raises Beyond: it costs too much.
        :raises Unreadable: it is none.
        :raises BackendError: the connection broke.
        """
        headers = passed_on(asked.headers, asked.prefix)
        try:
            request = h11.Request(method=asked.method, target=asked.target, headers=headers)
        except h11.LocalProtocolError as error:
            raise Unreadable(f"the browser's request cannot be passed on: {error}") from error
        self._read, self._answering, interim = 0, False, 0
        sent = [self._protocol.send(request), self._protocol.send(h11.EndOfMessage())]
        async with within(budgets.IDLE, "nothing of the request was taken"):
            await self._connection.write(b"".join(filter(None, sent)))
        while not isinstance(event := await self._event(), h11.Response):
            if (interim := interim + 1) > budgets.INTERIM:
                raise Beyond(f"it sent more than {budgets.INTERIM} interim answers (HTTP 1xx) before its answer")
        self._answering = True
        return event

    async def body(self) -> AsyncGenerator[bytes, None]:
        """What follows, as it comes."""
        parts: list[bytes] = []
        while True:
            event = await self._event()
            if isinstance(event, h11.Data):
                parts.append(bytes(event.data))
            over = isinstance(event, h11.EndOfMessage)
            if parts and (over or not (self._events or self._rest)):
                yield b"".join(parts)
                parts.clear()
            if over:
                return

    def renew(self) -> bool:
        """Whether it can be asked once more."""
        with contextlib.suppress(h11.LocalProtocolError):
            if not self._rest and self._protocol.trailing_data == (b"", False):
                self._protocol.start_next_cycle()
                return True
        return False

    async def close(self) -> None:
        """End it."""
        await self._connection.close()

    async def _event(self) -> h11.Event:
        while not self._events:
            await self._advance()
        return self._events.popleft()

    async def _advance(self) -> None:
        """Parse the next slice of what it has sent."""
        if not self._rest:
            async with within(budgets.IDLE, "nothing came"):
                self._rest = memoryview(await self._connection.read())
            if not (self._rest or self._answering):
                raise Unreadable("it has closed the connection without an answer")
        piece, self._rest = self._rest[: budgets.SLICE], self._rest[budgets.SLICE :]
        self._read += len(piece)
        since = time.perf_counter()
        try:
            self._protocol.receive_data(bytes(piece))
            while isinstance(event := self._protocol.next_event(), ANSWERS):
                self._events.append(event)
        except h11.RemoteProtocolError as error:
            if self._read <= budgets.HEAD or self._answering:
                raise Unreadable(f"what it answers is not HTTP: {str(error)[:200]}") from error
        await self._cluster.worked(since)
        if self._read > budgets.HEAD and not self._answering and not any(map(_is_head, self._events)):
            raise Beyond(f"the head of its answer is larger than {budgets.HEAD // budgets.KIB} KiB")


def _is_head(event: h11.Event) -> bool:
    return isinstance(event, h11.Response)


async def fetch(asked: Asked, cluster: Cluster, channel: Channel) -> None:
    """Pass on an answer.

    :raises Beyond: it costs too much.
    :raises Unreadable: it is none, or one that is not passed on.
    :raises BackendError: the replica cannot be reached.
    """
    async with within(budgets.WHOLE, "its answer did not end"):
        link, response = await _asked(asked, cluster)
        try:
            await _pass_on(asked, response, link, cluster, channel)
            reusable = link.renew()
        except BaseException:
            await link.close()
            raise
        if reusable:
            cluster.keep(asked.port, link)
        else:
            await link.close()


async def _asked(asked: Asked, cluster: Cluster) -> tuple[Link, h11.Response]:
    """On a connection that was kept if there is one; the replica may have closed it meanwhile."""
    if link := cluster.kept(asked.port):
        try:
            return link, await _head(link, asked)
        except (BackendError, Unreadable):
            if not link.silent:
                raise
    async with within(budgets.CONNECT, "it was not connected to"):
        link = Link(await asked.backend.connect(asked.handle, asked.port), cluster)
    return link, await _head(link, asked)


async def _head(link: Link, asked: Asked) -> h11.Response:
    try:
        async with within(budgets.ANSWER, "the head of its answer was not there"):
            return await link.ask(asked)
    except BaseException:
        await link.close()
        raise


async def _pass_on(asked: Asked, response: h11.Response, link: Link, cluster: Cluster, channel: Channel) -> None:
    found = [(name.decode(), value.decode("latin-1")) for name, value in response.headers]
    status = response.status_code
    try:
        headers = shown(found, asked.prefix, asked.target.decode("latin-1"))
    except ValueError as error:
        raise Unreadable(f"its answer leads to no URL: {error}") from error
    kind = headers.get("content-type", "").strip().lower()
    headers |= asked.apart
    if not 200 <= status <= 599:
        raise Unreadable(f"its answer has the status {status}, which is none of HTTP's")
    if kind.startswith("multipart/"):
        raise Unreadable(
            f"its answer is of several parts (Content-Type: {kind[:100]}), each of which would take the place of the "
            "page, and is not passed on; serve the page as one answer, or use a WebSocket"
        )
    chunks: AsyncIterator[bytes] = link.body()
    if kind.startswith("text/html"):
        headers.pop("content-length", None)
        chunks = with_storage(chunks)
    squeeze = None
    if compressible(asked.method, asked.headers, status, headers):
        headers.pop("content-length", None)
        headers |= {"content-encoding": "gzip", "vary": "Accept-Encoding"}
        squeeze = zlib.compressobj(5, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    await cluster.passes(0, 0)
    await channel.send_json(Kind.HEAD, {"status": status, "headers": headers})
    async for chunk in chunks:
        if squeeze is not None:
            since = time.perf_counter()
            chunk = squeeze.compress(chunk) + squeeze.flush(zlib.Z_SYNC_FLUSH)
            await cluster.worked(since)
        await cluster.passes(len(chunk), budgets.BODY_BYTE)
        await _taken(channel, Kind.BYTES, chunk)
    if squeeze is not None:
        await _taken(channel, Kind.BYTES, squeeze.flush())
    await _taken(channel, Kind.END)


async def _taken(channel: Channel, kind: Kind, data: bytes = b"") -> None:
    async with within(budgets.IDLE, "nothing of its answer was taken"):
        await channel.send(kind, data)
