"""The rendezvous of Horovod's ranks, and what a rank does to it that is killed amid its request."""

from __future__ import annotations

import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from practicus_runtime.horovod import Handler, Rendezvous

LOOPBACK = "127.0.0.1"


@pytest.fixture
def server() -> Iterator[Rendezvous]:
    with Rendezvous(LOOPBACK, 0, 2) as server:
        server.daemon_threads = False  # so that its end waits for all requests
        yield server


def cut_off(server: Rendezvous, request: bytes, *, reset: bool) -> None:
    """Send that, and end as a process that is killed; what the server makes of it is over then."""
    with socket.create_connection((LOOPBACK, server.server_address[1])) as connection:
        connection.sendall(request)
        if reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server.handle_request()
    server.server_close()


def asked(server: Rendezvous, key: str, value: bytes | None = None) -> tuple[int, bytes]:
    url = f"http://{LOOPBACK}:{server.server_address[1]}{key}"
    request = urllib.request.Request(url, data=value, method="GET" if value is None else "PUT")
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.parametrize("reset", [True, False], ids=["reset", "closed"])
@pytest.mark.parametrize(
    "request_", [b"GET /global/0", b"PUT /global/0 HTTP/1.1\r\nContent-Length: 9\r\n\r\nhal"], ids=["line", "body"]
)
def test_a_rank_that_is_killed_amid_its_request_leaves_neither_a_traceback_nor_part_of_a_value(
    server, capfd, request_, reset
):
    cut_off(server, request_, reset=reset)
    assert capfd.readouterr().err == ""
    assert server.values == {}


@pytest.mark.parametrize("length", ["x", "-1", "", "9" * 5000, "\u00b2"])
def test_a_value_of_no_length_is_refused_without_a_traceback(server, capfd, length):
    request = f"PUT /global/0 HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode("latin-1")
    with socket.create_connection((LOOPBACK, server.server_address[1])) as connection:
        connection.sendall(request)
        server.handle_request()
        assert connection.recv(100).startswith(b"HTTP/1.0 400 ")
    assert "Traceback" not in capfd.readouterr().err


def test_each_key_is_written_once(server):
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    assert asked(server, "/global/0") == (404, b"")
    assert asked(server, "/global/0", b"whole") == (200, b"")
    assert asked(server, "/global/0", b"other") == (403, b"")
    assert asked(server, "/global/0") == (200, b"whole")
    server.shutdown()


def test_a_fault_of_the_rendezvous_itself_is_not_hidden(server, capfd, monkeypatch):
    monkeypatch.setattr(Handler, "do_GET", lambda self: 1 / 0)
    cut_off(server, b"GET /global/0 HTTP/1.1\r\n\r\n", reset=False)
    assert "ZeroDivisionError" in capfd.readouterr().err
