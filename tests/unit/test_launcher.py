from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from practicus_runtime import launcher

from practicus_provider.runtime import START

PATIENCE = 10.0
"""Seconds after which a test that waits has failed."""
NAMELESS_UID = 123_456_789
SLEEP = "import time; print('up', flush=True); time.sleep(600)"
DEAF = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print('deaf', flush=True))
print('up', flush=True)
while True:
    time.sleep(0.01)
"""
DAEMON = """
import os, signal, sys, time
def child():
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.stdout.flush()
    open(sys.argv[1] + ".new", "w").write(str(os.getpid()))
    os.replace(sys.argv[1] + ".new", sys.argv[1])
    time.sleep(600)
if not os.fork():
    child()
while not os.path.exists(sys.argv[1]):
    time.sleep(0.01)
print("up", flush=True)
"""


def until(met: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := met():
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited in vain for {what}")


def lives(pid: int) -> bool:
    """Whether a process runs; one that ended and that nobody reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def handles_sigterm(pid: int) -> bool:
    """Whether a process would not die of SIGTERM; Python does by default."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(status["SigCgt"], 16) >> (signal.SIGTERM - 1) & 1)


@dataclass
class Launched:
    """A launcher that runs, as a backend starts it."""

    process: subprocess.Popen[bytes]
    report: int
    log: Path

    def says(self, text: str) -> None:
        until(lambda: text in self.log.read_text().splitlines(), f"{text!r} in {self.log.read_text()!r}")

    def end(self) -> tuple[int, list[dict[str, Any]]]:
        """Its exit code and its reports."""
        code = self.process.wait(PATIENCE)
        with open(self.report, closefd=False) as reports:
            return code, [json.loads(line) for line in reports]

    def started(self) -> int:
        """The command's pid, as reported first."""
        return json.loads(os.read(self.report, 4096))["pid"]


Start = Callable[..., Launched]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts launchers that are gone afterwards."""
    launched: list[Launched] = []

    def start(command: list[str], *, after: Any = (), grace: float = 5.0, log_bytes: int | None = None) -> Launched:
        read, write = os.pipe()
        order = {"command": command, "after": list(after), "grace": grace, "report": write, "leash": True}
        if log_bytes is not None:
            order |= {"log": str(tmp_path / "log"), "log_bytes": log_bytes}
        (tmp_path / "launch.json").write_text(json.dumps(order))
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(START), str(tmp_path / "launch.json")],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(write,),
                start_new_session=True,
            )
        os.close(write)
        launched.append(Launched(process, read, tmp_path / "log"))
        return launched[-1]

    yield start
    for one in launched:
        assert one.process.stdin is not None
        one.process.stdin.close()
        try:
            one.process.wait(PATIENCE)
        finally:
            one.process.kill()
            one.process.wait()
            os.close(one.report)


@pytest.mark.parametrize(
    ("env", "name"),
    [({}, "practicus"), ({"USER": "me"}, "me"), ({"LOGNAME": "me"}, "me"), ({"USER": "you", "LOGNAME": "me"}, "me")],
)
def test_a_user_whose_uid_has_no_name_has_one_for_whoever_asks_the_environment(tmp_path, monkeypatch, env, name):
    for variable in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in env.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("HOME", "/work")
    users = tmp_path / "passwd"
    users.write_text("root:x:0:0::/root:/bin/sh\n")
    launcher.name_user(NAMELESS_UID, str(users))
    assert (os.environ["USER"], os.environ["LOGNAME"], getpass.getuser()) == (name, name, name)
    entry = f"{name}:x:{NAMELESS_UID}:{os.getgid()}::/work:/bin/false"
    assert users.read_text().splitlines() == ["root:x:0:0::/root:/bin/sh", entry]


def test_a_table_of_users_that_cannot_be_written_is_left(tmp_path, monkeypatch):
    monkeypatch.delenv("USER", raising=False)
    monkeypatch.setenv("LOGNAME", "me")
    launcher.name_user(NAMELESS_UID, str(tmp_path / "no" / "passwd"))
    launcher.name_user(NAMELESS_UID, None)
    assert os.environ["USER"] == "me"


def test_a_user_that_has_a_name_keeps_the_environment_that_it_has(tmp_path, monkeypatch):
    monkeypatch.delenv("USER", raising=False)
    monkeypatch.setenv("LOGNAME", "other")
    launcher.name_user(0, str(tmp_path / "passwd"))
    assert ("USER" in os.environ, os.environ["LOGNAME"], list(tmp_path.iterdir())) == (False, "other", [])


def python(code: str, *args: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code, *args]


@pytest.mark.parametrize("code", [0, 3, 255])
def test_the_exit_code_is_the_commands(start, code):
    launched = start(python(f"import sys; print('hello'); sys.exit({code})"))
    exit_code, [started, ended] = launched.end()
    assert (exit_code, started["event"], launched.log.read_text()) == (code, "started", "hello\n")
    assert ended == {"event": "ended", "exit_code": code, "signal": None}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_command_that_a_signal_ends_is_reported_with_it(start, number):
    exit_code, [_, ended] = start(python(f"import os; os.kill(os.getpid(), {number.value})")).end()
    assert exit_code == 128 + number
    assert ended == {"event": "ended", "exit_code": None, "signal": number}


def test_a_command_that_fails_as_another_process_did_is_reported_with_that_ones_end(start, tmp_path, monkeypatch):
    cause = {"rank": 3, "exit_code": None, "signal": 9, "at": 1.5}
    monkeypatch.setenv("PRACTICUS_FAILURE", str(tmp_path / "failure.json"))
    (tmp_path / "failure.json").write_text(json.dumps(cause))
    exit_code, [_, ended] = start(python("import sys; sys.exit(137)")).end()
    assert (exit_code, ended) == (137, {"event": "ended", **cause})
    assert start(python("pass")).end()[1][1] == {"event": "ended", "exit_code": 0, "signal": None}


@pytest.mark.parametrize(
    ("told", "killed"),
    [
        ("low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\noom_group_kill 0\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", 1),
        ("oom_kill_disable 0\nunder_oom 0\n", 0),
        ("", 0),
        ("?", 0),
        (None, 0),
    ],
    ids=["cgroups 2", "cgroups 1", "an old kernel", "nothing", "something else", "no such file"],
)
def test_the_kernel_tells_how_many_processes_it_killed_as_memory_ran_out(tmp_path, monkeypatch, told, killed):
    if told is not None:
        (tmp_path / "memory.events").write_text(told)
    monkeypatch.setattr(launcher, "OUT_OF_MEMORY", (str(tmp_path / "elsewhere"), str(tmp_path / "memory.events")))
    assert launcher.oom_kills() == killed


def test_a_command_that_is_not_there_is_127_and_says_so(start):
    launched = start(["/nowhere/program"])
    assert launched.end() == (127, [{"event": "ended", "exit_code": 127, "signal": None}])
    assert launched.log.read_text() == "cannot start /nowhere/program: No such file or directory\n"


def test_the_command_gets_its_arguments_as_they_are_and_no_input(start):
    args = ["a b", "$HOME", "*", "", "'\"", "größe"]
    launched = start(python("import sys; print(sys.argv[1:]); print(sys.stdin.read())", *args))
    assert launched.end()[0] == 0
    assert launched.log.read_text() == f"{args}\n\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_reaches_the_command_as_sigterm(start, number):
    handler = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); "
    launched = start(python(handler + SLEEP))
    launched.says("up")
    launched.process.send_signal(number)
    exit_code, [_, ended] = launched.end()
    assert (exit_code, ended) == (7, {"event": "ended", "exit_code": 7, "signal": None, "stopped": True})


def test_a_command_that_ignores_the_request_is_killed_after_the_grace_time(start):
    launched = start(python(DEAF), grace=0.3)
    launched.says("up")
    asked = time.monotonic()
    launched.process.terminate()
    exit_code, [_, ended] = launched.end()
    assert time.monotonic() - asked >= 0.3
    assert (exit_code, ended) == (137, {"event": "ended", "exit_code": None, "signal": 9, "stopped": True})
    assert "deaf" in launched.log.read_text()


def test_a_second_request_kills_at_once(start):
    launched = start(python(DEAF), grace=600)
    launched.says("up")
    launched.process.terminate()
    launched.says("deaf")
    launched.process.terminate()
    assert launched.end()[0] == 137


def test_the_command_starts_once_the_ports_accept(start):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        launched = start(python("print('up')"), after=[["server-0", "127.0.0.1", port]])
        until(lambda: handles_sigterm(launched.process.pid), "its start")
        time.sleep(0.2)  # that it does not start has no sign to wait for
        assert (launched.process.poll(), launched.log.read_text()) == (None, "")
        server.listen()
        assert launched.end()[0] == 0
    assert launched.log.read_text() == "up\n"


def test_a_request_to_stop_ends_the_wait_for_a_port_before_the_command_starts(start):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        launched = start(python(SLEEP), after=[["server-0", "127.0.0.1", server.getsockname()[1]]])
        until(lambda: handles_sigterm(launched.process.pid), "its signal handler")
        launched.process.terminate()
        exit_code, events = launched.end()
    assert exit_code == 143
    assert [event for event in events if event["event"] == "started"] == []


def test_a_port_that_nobody_opens_is_spoken_of_and_given_up_and_the_command_never_starts(start, tmp_path, monkeypatch):
    monkeypatch.setenv("PRACTICUS_START_TIMEOUT", "0.2")
    monkeypatch.setenv("PRACTICUS_FAILURE", str(tmp_path / "failure.json"))
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = server.getsockname()[1]
        launched = start(python("print('up')"), after=[["server-0", "127.0.0.1", port]])
        exit_code, [ended] = launched.end()
    unreached = {"who": f"server-0 (127.0.0.1:{port})", "why": "connection refused", "seconds": 0}
    assert ended.pop("at") > 0
    assert (exit_code, ended) == (69, {"event": "ended", "exit_code": 69, "signal": None, "unreached": unreached})
    said = f"gave up waiting for server-0 (127.0.0.1:{port}) after 0 s: connection refused\n"
    assert launched.log.read_text() == said


def test_a_daemon_that_the_command_leaves_does_not_survive_it(start, tmp_path):
    launched = start(python(DAEMON, str(tmp_path / "pid")), grace=0.2)
    assert launched.end()[0] == 0
    assert not lives(int((tmp_path / "pid").read_text()))


def test_a_daemon_does_not_survive_a_request_to_stop(start, tmp_path):
    launched = start(python(DAEMON + SLEEP, str(tmp_path / "pid")))
    launched.says("up")
    launched.process.terminate()
    assert launched.end()[0] == 143
    assert not lives(int((tmp_path / "pid").read_text()))


def test_where_the_supervisor_dies_everything_dies_at_once(start, tmp_path):
    launched = start(python(DAEMON + DEAF, str(tmp_path / "pid")), grace=600)
    command = launched.started()
    launched.says("up")
    until(lambda: handles_sigterm(command), "the command's handler")
    launched.process.stdin.close()
    assert launched.process.wait(PATIENCE) == 137
    assert [lives(pid) for pid in (command, int((tmp_path / "pid").read_text()))] == [False, False]


def test_where_the_launcher_is_killed_its_command_dies(start):
    launched = start(python(SLEEP))
    command = launched.started()
    launched.says("up")
    launched.process.kill()
    until(lambda: not lives(command), "the command's end")


def test_what_the_command_orphans_is_reaped_while_it_runs(start, tmp_path):
    orphan = "import os\nif not os.fork():\n    os.fork() or os._exit(0)\n    os._exit(0)\nos.wait()\n"
    launched = start(python(orphan + SLEEP))
    launched.says("up")
    command = launched.started()
    children = Path(f"/proc/{launched.process.pid}/task/{launched.process.pid}/children")
    until(lambda: children.read_text().split() == [str(command)], "the orphan's end")


def test_a_supervisor_that_no_longer_reads_reports_does_not_hurt(start):
    launched = start(python(SLEEP))
    launched.says("up")
    with contextlib.suppress(OSError):
        os.close(launched.report)
    launched.report = os.open(os.devnull, os.O_RDONLY)
    launched.process.terminate()
    assert launched.end() == (143, [])


def test_the_launcher_needs_no_site_packages_and_no_environment(tmp_path):
    (tmp_path / "launch.json").write_text(json.dumps({"command": ["/bin/sh", "-c", "exit 4"], "after": [], "grace": 1}))
    command = [sys.executable, "-I", "-S", str(START), str(tmp_path / "launch.json")]
    assert subprocess.run(command, env={}, stdin=subprocess.DEVNULL, check=False, timeout=PATIENCE).returncode == 4


# ---- a log within bounds

PRINT = "import sys\nfor number in range(int(sys.argv[1])): print(f'{number:09}')"


def test_of_what_a_command_and_its_children_write_no_more_is_kept_than_was_said(start, tmp_path):
    prints = ["-c", "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])", "-c", PRINT, "300000"]
    launched = start([sys.executable, *prints], log_bytes=1 << 20)
    assert launched.end()[0] == 0
    files = sorted(tmp_path.glob("log*"))
    assert sum(path.stat().st_size for path in files) <= 1 << 20
    assert files[0].read_text().startswith("000000000\n000000001\n")
    assert files[-1].read_text().endswith("000299998\n000299999\n")


def test_all_that_a_command_has_written_is_in_its_log_when_its_end_is_told(start):
    launched = start([sys.executable, "-c", PRINT, "9999"], log_bytes=1 << 20)
    told = b""
    while b'"ended"' not in told:
        told += os.read(launched.report, 4096) or pytest.fail(f"no end was told, but {told!r}")
    assert launched.log.read_text().splitlines() == [f"{number:09}" for number in range(9999)]


def test_what_the_launcher_says_itself_is_in_the_log_too(start):
    launched = start(["/absent"], log_bytes=1 << 20)
    assert launched.end()[0] == 127
    launched.says("cannot start /absent: No such file or directory")


def test_a_command_that_writes_without_end_is_stopped_as_any(start):
    launched = start([sys.executable, "-c", "while True: print('x' * 999)"], log_bytes=1 << 20, grace=0.1)
    launched.started()
    launched.process.send_signal(signal.SIGTERM)
    assert launched.end()[0] == 128 + signal.SIGTERM


def test_where_the_supervisor_dies_what_writes_without_end_dies_too(start):
    launched = start([sys.executable, "-c", "while True: print('x' * 999)"], log_bytes=1 << 20)
    pid = launched.started()
    assert launched.process.stdin is not None
    launched.process.stdin.close()
    until(lambda: not lives(pid), "the command's end")
    launched.end()
