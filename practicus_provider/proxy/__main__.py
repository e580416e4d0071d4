"""The proxy's process: ``python -m practicus_provider.proxy FD``, where FD is its lifeline.

Sockets of requests come through that, and it ends when the API server does, however that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable

from practicus_provider.aiotasks import first
from practicus_provider.errors import BackendError, NotFound, ReplicaError
from practicus_provider.proxy import budgets
from practicus_provider.proxy.budgets import Beyond, Busy, Slow
from practicus_provider.proxy.content import message
from practicus_provider.proxy.http1 import Unreadable, fetch
from practicus_provider.proxy.visits import Cluster, Visits, within
from practicus_provider.proxy.websocket import WebSocketClient
from practicus_provider.proxy.wire import Asked, Channel, Kind

log = logging.getLogger("practicus_provider.proxy")
INTERNAL_ERROR = 1011
"""Why a WebSocket is closed (RFC 6455, 7.4.1)."""
NORMAL = 1000
REASON = 123
"""Bytes that say why (RFC 6455, 5.5)."""
HERE = "It is there while the job runs, and for an hour after it where teardown= keeps it."


def main() -> None:
    """Serve until the other end of the lifeline is closed."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's goes to the API server too, with which this one ends
    _stand_back()
    asyncio.run(_serve(socket.socket(fileno=int(sys.argv[1]))))


def _stand_back() -> None:
    """Where processors or memory are short, the API server has them first."""
    os.nice(5)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write("500")
    with contextlib.suppress(OSError, ValueError):  # each request has two
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


async def _serve(lifeline: socket.socket) -> None:
    loop, visits, tasks = asyncio.get_running_loop(), Visits(), set[asyncio.Task[None]]()

    def begin(end: socket.socket) -> None:
        tasks.add(task := asyncio.create_task(_answer(visits, end)))
        task.add_done_callback(tasks.discard)

    # A thread of its own notices the API server's end, whatever this one is busy with.
    threading.Thread(
        target=_take, args=(lifeline, lambda end: loop.call_soon_threadsafe(begin, end)), daemon=True
    ).start()
    await loop.create_future()


def _take(lifeline: socket.socket, give: Callable[[socket.socket], object]) -> None:
    try:
        while True:
            data, ends, _, _ = socket.recv_fds(lifeline, 1, 1)
            if not data:
                break
            for end in ends:
                give(socket.socket(fileno=end))
    finally:  # whatever that was: nobody would come any more
        os._exit(0)


async def _answer(visits: Visits, end: socket.socket) -> None:
    """One request, until its answer's end or that of whoever waits for it."""
    channel = await Channel.over(end)
    try:
        with contextlib.suppress(OSError):  # the API server has closed it
            await channel.send(Kind.TAKEN)
            if asked := await channel.asked():
                cluster = visits.of(asked.handle)
                if asked.subprotocols is None:
                    await first(_left(channel), _fetch(asked, cluster, channel))
                else:
                    await _relay(asked, cluster, channel)
    except Exception:
        log.exception("a request to a cluster's page failed")
    finally:
        await channel.close()


async def _left(channel: Channel) -> None:
    while await channel.receive():
        pass


# ---- HTTP


async def _fetch(asked: Asked, cluster: Cluster, channel: Channel) -> None:
    try:
        async with cluster.slot(asked.visitor, asked.ticket):
            await fetch(asked, cluster, channel)
    except (BackendError, Beyond, Unreadable) as error:
        log.info("cluster %s: %s", asked.handle.name, error)
        if channel.begun:
            await channel.send(Kind.CUT, str(error).encode())
        else:
            status, headers, page = _page(error)
            await channel.send_json(Kind.HEAD, {"status": status, "headers": headers})
            await channel.send(Kind.BYTES, page)
            await channel.send(Kind.END)


def _page(error: Exception) -> tuple[int, dict[str, str], bytes]:
    match error:
        case NotFound():
            return message(404, "The cluster is gone", f"{error}. {HERE}")
        case BackendError():
            return message(502, "The cluster's page cannot be reached", _told(error))
        case Busy():
            return message(503, "The cluster's page is asked for too often", f"{error}")
        case Slow():
            return message(504, "The cluster's page does not answer", f"{error}")
        case _:
            return message(502, "The cluster's page cannot be read", f"{error}")


def _told(error: Exception) -> str:
    """What whoever has a ticket may read of it: not where the connection leads, and why it does not."""
    if isinstance(error, BackendError) and not isinstance(error, (NotFound, ReplicaError)):
        return "its connection cannot be used; who may read that in Airflow sees why on the page Clusters"
    return str(error)


# ---- WebSockets


async def _relay(asked: Asked, cluster: Cluster, channel: Channel) -> None:
    opened = asyncio.get_running_loop().create_future()
    try:
        await first(_inward(channel, cluster, opened), _outward(asked, channel, cluster, opened))
        code, reason = NORMAL, ""
    except (BackendError, Beyond) as error:
        log.info("cluster %s: a WebSocket ends: %s", asked.handle.name, error)
        code, reason = INTERNAL_ERROR, _told(error)
    finally:
        opened.cancel()
    await channel.send_json(Kind.END, {"code": code, "reason": reason.encode()[:REASON].decode(errors="ignore")})


async def _outward(asked: Asked, channel: Channel, cluster: Cluster, opened: asyncio.Future[WebSocketClient]) -> None:
    path, _, query = asked.target.decode("latin-1").partition("?")
    async with cluster.slot(asked.visitor, asked.ticket), contextlib.AsyncExitStack() as stack:
        async with within(budgets.CONNECT, "it was not connected to"):
            connection = await asked.backend.connect(asked.handle, asked.port)
        stack.push_async_callback(connection.close)
        client = WebSocketClient(connection, cluster, path, query, asked.subprotocols or ())
        async with within(budgets.ANSWER, "the WebSocket was not opened"):
            subprotocol = await client.open()
        await channel.send_json(Kind.HEAD, {"subprotocol": subprotocol})
        opened.set_result(client)
        while (received := await client.receive()) is not None:
            kind, data = (Kind.TEXT, received.encode()) if isinstance(received, str) else (Kind.BYTES, received)
            await cluster.passes(len(data), budgets.MESSAGE_BYTE)
            await channel.send(kind, data)


async def _inward(channel: Channel, cluster: Cluster, opened: asyncio.Future[WebSocketClient]) -> None:
    while frame := await channel.receive():
        kind, data = frame
        client = await opened
        await client.send(data.decode(errors="replace") if kind is Kind.TEXT else data)
        await cluster.passes(len(data), budgets.MESSAGE_BYTE)


if __name__ == "__main__":
    main()
