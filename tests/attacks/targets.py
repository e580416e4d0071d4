"""What :mod:`tests.attacks.fuzz` throws garbage at: everything that reads what a job has written."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import random
import re
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import urlsplit

from practicus_runtime.channel import proof
from practicus_runtime.elastic import Coordinator
from practicus_runtime.membership import Group, Phase

from practicus_provider.backends.base import Connection, Handle
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.errors import BackendError
from practicus_provider.plan import Port
from practicus_provider.proxy import wire
from practicus_provider.proxy.budgets import Beyond
from practicus_provider.proxy.content import ANSWERED, kept_apart
from practicus_provider.proxy.http1 import Unreadable, fetch
from practicus_provider.proxy.visits import Visits
from practicus_provider.proxy.websocket import WebSocketClient
from practicus_provider.proxy.wire import Asked, Kind
from practicus_provider.result import taken
from practicus_provider.runtime.practicus_runtime.contract import (
    MESSAGE_LIMIT,
    End,
    Env,
    Joining,
    LastWords,
    Limits,
    Report,
    Saying,
    Scale,
    Unreached,
    WaitLine,
    parsed,
)
from practicus_provider.spec import Elastic
from practicus_provider.status import Reason, State, Status, Verdict, explain_exit
from tests.attacks.fuzz import Case, Found, Target, like, mutated, pieces, value
from tests.attacks.hostile import MAGIC
from tests.kubernetes_objects import ALONE, SPAWNED, ends, job, pod, runs
from tests.kubernetes_objects import observe as seen
from tests.plans import SLEEP, TASK, plan, role

# ---- what a job says of its end

WORDS = (
    End(3).to_json(),
    End(1, rank=0, at=2.5, replica="worker-1", silent=7, unreached=Unreached("w-0 (w:1)", "refused", 3.5)).to_json(),
    LastWords(End(0), "[1]").to_json(),
    LastWords(End(0), result_lines=129).to_json(),
    Report(pid=7).to_json(),
    Report(end=End(signal=9)).to_json(),
    Scale("worker", 3).to_json(),
)
KEYS = (*End._fields, *Unreached._fields, "event", "pid", "result", "result_lines", "do", "role", "replicas")
LINES = [WaitLine("rank 0 (w-0:1)", 12, "refused").text(), WaitLine("worker-0 (w:1)", 40).text()]
KINDS = (End, LastWords, Report, Scale, Unreached)
ROOTS = (job(ALONE), job(ALONE, *ends("BackoffLimitExceeded")), job(SPAWNED))
WELL = Verdict(State.SUCCEEDED, Reason.COMPLETED, "driver-0 ended", exit_code=0)


@contextlib.asynccontextmanager
async def decoder() -> AsyncIterator[Case]:
    """What a launcher, a pod or a line of a log says, up to the verdict."""

    async def case(chance: random.Random) -> None:
        said = json.dumps(like(chance, chance.choice(WORDS), KEYS)).encode()
        said = mutated(chance, [said]) if chance.random() < 0.5 else said
        found = parsed(said, MESSAGE_LIMIT)
        for kind in KINDS:
            words = kind.from_json(found)
            told = words is not None and not getattr(words, "unreadable", "")
            if told and kind.from_json(json.loads(json.dumps(words.to_json(), allow_nan=False))) != words:
                raise Found(f"{words} is another one once it was written and read")
        text = said.decode(errors="replace")
        WaitLine.found_in(mutated(chance, [line.encode() for line in LINES]).decode(errors="replace"))
        state = {"terminated": {"exitCode": chance.choice((0, 1, 137)), "message": text}}
        stranger = pod("worker", 0, runs())
        stranger["metadata"]["labels"].update(
            {name: str(chance.choice(("-1", "x", "1" * 99, ""))) for name in stranger["metadata"]["labels"]}
        )
        status = seen(chance.choice(ROOTS), [pod("driver", 0, state), stranger][:: chance.choice((1, -1))]).status
        if Status.from_json(json.loads(json.dumps(status.to_json(), allow_nan=False))) != status:
            raise Found(f"{status} is another one once it was stored")
        for replica in status.replicas:
            explain_exit(replica, tail=(), decides=True).text().encode()
        result = mutated(chance, [said, json.dumps(value(chance, KEYS)).encode()]).decode(errors="surrogateescape")
        taken(WELL, result)[0].text().encode()

    yield case


# ---- an elastic training's coordinator

KEY = "the cluster's key"
STRANGERS = (
    *(b'{"nonce": "1", "proof": "\\ud800"}\n', b'{"nonce": [[[]]], "proof": "00"}\n', b'{"nonce": null}\n'),
    *(b"{}\n", b"[]\n", b"x" * 2000 + b"\n", b"GET / HTTP/1.1\r\n\r\n"),
)
MEMBER = Joining("worker-0", "127.0.0.1", 1, 1).to_json()
SAYINGS: tuple[dict[str, Any], ...] = (
    MEMBER,
    Saying("lines", ["a", "b"]).to_json(),
    Saying("free").to_json(),
    Saying("failed", ["x"], End(1, rank=0)).to_json(),
    Saying("done", result="1").to_json(),
)
SAID = (*KEYS, *MEMBER, "say", "lines", "failure", "tell", "token", "busy", "round")
SOON = 5.0
"""Seconds until a connection is closed whose other side has said all."""


@contextlib.contextmanager
def coordinator() -> Iterator[Coordinator]:
    with mock.patch.dict("os.environ", {Env.KEY: KEY}):
        leads = Coordinator("127.0.0.1", 0, Group(Limits(1, 4, join_timeout=1e9), stops=True))
    leads.listener.start()
    try:
        yield leads
    finally:
        leads.listener.shutdown()
        leads.listener.server_close()


@contextlib.asynccontextmanager
async def channel() -> AsyncIterator[Case]:
    """What strangers and members say to the coordinator."""
    written = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")

    def case(chance: random.Random) -> None:
        if leads.group.phase is Phase.OVER:
            leads.group = Group(leads.group.limits, stops=chance.random() < 0.5)
        with socket.create_connection(leads.listener.server_address[:2], timeout=SOON) as connection:
            asked = json.loads(connection.makefile("rb").readline())["nonce"]
            with contextlib.suppress(OSError):
                if chance.random() < 0.5:
                    connection.sendall(mutated(chance, STRANGERS))
                else:
                    connection.sendall(line_of({"nonce": "n", "proof": proof(KEY, "member", asked, "n")}))
                    for saying in [MEMBER, *chance.choices(SAYINGS, k=chance.randrange(4))]:
                        line = line_of(like(chance, saying, SAID) if chance.random() < 0.7 else saying)
                        connection.sendall(line if chance.random() < 0.9 else mutated(chance, [line]))
                with leads.changed:
                    leads.group.step(time.monotonic())
                connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                while connection.recv(1 << 16):
                    pass
        _quiet(written)

    with contextlib.redirect_stderr(written), contextlib.redirect_stdout(written), coordinator() as leads:

        async def in_a_thread(chance: random.Random) -> None:
            await asyncio.to_thread(case, chance)

        yield in_a_thread
    threads = [thread.name for thread in threading.enumerate() if "process_request_thread" in thread.name]
    if len(threads) > 10:
        raise Found(f"{len(threads)} threads are left")


def line_of(message: object) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _quiet(written: io.TextIOWrapper) -> None:
    """:raises Found: there is a traceback."""
    written.seek(0)
    text = written.read()
    written.seek(0)
    written.truncate()
    if "Traceback" in text:
        raise Found(text[text.index("Traceback") :][-1500:])


# ---- a local cluster's supervisor

ASKS = (
    *(b'{"do": "watch", "lease": null}\n', b'{"do": "watch", "lease": 60}\n', b'{"do": "watch", "lease": "keep"}\n'),
    *(b'{"do": "delete", "after": 60}\n', b'{"do": "scale", "role": "worker", "replicas": 1}\n'),
    *(b"x" * 5000 + b"\n", b"y" * ((1 << 20) + 1) + b"\n", b"GET / HTTP/1.1\r\n\r\n"),
)
ASKED_OF_IT = ("do", "lease", "after", "role", "replicas")
WORKERS = plan(role("driver", SLEEP), role("worker", SLEEP, replicas=1, elastic=Elastic(1, 2)), timeout=3600.0)


@contextlib.asynccontextmanager
async def control() -> AsyncIterator[Case]:
    """What comes to a supervisor's socket. One that was told to end is followed by another."""
    with tempfile.TemporaryDirectory() as root:
        backend, name = LocalBackend(Path(root)), "c-fuzzed"
        folder, handles = ClusterFolder(Path(root) / name), [await backend.create(name, WORKERS, task=TASK)]

        async def case(chance: random.Random) -> None:
            with contextlib.suppress(FileNotFoundError, ConnectionError):
                await ask(folder, chance)
            log = folder.path / "logs" / "supervisor.log"
            text = log.read_text() if log.exists() else ""
            status = folder.status()
            if "Traceback" in text:
                log.write_text("")
                raise Found(text[text.index("Traceback") :][-1500:])
            if status is None or status.state.final:
                await backend.delete(handles.pop())
                handles.append(await backend.create(name, WORKERS, task=TASK))
                if status and status.verdict and status.verdict.reason is Reason.SUPERVISOR_LOST:
                    raise Found(status.verdict.text())

        try:
            yield case
        finally:
            await backend.delete(handles.pop())


async def ask(folder: ClusterFolder, chance: random.Random) -> None:
    asks = [*ASKS, json.dumps(like(chance, json.loads(chance.choice(ASKS[:5])), ASKED_OF_IT)).encode() + b"\n"]
    reader, writer = await asyncio.open_unix_connection(folder.control, limit=4 << 20)
    with contextlib.closing(writer):
        for piece in pieces(chance, mutated(chance, asks[-1:] if chance.random() < 0.6 else asks)):
            writer.write(piece)
        writer.write_eof()
        with contextlib.suppress(ValueError):
            async with asyncio.timeout(SOON):
                await reader.read()


# ---- a page of a job


class Says(Connection):
    """A replica that says this, whatever it is told; ``KEY`` in it is what a WebSocket's server has to say."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        self._pieces = list(reversed(pieces))
        self._told = b""

    async def read(self) -> bytes:
        piece = self._pieces.pop() if self._pieces else b""
        if b"ACCEPT" in piece and (key := re.search(rb"(?i)sec-websocket-key: (\S+)", self._told)):
            piece = piece.replace(b"ACCEPT", base64.b64encode(hashlib.sha1(key[1] + MAGIC).digest()))
        return piece

    async def write(self, data: bytes) -> None:
        self._told += data

    async def close(self) -> None: ...


class Backend:
    """Leads to such a replica."""

    def __init__(self, replica: Says) -> None:
        self._replica = replica

    async def connect(self, handle: Handle, port: Port) -> Says:
        return self._replica


HANDLE, PORT = Handle("c-1", "uid"), Port("driver", "ui")
PAGE = b"<html><head>x</head></html>"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
ANSWERS = (
    OK + b"Content-Length: %d\r\n\r\n" % len(PAGE) + PAGE,
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n1b\r\n" + PAGE + b"\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 302 Found\r\nLocation: /a/b?c#d\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK + b"\r\n" + PAGE,
    b"HTTP/1.1 299 Odd\r\nContent-Type: multipart/x-mixed-replace; boundary=b\r\n\r\n--b\r\n",
    b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n',
    b"HTTP/1.0 500\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b",
)
MAY_RAISE = (BackendError, Beyond, Unreadable)
APART = kept_apart(["airflow"], "/p/t")
HEADERS = {*ANSWERED, "location", "vary", "content-security-policy", "referrer-policy", "access-control-allow-origin"}


@contextlib.asynccontextmanager
async def http() -> AsyncIterator[Case]:
    """What a page answers by HTTP, up to the frames that the API server gets."""

    async def case(chance: random.Random) -> None:
        replica = Says(pieces(chance, mutated(chance, ANSWERS)))
        accepts = [("accept-encoding", chance.choice(("gzip", "br")))]
        method = chance.choice(("GET", "GET", "HEAD"))
        asked = Asked("v", "t", Backend(replica), HANDLE, PORT, method, b"/", accepts, "/p/t", APART)  # type: ignore[arg-type]
        ours, theirs = [await wire.Channel.over(end) for end in socket.socketpair()]
        reading = asyncio.create_task(_frames(theirs))
        try:
            with contextlib.suppress(*MAY_RAISE):
                await fetch(asked, Visits().of(HANDLE), ours)
        finally:
            await ours.close()
            frames = await reading
            await theirs.close()
        for kind, data in frames:
            if kind is Kind.HEAD:
                _check_head(json.loads(data))

    yield case


async def _frames(channel: wire.Channel) -> list[tuple[Kind, bytes]]:
    found = []
    while frame := await channel.receive():
        found.append(frame)
    return found


def _check_head(head: dict[str, Any]) -> None:
    """:raises Found: the API server would pass on what it should not, or could not."""
    if not 200 <= head["status"] <= 599:
        raise Found(f"a status {head['status']}")
    if unknown := {name.lower() for name in head["headers"]} - HEADERS:
        raise Found(f"headers {unknown}")
    location = head["headers"].get("location", "/p/t/")
    if not location.startswith("/p/t/") and not urlsplit(location.replace("\\", "/")).netloc:
        raise Found(f"a redirection out of the page: {location!r}")
    for name, text in head["headers"].items():
        text.encode("latin-1")
        if set(text) & set("\r\n\0"):
            raise Found(f"{name}: {text!r}")


UPGRADE = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: ACCEPT\r\n\r\n"
)
FRAMES = (
    *(b"\x81\x04fine", b"\x01\x02ab\x80\x01c", b"\x82\x7e\x01\x00" + bytes(256), b"\x89\x00", b"\x8a\x00"),
    *(b"\x88\x02\x03\xe8", b"\x81\x02\xc3\xbc", b"\x00\x01x"),
    b"\x82\x7f" + (1 << 16).to_bytes(8, "big") + bytes(1 << 16),
)


@contextlib.asynccontextmanager
async def websocket() -> AsyncIterator[Case]:
    """What a page says by a WebSocket, its handshake too."""

    async def case(chance: random.Random) -> None:
        frames = b"".join(mutated(chance, FRAMES, 3) for _ in range(chance.randrange(6)))
        upgrade = mutated(chance, [UPGRADE, *ANSWERS]) if chance.random() < 0.3 else UPGRADE
        replica = Says([upgrade, *pieces(chance, frames)] if chance.random() < 0.7 else [upgrade + frames])
        client = WebSocketClient(replica, Visits().of(HANDLE), "/ws", "", ["bokeh"])
        with contextlib.suppress(*MAY_RAISE):
            await client.open()
            while (message := await client.receive()) is not None:
                if isinstance(message, str):
                    message.encode()

    yield case


TARGETS: dict[str, Target] = {
    "channel": channel,
    "control": control,
    "decoder": decoder,
    "http": http,
    "websocket": websocket,
}
