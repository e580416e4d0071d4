"""Passes on what a browser asks of a web page that a replica serves, and what the replica answers.

The replica runs a user's code and is not trusted. It sees nothing that Airflow's cookie or token is in, and of what it
answers only that comes through which says what the content is. The browser is told to keep the page in a sandbox, so
that its scripts do not act on Airflow as whoever looks at it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Iterable
from urllib.parse import urlsplit, urlunsplit

import httpcore
from starlette.responses import Response, StreamingResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from practicus_provider.aiotasks import stop
from practicus_provider.plugins.tunnel import Tunnels, connect
from practicus_provider.plugins.websocket import WebSocketClient

HOST = "localhost"
"""What replicas are told that they are called."""
ASKED = ("accept", "accept-language", "cache-control", "if-modified-since", "if-none-match", "range", "user-agent")
"""Headers of a request that reach the replica."""
ANSWERED = (
    *("accept-ranges", "cache-control", "content-disposition", "content-encoding", "content-language"),
    *("content-length", "content-range", "content-type", "etag", "expires", "last-modified"),
)
"""Headers of an answer that reach the browser; with ``location``, which is rewritten."""
SANDBOX = {
    "Content-Security-Policy": "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    # A sandboxed page is of no origin, so it reads even its own data across origins. The ticket is in the URL, no
    # cookie is looked at: whoever can ask may read.
    "Access-Control-Allow-Origin": "*",
}
PREFLIGHT = {"Access-Control-Allow-Methods": "GET, HEAD", "Access-Control-Allow-Headers": "*"}
STORAGE = b"""<script>
for (const name of ["localStorage", "sessionStorage"]) {
  const kept = new Map();
  Object.defineProperty(window, name, {value: {
    getItem: key => kept.has(String(key)) ? kept.get(String(key)) : null,
    setItem: (key, value) => { kept.set(String(key), String(value)); },
    removeItem: key => { kept.delete(String(key)); },
    clear: () => kept.clear(),
    key: index => [...kept.keys()][index] ?? null,
    get length() { return kept.size; },
  }});
}
</script>"""
"""Stands in for what a sandboxed page may not touch, and Spark's pages fail without."""
TIMEOUT = {"connect": 30.0, "read": 60.0, "write": 60.0, "pool": 30.0}

_pool = httpcore.AsyncConnectionPool(max_connections=100, keepalive_expiry=5.0, network_backend=Tunnels())


async def fetch(
    ticket: str, method: str, path: bytes, query: bytes, headers: Iterable[tuple[str, str]], prefix: str
) -> Response:
    """The replica's answer.

    :param path: in the replica, as it was asked for.
    :param prefix: the path that the browser sees before it.
    :raises BackendError: the replica cannot be reached.
    :raises httpcore.TimeoutException: it does not answer.
    :raises httpcore.NetworkError: or another of ``httpcore``: what it answers is not HTTP.
    """
    url = httpcore.URL(scheme=b"http", host=ticket.encode(), port=80, target=path + (b"?" + query if query else b""))
    sent = passed_on(headers, prefix)
    response = await _pool.handle_async_request(
        httpcore.Request(method, url, headers=sent, extensions={"timeout": TIMEOUT})
    )
    answered = shown([(name.decode().lower(), value.decode("latin-1")) for name, value in response.headers], prefix)
    chunks = _body(response)
    if answered.get("content-type", "").startswith("text/html"):
        answered.pop("content-length", None)
        chunks = with_storage(chunks)
    return StreamingResponse(chunks, response.status, answered)


def passed_on(headers: Iterable[tuple[str, str]], prefix: str) -> list[tuple[str, str]]:
    """The headers that a replica gets for a request; Spark and others make their links with what we add."""
    kept = [(name, value) for name, value in headers if name.lower() in ASKED]
    told = [("host", HOST), ("accept-encoding", "identity")]
    return [*kept, *told, ("x-forwarded-context", prefix), ("x-forwarded-prefix", prefix)]


def shown(headers: Iterable[tuple[str, str]], prefix: str) -> dict[str, str]:
    """The headers that a browser gets with an answer."""
    found = dict(headers)
    kept = {name: value for name, value in found.items() if name in ANSWERED}
    if "location" in found:
        kept["location"] = moved(found["location"], prefix)
    return kept | SANDBOX


def moved(location: str, prefix: str) -> str:
    """Where a redirection leads, as the browser sees it."""
    parts = urlsplit(location)
    if parts.netloc and parts.hostname != HOST:
        return location
    path = parts.path or "/" if parts.netloc else parts.path
    if path.startswith("/") and not path.startswith(f"{prefix}/"):
        path = prefix + path
    return urlunsplit(("", "", path, parts.query, parts.fragment))


async def with_storage(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """An HTML page, with :data:`STORAGE` first in its head."""
    done = False
    async for chunk in chunks:
        if not done and (found := chunk.lower().find(b"<head>")) >= 0:
            at = found + len(b"<head>")
            chunk, done = chunk[:at] + STORAGE + chunk[at:], True
        yield chunk


async def relay(outer: WebSocket, ticket: str, path: str, query: str) -> None:
    """Pass on the messages of a WebSocket, both ways, until either side ends it.

    :raises BackendError: the replica cannot be reached, or does not want to.
    """
    connection = await connect(ticket)
    try:
        inner = WebSocketClient(connection, path, query, outer.scope.get("subprotocols", ()))
        await outer.accept(await inner.open())
        with contextlib.suppress(WebSocketDisconnect):
            await _first((_inward(outer, inner), _outward(outer, inner)))
    finally:
        await connection.close()
    with contextlib.suppress(RuntimeError):  # the browser has closed it
        await outer.close()


async def _first(works: Iterable[Coroutine[None, None, None]]) -> None:
    """Until one of them ends, with which the others do; the first error of theirs is raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop(*tasks)
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception())]
    if errors:
        raise errors[0]


async def _inward(outer: WebSocket, inner: WebSocketClient) -> None:
    while (message := await outer.receive())["type"] == "websocket.receive":
        await inner.send(message["text"] if message.get("text") is not None else message["bytes"])


async def _outward(outer: WebSocket, inner: WebSocketClient) -> None:
    while (message := await inner.receive()) is not None:
        await (outer.send_text(message) if isinstance(message, str) else outer.send_bytes(message))


async def _body(response: httpcore.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in response.aiter_stream():
            yield chunk
    finally:
        await response.aclose()
