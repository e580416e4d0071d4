"""What a browser and a replica get to see of each other, and who may look."""

from __future__ import annotations

from collections.abc import AsyncIterator

import itsdangerous
import pytest
from websockets.frames import Frame, Opcode
from websockets.server import ServerProtocol

from practicus_provider.backends.base import Connection, Handle
from practicus_provider.backends.local import LocalBackend
from practicus_provider.errors import BackendError
from practicus_provider.links import base_path, dashboard_path
from practicus_provider.plugins import Message, dashboards, places
from practicus_provider.plugins.frame import headers_of, page_of, within
from practicus_provider.plugins.ticket import LIFE, Expired, Refused, Ticket, visitor
from practicus_provider.proxy.content import STORAGE, kept_apart, moved, passed_on, shown, sources, with_storage
from practicus_provider.proxy.visits import Cluster, Visits
from practicus_provider.proxy.websocket import WebSocketClient

HANDLE = Handle("c-sales-1", "uid")
TICKET = Ticket("visitor", "sales", "practicus_default", None, "c-sales-1", "uid", "Spark UI", "driver", "ui")


# ---- tickets


def test_a_ticket_reads_back_and_fits_a_path():
    text = TICKET.signed()
    assert Ticket.read(text) == TICKET
    assert not set(text) & set("/?#%&+ ")


def test_a_ticket_is_good_for_its_life_and_says_then_what_it_was_for(monkeypatch):
    text = TICKET.signed()
    made = itsdangerous.TimestampSigner.get_timestamp
    monkeypatch.setattr(itsdangerous.TimestampSigner, "get_timestamp", lambda self: made(self) + LIFE + 2)
    with pytest.raises(Expired) as expired:
        Ticket.read(text)
    assert expired.value.ticket == TICKET


@pytest.mark.parametrize(
    "text",
    ["", "x", TICKET.signed()[:-1], "W10" + TICKET.signed(), itsdangerous.URLSafeTimedSerializer("x").dumps(["a"])],
    ids=["empty", "word", "cut", "changed", "of another key"],
)
def test_a_ticket_that_is_not_ours_is_refused(text):
    with pytest.raises(Refused, match="this is no page of a cluster"):
        Ticket.read(text)


def test_a_file_token_of_airflows_is_no_ticket():
    from airflow.configuration import conf

    token = itsdangerous.URLSafeSerializer(conf.get_mandatory_value("api", "secret_key")).dumps({"bundle_name": "b"})
    with pytest.raises(Refused):
        Ticket.read(token)


# ---- links


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("", ""),
        ("http://localhost:8080", ""),
        ("http://localhost:8080/", ""),
        ("https://example.com/team/airflow/", "/team/airflow"),
    ],
)
def test_a_link_is_a_path_on_whatever_host_airflow_is_seen_at(monkeypatch, base_url, path):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    assert base_path() == path
    more = {"namespace": "jobs", "label": "Spark UI"}
    assert dashboard_path("d", "c", "n", **more) == f"{path}/practicus/clusters/d/c/n?namespace=jobs&label=Spark+UI"
    assert dashboard_path("d", "c", "n", namespace=None) == f"{path}/practicus/clusters/d/c/n"
    assert dashboard_path("Größe.x", "conn/1?", "c-1") == f"{path}/practicus/clusters/Gr%C3%B6%C3%9Fe.x/conn%2F1%3F/c-1"


# ---- the page around a job's


@pytest.mark.parametrize(
    ("at", "seen"),
    [
        ("", ""),
        ("jobs/job/?id=1&x=%2F#a", "jobs/job/?id=1&x=%2F#a"),
        ("//evil.example.com/", "evil.example.com/"),
        ("../../auth/login", ""),
        ("a/%2e%2E/b", ""),
        ("a/..\\b", ""),
        ("a/.\t./b", ""),
        ('"><script>', "%22%3E%3Cscript%3E"),
    ],
)
def test_a_page_begins_below_its_own_root_whatever_the_url_says(at, seen):
    assert within(at) == seen


def test_the_page_around_a_job_s_names_the_job_and_frames_its_ticket_alone():
    task = {"dag_id": "sales", "run_id": "r <1>", "task_id": "etl", "map_index": 2}
    page = page_of(TICKET, task, "jobs/", "/practicus/pages/t")
    assert 'src="/practicus/pages/t/jobs/"' in page
    assert 'sandbox="allow-scripts allow-forms allow-downloads"' in page
    assert '<a href="/dags/sales/runs/r%20%3C1%3E/tasks/etl/mapped/2">sales, task etl [2], run r &lt;1&gt;</a>' in page
    assert "<strong>Spark UI</strong>" in page
    assert ">c-sales-1</a>" in page
    policy = headers_of(["airflow"], "/practicus/pages/t")["Content-Security-Policy"].split("; ")
    assert policy[:2] == ["default-src 'none'", "frame-src airflow/practicus/pages/t/"]
    assert policy[-3:] == ["base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"]


def test_who_looks_is_one_word_that_does_not_say_who():
    assert visitor("somebody") == visitor("somebody") != visitor("somebody else")
    assert "somebody" not in visitor("somebody")


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST"])
async def test_whoever_logs_what_was_asked_for_sees_no_ticket(method):
    path, sent = f"/practicus/pages/{TICKET.signed()}x/a", list[tuple[Message, str]]()
    scope: Message = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "/practicus",
    }
    scope |= {"query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http", "server": ("airflow", 80)}

    async def send(message: Message) -> None:
        sent.append((message, scope["path"]))

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    await dashboards(scope, receive, send)
    assert sent[0][0]["status"] == {"GET": 403, "OPTIONS": 200, "POST": 405}[method]
    assert {path for _, path in sent} == {scope["path"]} == {"/practicus/pages/.../a"}
    assert scope["raw_path"] == b"/practicus/pages/.../a"


# ---- connections of Airflow's


async def test_a_connection_is_not_read_for_each_file_of_a_page_and_yet_soon_again(monkeypatch, tmp_path):
    read: list[str] = []

    async def backend_of(conn_id: str, namespace: str | None) -> LocalBackend:
        read.append(conn_id)
        return LocalBackend(tmp_path)

    monkeypatch.setattr(places, "backend_of", backend_of)
    for conn_id in ("a", "b", "a"):
        assert await places.lately_backend_of(conn_id, None) == LocalBackend(tmp_path)
    assert read == ["a", "b"]
    monkeypatch.setattr(places, "FRESH", -1)
    await places.lately_backend_of("a", None)
    assert read == ["a", "b", "a"]


# ---- headers


def test_a_replica_sees_no_cookie_no_token_and_nothing_of_the_connection():
    sent = [
        *(("Cookie", "_token=x"), ("Authorization", "Bearer x"), ("Host", "airflow"), ("Origin", "null")),
        *(("Referer", "https://airflow/"), ("X-Forwarded-For", "10.0.0.1"), ("Connection", "keep-alive, X-A")),
        *(("Accept-Encoding", "gzip"), ("Accept", "text/html"), ("If-None-Match", '"1"'), ("X-Requested-With", "x")),
    ]
    assert passed_on(sent, "/p") == [
        *(("Accept", "text/html"), ("If-None-Match", '"1"')),
        *(("host", "localhost"), ("accept-encoding", "identity")),
        *(("x-forwarded-context", "/p"), ("x-forwarded-prefix", "/p")),
    ]


def test_a_browser_sees_what_the_content_is_and_is_told_to_keep_it_apart():
    answered = [
        *(("content-type", "text/html"), ("content-length", "7"), ("cache-control", "no-store")),
        *(("set-cookie", "_token=x"), ("content-security-policy", "none"), ("clear-site-data", '"*"')),
        *(("strict-transport-security", "max-age=1"), ("www-authenticate", "Basic"), ("refresh", "0; url=/")),
        *(("access-control-allow-credentials", "true"), ("transfer-encoding", "chunked"), ("server", "Jetty")),
    ]
    kept = {"content-type": "text/html", "content-length": "7", "cache-control": "no-store"}
    assert shown(answered, "/p", "/") == kept
    assert kept_apart(["airflow:8080"], "/p/t")["Content-Security-Policy"] == (
        "sandbox allow-scripts allow-forms allow-downloads; "
        "default-src airflow:8080/p/t/ ws://airflow:8080/p/t/ wss://airflow:8080/p/t/ "
        "data: blob: 'unsafe-inline' 'unsafe-eval'; "
        "form-action airflow:8080/p/t/ ws://airflow:8080/p/t/ wss://airflow:8080/p/t/; "
        "base-uri airflow:8080/p/t/ ws://airflow:8080/p/t/ wss://airflow:8080/p/t/; frame-ancestors 'self'"
    )


@pytest.mark.parametrize(
    ("hosts", "named"),
    [
        (["airflow", "airflow.example.com:8443", "airflow"], ["airflow/x/", "airflow.example.com:8443/x/"]),
        (["[::1]:8080"], ["*:*/x/"]),
        (["a; script-src *"], ["*:*/x/"]),
        ([], ["*:*/x/"]),
    ],
)
def test_a_policy_names_a_path_on_the_hosts_that_it_can_name_and_nothing_else(hosts, named):
    assert sources(hosts, "/x/") == named


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/status", "/p/t/status"),
        ("/p/t/jobs/", "/p/t/jobs/"),
        ("/p/t2/jobs/", "/p/t/p/t2/jobs/"),
        ("jobs/?id=1#x", "/p/t/a/jobs/?id=1#x"),
        ("?id=1", "/p/t/a/b?id=1"),
        ("../../../auth/login", "/p/t/auth/login"),
        ("/p/t/../../auth/login", "/p/t/auth/login"),
        ("/%2e%2E/.%2e/auth/login", "/p/t/auth/login"),
        ("..\\..\\..\\auth", "/p/t/auth"),
        ("/\\evil.example.com/", "/\\evil.example.com/"),
        ("http:/auth/login", "/p/t/auth/login"),
        ("http://localhost/jobs/?id=1", "/p/t/jobs/?id=1"),
        ("http://localhost:4040", "/p/t/"),
        ("https://dask.org/", "https://dask.org/"),
    ],
)
def test_a_redirection_stays_below_the_page(location, seen):
    assert moved(location, "/p/t", "/a/b") == seen


@pytest.mark.parametrize(
    ("chunks", "page"),
    [
        ([b"<html><HEAD>", b"x"], b"<html><HEAD>" + STORAGE + b"x"),
        ([b"<html>", b"<head>x<head>"], b"<html><head>" + STORAGE + b"x<head>"),
        ([b"no head"], b"no head"),
    ],
)
async def test_an_html_page_is_given_a_storage_of_its_own(chunks, page):
    async def body() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    assert b"".join([chunk async for chunk in with_storage(body())]) == page


# ---- connections


def cluster() -> Cluster:
    return Visits().of(HANDLE)


class Replica(Connection):
    """A replica's WebSocket server in memory.

    :param answers: frames that it sends once it is asked for the WebSocket; None: it does not want to.
    """

    def __init__(self, *answers: Frame, accepts: bool = True) -> None:
        self.protocol = ServerProtocol(subprotocols=["bokeh"])  # type: ignore[list-item]
        self.answers = answers
        self.accepts = accepts
        self.requests: list[object] = []
        self.got: list[object] = []

    async def read(self) -> bytes:
        return b"".join(self.protocol.data_to_send())

    async def write(self, data: bytes) -> None:
        self.protocol.receive_data(data)
        for event in self.protocol.events_received():
            if isinstance(event, Frame):
                self.got.append((event.opcode, bytes(event.data)))
                continue
            self.requests.append(event)
            response = self.protocol.accept(event) if self.accepts else self.protocol.reject(403, "no")  # type: ignore[arg-type]
            self.protocol.send_response(response)
            for frame in self.answers:
                self.protocol.send_frame(frame)

    async def close(self) -> None: ...


async def test_a_websocket_carries_texts_and_bytes_however_they_are_cut():
    replica = Replica(
        Frame(Opcode.TEXT, "größe".encode()[:3], fin=False),
        Frame(Opcode.CONT, "größe".encode()[3:]),
        Frame(Opcode.BINARY, b"\0\xff"),
    )
    client = WebSocketClient(replica, cluster(), "/status%2F/ws", "a=%20", ["other", "bokeh"])
    assert await client.open() == "bokeh"
    await client.send("größe")
    await client.send(b"\0")
    assert (await client.receive(), await client.receive(), await client.receive()) == ("größe", b"\0\xff", None)
    with pytest.raises(BackendError, match="the WebSocket is closed"):
        await client.send("more")
    assert replica.got == [(Opcode.TEXT, "größe".encode()), (Opcode.BINARY, b"\0")]
    (request,) = replica.requests
    assert request.path == "/status%2F/ws?a=%20"  # type: ignore[attr-defined]
    assert not {"Origin", "Cookie", "Authorization"} & set(request.headers)  # type: ignore[attr-defined]


async def test_a_replica_that_wants_no_websocket_is_an_error():
    client = WebSocketClient(Replica(accepts=False), cluster(), "/", "", [])
    with pytest.raises(
        BackendError, match="the WebSocket is not opened: server rejected WebSocket connection: HTTP 403"
    ):
        await client.open()
