"""What the proxy's process puts up with from a replica, from visitors, and from its own end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from practicus_provider.backends.base import Backend, Connection, Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.local import LocalBackend
from practicus_provider.errors import BackendError
from practicus_provider.plan import Port
from practicus_provider.plugins import proxy as plugin
from practicus_provider.plugins.proxy import Proxy
from practicus_provider.pricing import Pricing
from practicus_provider.proxy import budgets, visits
from practicus_provider.proxy.budgets import Beyond, Busy, Slow
from practicus_provider.proxy.content import compressible
from practicus_provider.proxy.http1 import Link, Unreadable
from practicus_provider.proxy.visits import Cluster, Share, Visits, within
from practicus_provider.proxy.websocket import WebSocketClient
from practicus_provider.proxy.wire import Asked, Channel, Kind

HANDLE, PORT = Handle("c-sales-1", "uid"), Port("driver", "ui")


def asked(backend: Backend, **more: Any) -> Asked:
    return Asked("visitor", "ticket", backend, HANDLE, PORT, "GET", b"/", [("accept", "text/html")], "/p", {}, **more)


ASKED = asked(LocalBackend(Path("/nowhere")))


@pytest.fixture
def cluster() -> Cluster:
    return Visits().of(HANDLE)


class Says(Connection):
    """A replica that says this, whatever it is told."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)
        self.told = b""

    async def read(self) -> bytes:
        return next(self.pieces, b"")

    async def write(self, data: bytes) -> None:
        self.told += data

    async def close(self) -> None: ...


# ---- answers


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


async def answered(cluster: Cluster, *pieces: bytes, without_end: bytes = b"") -> tuple[int, list[bytes]]:
    endless = itertools.repeat(without_end) if without_end else ()
    link = Link(Says(itertools.chain(pieces, endless)), cluster)
    response = await link.ask(ASKED)
    return response.status_code, [piece async for piece in link.body()]


async def test_an_answer_comes_through_however_it_is_cut(cluster):
    whole = CHUNKED + b"4\r\nfine\r\n" + b"".join(b"1\r\nx\r\n" for _ in range(5000)) + b"0\r\n\r\n"
    assert await answered(cluster, b"HTTP/1.1 103 Early Hints\r\n\r\n", whole) == (200, [b"fine" + b"x" * 5000])
    each = [whole[at : at + 1] for at in range(len(whole[:200]))] + [whole[200:]]
    status, pieces = await answered(cluster, *each)
    assert (status, b"".join(pieces)) == (200, b"fine" + b"x" * 5000)


@pytest.mark.parametrize(
    ("begin", "again", "error", "words"),
    [
        (
            b"",
            b"HTTP/1.1 103 Early Hints\r\n\r\n",
            Beyond,
            "it sent more than 8 interim answers",
        ),
        (b"", b"HTTP/1.1 103 Early Hints\r\nX: " + b"y" * 8000 + b"\r\n\r\n", Beyond, "answer is larger than 32 KiB"),
        (OK, b"X: y\r\n" * 100, Beyond, "the head of its answer is larger than 32 KiB"),
        (OK + b"X: ", b"y" * 100, Beyond, "the head of its answer is larger than 32 KiB"),
        (b"", b"", Unreadable, "it has closed the connection without an answer"),
        (
            OK + b"Content-Length: 4\r\n\r\nx",
            b"",
            Unreadable,
            "received 1 bytes, expected 4",
        ),
        (OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", b"", Unreadable, "not HTTP: bad Content-Length"),
        (CHUNKED, b"0" * 100, Unreadable, "what it answers is not HTTP"),
        (CHUNKED + b"0\r\n", b"X: y\r\n" * 100, Unreadable, "what it answers is not HTTP"),
        (b"220 mail.example.com ESMTP\r\n\r\n", b"", Unreadable, "what it answers is not HTTP: illegal status line"),
    ],
)
async def test_what_is_no_answer_or_never_ends_is_ended_and_said(cluster, begin, again, error, words):
    with pytest.raises(error, match=words):
        await answered(cluster, *filter(None, [begin]), without_end=again)


async def test_a_connection_is_used_again_after_an_answer_that_has_ended(cluster):
    replica = Says([OK + b"Content-Length: 4\r\n\r\nfine", OK + b"Content-Length: 0\r\n\r\n", CHUNKED + b"1\r\nx"])
    link = Link(replica, cluster)
    for expected in (b"fine", b""):
        await link.ask(ASKED)
        assert b"".join([piece async for piece in link.body()]) == expected
        assert link.renew()
    assert replica.told.count(b"GET / HTTP/1.1") == 2
    await link.ask(ASKED)
    assert not link.renew()


@pytest.mark.parametrize(
    ("method", "accepts", "status", "answered", "expected"),
    [
        ("GET", "gzip, br", 200, {}, True),
        ("GET", "br", 200, {}, False),
        ("HEAD", "gzip", 200, {}, False),
        ("GET", "gzip", 304, {}, False),
        ("GET", "gzip", 206, {}, False),
        ("GET", "gzip", 200, {"content-encoding": "br"}, False),
    ],
)
def test_the_api_server_has_nothing_left_to_compress(method, accepts, status, answered, expected):
    assert compressible(method, [("Accept-Encoding", accepts)], status, answered) is expected


# ---- WebSockets


class Socket(Says):
    """A replica that says this once its WebSocket is open."""

    async def write(self, data: bytes) -> None:
        if self.told:
            return
        self.told = data
        server = ServerProtocol()
        server.receive_data(data)
        (request,) = server.events_received()
        server.send_response(server.accept(request))  # type: ignore[arg-type]
        self.pieces = itertools.chain(server.data_to_send(), self.pieces)


async def received(cluster: Cluster, begin: bytes, again: bytes = b"") -> list[str | bytes]:
    client = WebSocketClient(Socket([begin, *itertools.repeat(again, 1000 if again else 0)]), cluster, "/", "", [])
    await client.open()
    messages = []
    while (message := await client.receive()) is not None:
        messages.append(message)
    return messages


def frame(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


@pytest.mark.parametrize(
    ("begin", "again", "error", "words"),
    [
        (
            frame(Opcode.TEXT, fin=False),
            frame(Opcode.CONT, fin=False),
            Beyond,
            "more than 20 frames in a second",
        ),
        (frame(Opcode.TEXT, b"x"), frame(Opcode.PING, b"x"), Beyond, "more than 20 frames in a second"),
        (frame(Opcode.TEXT, b"x"), frame(Opcode.PONG), Beyond, "more than 20 frames in a second"),
        (
            frame(Opcode.TEXT, b"x", fin=False),
            frame(Opcode.CONT, b"x", fin=False) * 5,
            Beyond,
            "a message is cut into more than 4096 frames",
        ),
        (b"\x82\x7f" + (1 << 62).to_bytes(8, "big"), b"", Beyond, "a message is larger than 2 MiB"),
        (
            frame(Opcode.BINARY, fin=False) + frame(Opcode.CONT, bytes(1 << 20), fin=False) * 3,
            b"",
            Beyond,
            "a message is larger than 2 MiB",
        ),
        (b"\xc1\x04\xff\xff\xff\xff", b"", BackendError, "what it sends is no WebSocket's: reserved bits"),
        (frame(Opcode.TEXT, b"\xff"), b"", BackendError, "what it sends is no WebSocket's: a text is not in UTF-8"),
    ],
)
async def test_a_websocket_that_costs_too_much_or_is_none_is_ended_and_said(cluster, begin, again, error, words):
    with pytest.raises(error, match=words):
        await received(cluster, begin, again)


async def test_a_large_message_comes_through_in_many_frames(cluster):
    parts = frame(Opcode.BINARY, bytes(512), fin=False) + frame(Opcode.CONT, bytes(512), fin=False) * 4000
    assert await received(cluster, parts + frame(Opcode.CONT)) == [bytes(512 * 4001)]


# ---- visitors


class Clock:
    """Time that passes as somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


async def test_who_takes_more_than_their_share_waits_and_a_burst_does_not(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(visits, "time", clock)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    share = Share(0.25)
    await share.spend(budgets.BURST * 0.25)
    assert clock.now == 100
    await share.spend(0.5)
    assert clock.now == 102
    clock.now = 200
    await share.spend(budgets.BURST * 0.25 + 0.25)
    assert clock.now == 201


async def occupy(cluster: Cluster, ticket: str, stack: contextlib.AsyncExitStack, count: int, who: str = "") -> None:
    for _ in range(count):
        await stack.enter_async_context(cluster.slot(who or ticket, ticket))


async def test_one_page_takes_neither_the_whole_cluster_s_place_nor_another_one_s(monkeypatch):
    monkeypatch.setattr(budgets, "LINE", 0.05)
    everybody = Visits()
    cluster, other = everybody.of(HANDLE), everybody.of(Handle("c-other", "uid2"))
    async with contextlib.AsyncExitStack() as stack:
        await occupy(cluster, "a", stack, budgets.PER_TICKET)
        with pytest.raises(
            Busy, match=r"^its turn has not come within 0.05 s: 32 requests of one page, 64 of one user "
        ):
            await occupy(cluster, "a", stack, 1)
        await occupy(cluster, "b", stack, budgets.PER_CLUSTER - budgets.PER_TICKET)
        with pytest.raises(Busy):
            await occupy(cluster, "c", stack, 1)
        await occupy(other, "a", stack, 1)
    async with contextlib.AsyncExitStack() as stack:
        await occupy(cluster, "a", stack, budgets.PER_TICKET)


async def test_one_user_s_many_tickets_leave_room_for_other_users(monkeypatch):
    monkeypatch.setattr(budgets, "LINE", 0.05)
    everybody = Visits()
    clusters = [everybody.of(Handle(f"c-{number}", "uid")) for number in range(5)]
    async with contextlib.AsyncExitStack() as stack:
        for number in range(budgets.PER_VISITOR):
            await occupy(clusters[number % 4], f"ticket {number}", stack, 1, "greedy")
        with pytest.raises(Busy, match="64 of one user"):
            await occupy(clusters[4], "another ticket", stack, 1, "greedy")
        await occupy(clusters[0], "a", stack, 1, "modest")
    async with contextlib.AsyncExitStack() as stack:
        await occupy(clusters[4], "another ticket", stack, 1, "greedy")


async def test_one_cluster_s_many_messages_hold_up_another_one_s_for_one_of_them(monkeypatch):
    monkeypatch.setattr(budgets, "BURST", 0.0)
    monkeypatch.setattr(budgets, "FRAME", 0.01)
    everybody = Visits()
    hostile, honest = everybody.of(HANDLE), everybody.of(Handle("c-other", "uid2"))
    flood = asyncio.gather(*(hostile.passes(0, 0) for _ in range(50)))
    await asyncio.sleep(0)
    await honest.passes(0, 0)
    assert not flood.done()
    flood.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await flood


async def test_who_comes_when_too_many_wait_is_refused_at_once(cluster, monkeypatch):
    monkeypatch.setattr(budgets, "LINED_UP", 0)
    with pytest.raises(Busy, match="0 requests of this cluster wait already"):
        await occupy(cluster, "a", contextlib.AsyncExitStack(), 1)


async def test_a_timeout_of_somebody_else_s_stays_theirs():
    with pytest.raises(TimeoutError, match=r"^theirs$"):
        async with within(60, "it was not there"):
            raise TimeoutError("theirs")
    with pytest.raises(Slow, match=r"^it was not there within 0 s$"):
        async with within(0, "it was not there"):
            await asyncio.Event().wait()


# ---- its process


@pytest.mark.parametrize(
    "backend",
    [
        LocalBackend(Path("/x"), pythons={"dask": "python3"}),
        KubernetesBackend(
            Access(inline="{}"), Site("jobs", "image", {"spec": {}}, {"dask": "image"}), Pricing(currency="EUR")
        ),
    ],
)
async def test_a_request_reaches_it_as_it_was_made(backend):
    request = asked(backend, subprotocols=("bokeh",))
    ours, theirs = [await Channel.over(end) for end in socket.socketpair()]
    await ours.ask(request)
    assert await theirs.asked() == request
    await ours.close()
    assert await theirs.receive() is None
    await theirs.close()


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    proxy = Proxy()
    yield proxy
    proxy.close()


async def answer(proxy: Proxy, root: Path) -> tuple[int, bytes]:
    """Status and body that a cluster has which is gone."""
    return await answer_of(proxy, LocalBackend(root))


async def answer_of(proxy: Proxy, backend: Backend) -> tuple[int, bytes]:
    channel = await proxy.ask(asked(backend))
    frames = []
    while received := await channel.receive():
        frames.append(received)
    await channel.close()
    (head, head_data), *bodies, (end, _) = frames
    assert (head, {kind for kind, _ in bodies}, end) == (Kind.HEAD, {Kind.BYTES}, Kind.END)
    return json.loads(head_data)["status"], b"".join(data for _, data in bodies)


def processes() -> list[psutil.Process]:
    children = psutil.Process().children()
    return [child for child in children if "practicus_provider.proxy" in child.cmdline()]


async def test_the_process_is_started_once_and_again_when_it_was_killed(proxy, tmp_path):
    status, page = await answer(proxy, tmp_path)
    assert (status, b"<h1>The cluster is gone</h1>" in page) == (404, True)
    await answer(proxy, tmp_path)
    (process,) = processes()
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert (await answer(proxy, tmp_path))[0] == 404


async def test_who_has_a_ticket_is_not_told_where_the_connection_leads(proxy):
    status, page = await answer_of(proxy, KubernetesBackend(Access("/nowhere/kubeconfig"), Site("jobs")))
    assert (status, b"/nowhere" in page) == (502, False)
    assert b"its connection cannot be used; who may read that in Airflow sees why on the page Clusters" in page


async def test_the_process_has_nothing_of_airflow_s(proxy, tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__API__SECRET_KEY", "x")
    monkeypatch.setenv("AIRFLOW_CONN_DATABASE", "x")
    await answer(proxy, tmp_path)
    (process,) = processes()
    assert not [name for name in process.environ() if name.lstrip("_").startswith("AIRFLOW")]
    assert not [found.path for found in process.memory_maps() if "airflow/" in found.path]


async def test_a_process_that_hangs_is_ended_and_another_one_started(proxy, tmp_path, monkeypatch):
    await answer(proxy, tmp_path)
    (process,) = processes()
    process.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(plugin, "PATIENCE", 0.2)
    with pytest.raises(BackendError, match=r"did not answer within 0.2 s, and was ended; open the page again"):
        await answer(proxy, tmp_path)
    assert not processes()
    monkeypatch.setattr(plugin, "PATIENCE", 60)
    assert (await answer(proxy, tmp_path))[0] == 404


async def test_a_process_that_cannot_start_is_not_tried_at_each_request(proxy, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BackendError, match=r"^the process that fetches clusters' pages has ended"):
        await answer(proxy, tmp_path)
    with pytest.raises(BackendError, match="has ended with exit code 1 as it was started; the log of Airflow's API"):
        await answer(proxy, tmp_path)


PARENT = """
import asyncio, sys, time
from pathlib import Path
from practicus_provider.backends.local import LocalBackend
from practicus_provider.plugins.proxy import Proxy
from tests.unit.test_proxy import asked
proxy = Proxy()
async def main():
    await proxy.ask(asked(LocalBackend(Path(sys.argv[1]))))
asyncio.run(main())
print("asked", flush=True)
time.sleep(600)
"""


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Stands for an API server whose proxy was asked for something."""
    command = [sys.executable, "-c", PARENT, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": "."}) as parent:
        assert parent.stdout is not None
        while "asked" not in (line := parent.stdout.readline()):
            assert line, "it has ended"
        yield parent
        parent.kill()


def test_the_process_ends_with_the_api_server_s_even_where_that_is_killed(parent):
    (process,) = psutil.Process(parent.pid).children()
    assert "practicus_provider.proxy" in process.cmdline()
    parent.kill()
    process.wait(30)


async def test_a_request_that_fails_in_an_unforeseen_way_ends(proxy):
    channel = await proxy.ask(asked(None))  # type: ignore[arg-type]
    assert await channel.receive() is None
    await channel.close()
