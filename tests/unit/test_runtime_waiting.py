"""How a replica waits for another one; the clock is the test's, the connections are real."""

from __future__ import annotations

import _socket
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from practicus_runtime import waiting
from practicus_runtime.contract import NO_DNS, NO_NAME, REFUSED, TIMED_OUT
from practicus_runtime.waiting import PATIENCE, Wait, hindrance

from practicus_provider import runtime

START = 600.0


class Clock:
    """Seconds that pass only as a test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where it is written who has given up."""
    monkeypatch.setenv("PRACTICUS_FAILURE", str(tmp_path / "failure.json"))
    monkeypatch.delenv("PRACTICUS_RANK_FAILURE", raising=False)
    monkeypatch.setenv("PRACTICUS_START_TIMEOUT", str(START))
    return tmp_path / "failure.json"


@pytest.fixture
def closed() -> Iterator[int]:
    """A port that nobody listens on, and nobody else is given."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has DNS answer with an error, as only a broken cluster's does."""

    def answers(error: int) -> None:
        def lookup(*_: Any, **__: Any) -> Any:
            raise socket.gaierror(error, "no")

        monkeypatch.setattr(_socket, "getaddrinfo", lookup)

    return answers


def look(wait: Wait) -> bool:
    """A look whose try has ended."""
    there = wait.over()
    while wait.trying is not None:
        there = wait.over()
    return there


def at(clock: Clock, wait: Wait, *seconds: float) -> None:
    """Looks, so long after the wait began."""
    for second in seconds:
        clock.now = wait.began + second
        look(wait)


def lasts(clock: Clock, wait: Wait, step: float = 1.0) -> float:
    """Seconds until it gives up."""

    def whole() -> None:
        while True:
            clock.now += step
            look(wait)

    with pytest.raises(SystemExit, match=str(waiting.EXIT_CODE)):
        whole()
    return clock.now - wait.began


def test_who_is_there_at_once_is_not_spoken_of(clock, capsys):
    with socket.create_server(("127.0.0.1", 0)) as server:
        wait = Wait("worker-0", "127.0.0.1", server.getsockname()[1], clock=clock)
        assert look(wait)
        assert wait.over()
    assert look(Wait("rank 0", "localhost", clock=clock))
    assert capsys.readouterr().out == ""


def test_who_listens_at_an_ipv6_address_is_reached_and_named_as_in_a_url(clock, capsys):
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        assert look(Wait("worker-0", "::1", port, clock=clock))
        assert look(Wait("worker-0", "::1", clock=clock))
    wait = Wait("worker-0", "::1", port, clock=clock)
    at(clock, wait, 10)
    assert capsys.readouterr().out == f"waiting for worker-0 ([::1]:{port}) since 10 s: connection refused\n"


def test_after_10_s_it_is_said_for_whom_it_waits_and_what_is_in_the_way_then_once_a_minute(clock, closed, capsys):
    wait = Wait("coordinator-0", "127.0.0.1", closed, clock=clock)
    at(clock, wait, 0, 9.9)
    assert capsys.readouterr().out == ""
    at(clock, wait, 10, 11, 69, 70, 71)
    place = f"coordinator-0 (127.0.0.1:{closed})"
    assert capsys.readouterr().out.splitlines() == [
        f"waiting for {place} since 10 s: connection refused",
        f"waiting for {place} since 70 s: connection refused",
    ]


def test_another_hindrance_is_said_too_and_at_last_that_there_is_none_any_more(clock, closed, dns, capsys, monkeypatch):
    wait = Wait("rank 0", "job-0.job", clock=clock)
    real = _socket.getaddrinfo
    dns(socket.EAI_AGAIN)
    at(clock, wait, 0, 12)
    dns(socket.EAI_NONAME)
    at(clock, wait, 13, 30)
    monkeypatch.setattr(_socket, "getaddrinfo", lambda *_: real("localhost", None))
    at(clock, wait, 31)
    assert wait.over()
    assert capsys.readouterr().out.splitlines() == [
        "waiting for rank 0 (job-0.job) since 12 s: its name does not resolve, as no DNS server answers",
        "waiting for rank 0 (job-0.job) since 30 s: its name does not resolve: DNS knows no such name",
        "reached rank 0 (job-0.job) after 31 s",
    ]


def test_a_lookup_that_takes_for_ever_keeps_nobody_from_his_signals_and_is_said(clock, monkeypatch, capsys):
    monkeypatch.setattr(_socket, "getaddrinfo", lambda *_: threading.Event().wait())
    wait = Wait("rank 0", "job-0.job", clock=clock)
    for second in (0, 4, 10, 70):
        clock.now = wait.began + second
        assert not wait.over()
    assert capsys.readouterr().out.splitlines() == [
        f"waiting for rank 0 (job-0.job) since {seconds} s: {NO_DNS}" for seconds in (10, 70)
    ]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [(socket.EAI_AGAIN, PATIENCE), (socket.EAI_FAIL, PATIENCE), (socket.EAI_NONAME, START + PATIENCE)],
    ids=["no DNS", "broken DNS", "no such name"],
)
def test_dns_that_is_not_there_is_given_up_sooner_than_a_replica_that_is_not(clock, dns, error, seconds):
    dns(error)
    assert lasts(clock, Wait("rank 0", "job-0.job", clock=clock)) == pytest.approx(seconds, abs=2)


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (ConnectionRefusedError(111, "Connection refused"), START + PATIENCE),
        (TimeoutError("timed out"), PATIENCE),
        (OSError(113, "No route to host"), PATIENCE),
        (PermissionError("who answers is not this cluster's coordinator"), PATIENCE),
    ],
    ids=["refused", "timed out", "no route", "a stranger"],
)
def test_packets_that_are_lost_are_given_up_sooner_than_a_replica_that_does_not_listen(clock, error, seconds):
    def connect() -> None:
        raise error

    wait = Wait("worker-0", "127.0.0.1", 1, connect=connect, clock=clock)
    assert lasts(clock, wait) == pytest.approx(seconds, abs=2)


def test_a_short_start_timeout_makes_all_waits_short(clock, dns, closed, monkeypatch):
    monkeypatch.setenv("PRACTICUS_START_TIMEOUT", "20")
    assert lasts(clock, Wait("worker-0", "127.0.0.1", closed, clock=clock)) == pytest.approx(40, abs=2)
    dns(socket.EAI_AGAIN)
    assert lasts(clock, Wait("worker-0", "job-0.job", clock=clock)) == pytest.approx(20, abs=2)


def test_a_hindrance_that_goes_is_not_counted_with_the_next(clock, dns, monkeypatch):
    wait = Wait("rank 0", "job-0.job", clock=clock)
    dns(socket.EAI_AGAIN)
    at(clock, wait, 0, PATIENCE - 10)
    dns(socket.EAI_NONAME)
    at(clock, wait, PATIENCE - 5, START)
    dns(socket.EAI_AGAIN)
    at(clock, wait, START + 1)
    assert lasts(clock, wait) == pytest.approx(START + 1 + PATIENCE, abs=2)


@pytest.mark.parametrize("variable", ["PRACTICUS_FAILURE", "PRACTICUS_RANK_FAILURE"])
def test_who_gives_up_says_so_and_writes_it_down(clock, closed, capsys, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, str(tmp_path / "end.json"))
    monkeypatch.setenv("PRACTICUS_START_TIMEOUT", "100")
    wait = Wait("coordinator-0", "127.0.0.1", closed, clock=clock)
    assert lasts(clock, wait, step=50) == 250
    place = f"coordinator-0 (127.0.0.1:{closed})"
    assert capsys.readouterr().out.splitlines()[-1] == f"gave up waiting for {place} after 250 s: {REFUSED}"
    end = json.loads((tmp_path / "end.json").read_text())
    assert end.pop("at") > 0
    unreached = {"who": place, "why": REFUSED, "seconds": 250}
    assert end == {"exit_code": waiting.EXIT_CODE, "signal": None, "unreached": unreached}


def test_who_may_say_himself_why_he_is_refused_is_let_go_then(clock, closed, dns):
    wait = Wait("rank 0", "127.0.0.1", closed, clock=clock)
    wait.wait(clock.now)
    assert not wait.there
    dns(socket.EAI_AGAIN)
    assert not look(wait)
    clock.now += PATIENCE
    with pytest.raises(SystemExit):  # but not where the framework's own words would not tell
        wait.wait(clock.now)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"), NO_DNS),
        (socket.gaierror(socket.EAI_NODATA, "No address associated with hostname"), NO_NAME),
        (ConnectionRefusedError(111, "Connection refused"), REFUSED),
        (TimeoutError("timed out"), TIMED_OUT),
        (TimeoutError(110, "Connection timed out"), TIMED_OUT),
        (OSError(101, "Network is unreachable"), "Network is unreachable"),
        (ConnectionError("the other side has closed the connection"), "the other side has closed the connection"),
    ],
)
def test_what_is_in_the_way_is_said_in_words_that_its_advice_knows(error, words):
    assert hindrance(error) == words


def test_an_elastic_replica_waits_for_its_coordinator_as_all_wait_for_others(closed, failure):
    env = {"PRACTICUS_START_TIMEOUT": "0.1", "PRACTICUS_FAILURE": str(failure), "PYTHONPATH": str(runtime.FOLDER)}
    env |= {"PRACTICUS_COORDINATOR": f"127.0.0.1:{closed}", "PRACTICUS_KEY": "key", "LOCAL_WORLD_SIZE": "1"}
    command = [sys.executable, "-m", "practicus_runtime.member", "torch", "train.py"]
    ended = subprocess.run(command, env=env, capture_output=True, check=False, timeout=60)
    place = f"coordinator-0 (127.0.0.1:{closed})"
    assert ended.stdout.decode() == f"gave up waiting for {place} after 0 s: {REFUSED}\n", ended.stderr
    assert (ended.returncode, json.loads(failure.read_text())["unreached"]["who"]) == (waiting.EXIT_CODE, place)
