"""Whoever does not hold the cluster's key is neither heard nor believed."""

from __future__ import annotations

import json
import pickle
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from practicus_runtime import channel
from practicus_runtime.channel import Channel, Listener, NoMessage, proof
from practicus_runtime.elastic import Coordinator
from practicus_runtime.hangs import Peer
from practicus_runtime.membership import Group

from practicus_provider.runtime.practicus_runtime.contract import Joining, Limits, Saying

KEY = "the cluster's key"
Pair = tuple[Channel, socket.socket]


@pytest.fixture
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def coordinator(connected: tuple[socket.socket, socket.socket]) -> Pair:
    """The coordinator's side, and whatever wants to join."""
    return Channel(connected[0]), connected[1]


def in_background(work: Callable[[], Any]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def refused(coordinator: Channel, why: str) -> None:
    with pytest.raises(OSError, match=why):
        coordinator.admit(KEY)


def test_who_holds_the_key_is_let_in_and_heard(connected):
    ours, theirs = map(Channel, connected)
    joining = in_background(lambda: (theirs.introduce(KEY), theirs.send(name="worker-0", slots=2)))
    ours.admit(KEY)
    joining.join()
    assert ours.take() == [{"name": "worker-0", "slots": 2}]


def test_another_key_is_not_enough(connected):
    ours, theirs = map(Channel, connected)

    def join() -> None:
        with pytest.raises(ConnectionError):
            theirs.introduce("another key")

    joining = in_background(join)
    refused(ours, "a stranger asked to join")
    connected[0].close()
    joining.join()


def test_a_member_does_not_believe_a_coordinator_without_the_key(connected):
    ours, theirs = map(Channel, connected)

    def pretend() -> None:
        ours.send(nonce="0")
        nonce = ours.take()[0]["nonce"]
        ours.send(proof=proof("another key", "coordinator", nonce, "0"))

    pretending = in_background(pretend)
    with pytest.raises(PermissionError, match="is not this cluster's coordinator"):
        theirs.introduce(KEY)
    pretending.join()


def test_what_the_coordinator_has_proved_proves_no_member(connected):
    """As who would let one side answer the other's question."""
    assert proof(KEY, "member", "a", "b") != proof(KEY, "coordinator", "a", "b")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b'{"nonce": "1", "proof": null}\n', "a stranger"),
        (b'{"nonce": "1", "proof": "\\u00fc"}\n', "a stranger"),
        (b'{"nonce": "1", "proof": "\\ud800"}\n', "a stranger"),
        (b"{}\n", "a stranger"),
        (b'["nonce"]\n', "no message"),
        (b"GET / HTTP/1.1\r\n\r\n", "no message"),
        (b"[" * 1000 + b"\n", "no message"),
        (b"\xff\n", "no message"),
        (b"x" * 2000, "too long"),
        (b"{}\n{}\n", "more came"),
        (b'{}\n{"name"', "more came"),
    ],
)
def test_whatever_else_a_stranger_says_is_refused(coordinator, said, why):
    ours, theirs = coordinator
    theirs.sendall(said)
    refused(ours, why)


def test_a_pickle_is_not_opened(coordinator, tmp_path):
    ours, theirs = coordinator

    class Attack:
        def __reduce__(self) -> Any:
            return open, (str(tmp_path / "opened"), "w")

    theirs.sendall(pickle.dumps(Attack()) + b"\n")
    refused(ours, "no message")
    assert not (tmp_path / "opened").exists()


def test_a_stranger_who_says_nothing_is_not_waited_for_for_ever(coordinator, monkeypatch):
    monkeypatch.setattr(channel, "STRANGER_PATIENCE", 0.05)
    refused(coordinator[0], "timed out")


def told(server: Listener, *lines: bytes, joins: bool = False) -> None:
    """Say that, after whatever it takes to be let in, until the other side closes the connection."""
    with socket.create_connection(server.server_address[:2], timeout=10) as connection:
        if joins:
            Channel(connection).introduce(KEY)
        connection.sendall(b"".join(lines))
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass


FORGED = b'{"nonce": "1", "proof": "\\ud800"}\n'


def test_a_forged_proof_is_one_plain_line_in_the_log_however_often_it_comes(capfd):
    with Listener("127.0.0.1", 0, KEY, lambda channel: None) as server:
        server.start()
        for _ in range(3):
            told(server, FORGED)
        server.shutdown()
    written = capfd.readouterr()
    assert (written.out, written.err) == ("the connection of 127.0.0.1 was closed: a stranger asked to join\n", "")


JOINS = json.dumps(Joining("worker-0", "127.0.0.1", 29500, 1).to_json()).encode() + b"\n"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ([b'{"name": "worker-0"}\n'], "what it says of itself is wrong"),
        ([JOINS, b'{"say": "done", "result": 1}\n'], "what worker-0 says is wrong"),
        ([JOINS, b'{"say": "lines", "lines": [null]}\n'], "what worker-0 says is wrong"),
        ([JOINS, b"{}\n"], "what worker-0 says is wrong"),
        ([JOINS, b"[]\n"], "what came is no message"),
    ],
)
def test_a_member_that_says_what_it_may_not_is_gone_and_the_log_says_so_in_one_line(capfd, monkeypatch, said, why):
    monkeypatch.setenv("PRACTICUS_KEY", KEY)
    coordinator = Coordinator("127.0.0.1", 0, Group(Limits(1, 4), stops=True))
    with coordinator.listener as server:
        server.start()
        told(server, *said, joins=True)
        server.shutdown()
    written = capfd.readouterr()
    assert (written.out, written.err) == (f"the connection of 127.0.0.1 was closed: {why}\n", "")
    assert coordinator.group.members == {}


def test_what_a_member_says_before_any_round_changes_nothing(capfd, monkeypatch):
    monkeypatch.setenv("PRACTICUS_KEY", KEY)
    coordinator = Coordinator("127.0.0.1", 0, Group(Limits(1, 4), stops=True))
    with coordinator.listener as server:
        server.start()
        told(
            server,
            JOINS,
            *(json.dumps(Saying(what).to_json()).encode() + b"\n" for what in ("free", "done")),
            joins=True,
        )
        server.shutdown()
    assert capfd.readouterr().err == ""
    assert (coordinator.group.members, coordinator.group.result) == ({}, None)


@pytest.mark.parametrize("said", [{"ages": []}, {"ages": {"x": 1}}, {"ages": {"0": "a"}}, {"stacks": {"0": 1}}])
def test_what_another_replica_says_of_its_ranks_is_checked(connected, said):
    with pytest.raises(NoMessage, match="what it says of its ranks is wrong"):
        Peer(Channel(connected[0])).hear(said)


def test_messages_come_whole_however_they_are_cut(connected):
    ours, theirs = Channel(connected[0]), connected[1]
    theirs.sendall(b'{"a": 1}\n{"b": 2}\n{"c"')
    assert ours.take() == [{"a": 1}, {"b": 2}]
    theirs.sendall(b": 3}\n")
    assert ours.take() == [{"c": 3}]
    theirs.close()
    with pytest.raises(ConnectionError, match="closed"):
        ours.take()


def test_what_is_said_to_one_who_is_gone_is_lost_without_a_word(connected):
    ours, theirs = Channel(connected[0]), connected[1]
    theirs.close()
    for _ in range(3):
        ours.send(do="end")
