"""What knows IPv4 alone reaches what has addresses of IPv6 alone."""

from __future__ import annotations

import socket
import threading

import pytest
from practicus_runtime.relay import by_ipv4


def shouting(server: socket.socket) -> None:
    """Answers each connection in capitals, once the other side has said all."""
    while True:
        with server.accept()[0] as asker:
            said = b"".join(iter(lambda: asker.recv(100), b""))
            asker.sendall(said.upper())


def asked(place: tuple[str, int], words: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as asker:
        asker.settimeout(10)
        asker.connect(place)
        asker.sendall(words)
        asker.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: asker.recv(100), b""))


def test_a_place_of_ipv6_alone_is_reached_by_ipv4_as_often_as_one_asks() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        threading.Thread(target=shouting, args=[server], daemon=True).start()
        port = server.getsockname()[1]
        assert [asked(by_ipv4("::1", port), words) for words in (b"one", b"two" * 100_000)] == [
            b"ONE",
            b"TWO" * 100_000,
        ]
        assert by_ipv4("::1", port) == by_ipv4("::1", port)


def test_a_place_that_does_not_answer_does_not_answer_by_ipv4_either() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
        port = free.getsockname()[1]
    assert asked(by_ipv4("::1", port), b"") == b""


@pytest.mark.parametrize("host", ["127.0.0.1", "nowhere.invalid"])
def test_what_has_an_address_of_ipv4_or_none_is_left_as_it_is(host: str) -> None:
    assert by_ipv4(host, 9000) == (host, 9000)
