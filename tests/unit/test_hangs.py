"""What a replica's runner does about ranks that say nothing; whole jobs are in ``tests/integration/test_ranks.py``."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from practicus_runtime.channel import Listener
from practicus_runtime.contract import End
from practicus_runtime.hangs import EXIT_CODE, PATIENCE, Watch, failure, stack_file, stacks

from practicus_provider import runtime

HANG = End(EXIT_CODE, rank=2, at=100.0, silent=30.5)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Watch]]:
    """The watch of a replica of a job of two."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    made: list[Watch] = []

    def watch(*, first: bool, key: str = "the cluster's key") -> Watch:
        for name, value in (("HANGS_ADDR", "127.0.0.1"), ("HOST", "127.0.0.1"), ("HANGS_PORT", port), ("KEY", key)):
            monkeypatch.setenv(f"PRACTICUS_{name}", str(value))
        made.append(Watch(60.0, 2, first))
        return made[-1]

    yield watch
    for each in made:
        if each.listener is not None:
            if each.listening:
                each.listener.shutdown()
            each.listener.server_close()
        if each.channel is not None:
            each.channel.connection.close()


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
    assert failure(HANG, {2: 11, 3: 12}) == HANG
    assert failure(HANG, {0: 11, 1: 12}) == HANG._replace(rank=0, at=101.0)
    assert failure(HANG, {}).rank is None


def joined(watch: Watch) -> None:
    """Wait until the first replica can know of it."""
    until = time.monotonic() + PATIENCE
    while not watch.connected():
        assert time.monotonic() < until


def refused(watch: Watch) -> None:
    """Wait until it has tried to join."""
    while not watch.wait.why:
        assert not watch.connected()


def test_ranks_do_not_get_the_key(watch):
    watch(first=True)
    assert "PRACTICUS_KEY" not in os.environ


def test_a_replica_without_the_key_is_not_heard_and_keeps_nobody_from_being_heard(watch):
    first, other = watch(first=True), watch(first=False)
    first.look({}, {})
    with socket.create_connection(other.address) as silent, socket.create_connection(other.address) as stranger:
        stranger.sendall(b'{"ages": {"9": 0}}\n')
        while stranger.recv(1 << 16):  # what would have it show the key
            pass
        assert first.peers == []
        joined(other)
        other.look({1: None}, {})
        with first.changed:
            assert first.changed.wait_for(lambda: [peer.heard for peer in first.peers] == [{1: None}], PATIENCE)
        assert silent.fileno() > 0
    refused(watch(first=False, key="another"))


def test_who_only_pretends_to_be_the_first_replica_is_not_believed(watch):
    other = watch(first=False)
    impostor = Listener(*other.address, "another", lambda channel: channel.send(hang=HANG.to_json()))
    impostor.start()
    refused(other)
    assert other.look({1: None}, {}) is None
    impostor.shutdown()
    impostor.server_close()


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
