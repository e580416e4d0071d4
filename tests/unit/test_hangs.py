"""What a replica's runner does about ranks that say nothing; whole jobs are in ``tests/integration/test_ranks.py``."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from practicus_runtime.hangs import EXIT_CODE, LINE_LIMIT, Peer, failure, stack_file, stacks

from practicus_provider import runtime

HANG = {"rank": 2, "at": 100.0, "silent": 30.5}


@pytest.fixture
def pair() -> Iterator[tuple[Peer, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Peer(ours), theirs


@pytest.fixture
def rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, str], int]]:
    """Starts a rank that runs a script; its pid once that has written its first line."""
    monkeypatch.setenv("PRACTICUS_FAILURE", str(tmp_path / "failure.json"))
    started: list[subprocess.Popen[str]] = []

    def rank(number: int, code: str) -> int:
        (tmp_path / "job.py").write_text(code)
        env = {**os.environ, "PRACTICUS_STACK": stack_file(number), "PYTHONPATH": str(runtime.FOLDER)}
        command = [sys.executable, "-m", "practicus_runtime.script", str(tmp_path / "job.py")]
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return process.pid

    yield rank
    for process in started:
        process.kill()
        process.communicate()


def test_the_replica_of_the_rank_that_hung_failed_before_all_others():
    assert failure(HANG, {2: 11, 3: 12}) == {**HANG, "exit_code": EXIT_CODE, "signal": None}
    assert failure(HANG, {0: 11, 1: 12}) == {**HANG, "rank": 0, "at": 101.0, "exit_code": EXIT_CODE, "signal": None}
    assert failure(HANG, {})["rank"] is None


def test_messages_come_whole_however_they_were_cut_and_what_is_none_is_left_out(pair):
    peer, other = pair
    other.sendall(b'{"ages": {"1": 0.5}}\nnonsense\n{"ag')
    assert list(peer.take()) == [{"ages": {"1": 0.5}}]
    other.sendall(b'es": {}}\n')
    assert list(peer.take()) == [{"ages": {}}]
    peer.send(hang=HANG)
    assert json.loads(other.recv(1 << 16)) == {"hang": HANG}


def test_a_peer_that_ended_is_closed_and_telling_it_something_is_no_error(pair):
    peer, other = pair
    other.close()
    assert (list(peer.take()), peer.open) == ([], False)
    peer.send(hang=HANG)


def test_who_sends_without_an_end_is_none_of_ours(pair, monkeypatch):
    peer, other = pair
    monkeypatch.setattr("practicus_runtime.hangs.LINE_LIMIT", 10)
    assert LINE_LIMIT > 10
    other.sendall(b"x" * 20)
    assert (list(peer.take()), peer.open) == ([], False)


WAITS = """import socket
def lost():
    ours, theirs = socket.socketpair()
    print(flush=True)
    ours.recv(1)
lost()
"""


def test_a_rank_that_waits_in_c_says_where_and_one_that_is_stopped_does_not_answer(rank):
    pids = {0: rank(0, WAITS), 5: rank(5, "import time\nprint(flush=True)\ntime.sleep(600)")}
    os.kill(pids[5], signal.SIGSTOP)
    found = stacks(pids)
    assert 'job.py", line 5 in lost\n' in found[0]
    assert found[5] == "it does not answer"
