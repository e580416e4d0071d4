"""The parents of an application and of Spark's executors, and what they tell each other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from practicus_runtime import executors
from practicus_runtime.dask_driver import Asking
from practicus_runtime.executor import STANDALONE, address
from practicus_runtime.executors import EARLY, FEW, Executors

from practicus_provider import runtime
from tests.plans import PATIENCE

MODULE = (sys.executable, "-S", "-m")
DRIVE = """
import sys
from practicus_runtime.driver import Driver
Driver(sys.argv[2:], lambda: sys.argv[1] == "used", "nobody used it").run()
"""
GIVE_UP = """
import sys
from practicus_runtime.contract import End
from practicus_runtime.driver import Driver
driver = Driver(sys.argv[1:], lambda: False, "unused")
driver.give_up(End(1, replica="worker-0"), ["no executor lives", "its last line"])
driver.run()
"""


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(runtime.FOLDER),
        "PRACTICUS_FAILURE": str(tmp_path / "failure"),
    }


def drive(env: dict[str, str], code: str, used: str = "not used") -> subprocess.CompletedProcess[str]:
    """An application of Python below its parent."""
    command = (sys.executable, "-c", DRIVE, used, sys.executable, "-c", code)
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE)


# ---- the application's parent


def test_an_application_that_never_used_its_cluster_is_told_so_and_ends_well(env):
    done = drive(env, "print('done')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "WARNING: nobody used it\n")


def test_of_a_cluster_that_was_used_nothing_is_said(env):
    done = drive(env, "print('done')", "used")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_an_application_that_failed_is_not_told_that_it_did_not_use_its_cluster(env):
    done = drive(env, "import sys; sys.exit(3)")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_an_application_that_a_signal_ends_ends_its_parent_alike(env, number):
    assert drive(env, f"import os; os.kill(os.getpid(), {int(number)})").returncode == -number


def test_an_application_that_is_told_to_end_ends_as_it_likes(env):
    code = "import signal, sys; signal.signal(15, lambda *_: sys.exit(5)); print('ready', flush=True); signal.pause()"
    command = (sys.executable, "-c", DRIVE, "not used", sys.executable, "-c", code)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGTERM)  # as the launcher does
        assert process.wait(PATIENCE) == 5


@pytest.mark.parametrize("code", ["signal.pause()", "signal.signal(15, signal.SIG_IGN); signal.pause()"])
def test_an_application_that_is_given_up_ends_and_its_log_and_its_launcher_are_told_why(tmp_path, env, code):
    command = [sys.executable, "-c", GIVE_UP, sys.executable, "-c", f"import signal; {code}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (1, "no executor lives\nits last line\n")
    assert json.loads((tmp_path / "failure").read_text()) == {"exit_code": 1, "signal": None, "replica": "worker-0"}


# ---- an executor's parent


ARGUMENTS = ("--driver-url", "spark://CoarseGrainedScheduler@127.0.0.1:1", "--executor-id", "3", "--app-id", "app-1")


@contextlib.contextmanager
def hearing() -> Iterator[tuple[str, list[Any]]]:
    """The port of a driver, and what it was told once this has been left."""
    told: list[Any] = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        hears = threading.Thread(target=lambda: told.extend(iter(lambda: read(server), END)))
        hears.start()
        try:
            yield str(server.getsockname()[1]), told
        finally:
            send(server, END)  # after all that came before
            hears.join(PATIENCE)


END = {"end": True}


def read(server: socket.socket) -> Any:
    connection, _ = server.accept()
    with connection:
        return json.loads(connection.makefile().readline())


def executor(env: dict[str, str], code: str, *more: str, **how: Any) -> tuple[int, list[Any], str]:
    """Exit code, what the driver was told, and the output, of what stands for an executor."""
    with hearing() as (port, told):
        command = (*MODULE, "practicus_runtime.executor", sys.executable, "-c", code, *ARGUMENTS, *more)
        whole = {**env, "PRACTICUS_DRIVER_PORT": port, "PRACTICUS_DRIVER_TOKEN": "t", **how}
        done = subprocess.run(command, env=whole, capture_output=True, text=True, check=False, timeout=PATIENCE)
    return done.returncode, sorted(told, key=len), done.stdout + done.stderr


FACTS = {"token": "t", "executor": "app-1/3", "replica": "worker-3"}


def test_a_driver_is_told_that_an_executor_has_started_and_of_its_good_end_nothing_more(env):
    assert executor(env, "print('done')") == (0, [FACTS], "done\n")


@pytest.mark.parametrize(
    ("code", "exit_code", "how"),
    [
        ("import sys; sys.exit('no agent')", 1, {"exit_code": 1, "signal": None}),
        ("import os; os.kill(os.getpid(), 9)", -9, {"exit_code": None, "signal": 9}),
    ],
)
def test_a_driver_is_told_how_an_executor_failed_after_what_time_and_with_which_last_words(env, code, exit_code, how):
    place = {"PRACTICUS_ROLE": "worker", "PRACTICUS_INDEX": "7"}
    code_seen, told, said = executor(env, f"import sys; print('began', file=sys.stderr, flush=True); {code}", **place)
    facts = {**FACTS, "replica": "worker-7"}
    assert told[0] == facts
    assert 0 < told[1].pop("seconds") < EARLY
    assert (code_seen, told[1]) == (exit_code, {**facts, "end": how, "tail": said.splitlines()})


def test_an_executor_whose_driver_cannot_be_reached_runs_all_the_same(env):
    assert executor(env, "print('done')", PRACTICUS_DRIVER_PORT="1") == (0, [], "done\n")


def test_an_executor_that_is_told_to_end_is_no_failure(env):
    code = "import signal; print('ready', flush=True); signal.pause()"
    command = (*MODULE, "practicus_runtime.executor", sys.executable, "-c", code, *ARGUMENTS)
    with hearing() as (port, told):
        whole = {**env, "PRACTICUS_DRIVER_PORT": port, "PRACTICUS_DRIVER_TOKEN": "t"}
        with subprocess.Popen(command, env=whole, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            process.terminate()
            assert process.wait(PATIENCE) == -signal.SIGTERM
    assert [report for report in told if "seconds" in report] == []


def test_what_a_workers_executor_writes_is_in_sparks_files_and_in_the_workers_log(tmp_path, env):
    """The worker is the parent, whose output is its log; what it hands out as the executor's goes to Spark's files."""
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    worker = f"""
import subprocess
command = {[*MODULE, "practicus_runtime.executor", sys.executable, "-c", code, *ARGUMENTS, STANDALONE]!r}
with open("out", "w") as out, open("err", "w") as err:
    subprocess.run(command, stdout=out, stderr=err)
"""
    with (tmp_path / "log").open("a") as log:
        subprocess.run([sys.executable, "-c", worker], env=env, cwd=tmp_path, stdout=log, check=True)
    files = {name: (tmp_path / name).read_text() for name in ("out", "err")}
    assert files == {"out": "out\n", "err": "err\n"}
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["err", "out"]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("spark://CoarseGrainedScheduler@127.0.0.1:7078", "127.0.0.1"),
        ("spark://CoarseGrainedScheduler@c-1-0.c-1:7078", "c-1-0.c-1"),
        ("spark://CoarseGrainedScheduler@[fd00::7]:7078", "fd00::7"),
    ],
)
def test_the_drivers_host_is_read_from_its_url(url, host):
    assert address(url) == host


# ---- when there is no sense in a further executor


def begun(name: str) -> dict[str, Any]:
    return {"executor": name}


def ended(name: str, seconds: float = 1.0) -> dict[str, Any]:
    return {"executor": name, "seconds": seconds}


def heard(*reports: tuple[float, dict[str, Any]]) -> list[bool]:
    """After which of these reports the driver gives up."""
    known = Executors()
    return [known.hear(report, at) for at, report in reports]


def test_a_driver_gives_up_when_a_few_executors_in_a_row_have_ended_at_their_start():
    assert heard(*((float(n), ended(str(n))) for n in range(FEW))) == [False] * (FEW - 1) + [True]


def test_executors_that_lived_for_long_are_none_that_ended_at_their_start():
    assert not any(heard(*((float(n), ended(str(n), EARLY)) for n in range(FEW * 3))))


def test_a_driver_with_an_executor_that_lives_does_not_give_up():
    lives = (0.0, begun("good"))
    assert not any(heard(lives, *((EARLY + n, ended(str(n))) for n in range(FEW * 3))))


def test_of_many_executors_that_have_just_started_more_have_to_fail_than_are_alive():
    all_begun = [(0.0, begun(str(n))) for n in range(8)]
    failing = [(1.0, ended(str(n))) for n in range(8)]
    assert heard(*all_begun, *failing) == [False] * (8 + 4) + [True] * 4


def test_a_report_that_does_not_know_the_drivers_token_does_not_count():
    came, given_up = threading.Event(), threading.Event()
    with executors.listen("127.0.0.1", 0) as server:
        executors.attend(server, "right", came.set, lambda *_: given_up.set())
        for token in ("wrong", None):
            send(server, {"token": token, **ended("1")})
        with socket.create_connection(server.getsockname()) as connection:
            connection.sendall(b"no JSON\n")
        send(server, ["no object"])
        for number in range(FEW - 1):
            send(server, {"token": "right", **ended(str(number)), "replica": "worker-0", "end": {"exit_code": 1}})
        assert came.wait(PATIENCE)
        assert not given_up.is_set()
        last = {"replica": "worker-0", "end": {"exit_code": 1}, "tail": ["bye"]}
        send(server, {"token": "right", **ended("last"), **last})
        assert given_up.wait(PATIENCE)


def send(server: socket.socket, report: Any) -> None:
    with socket.create_connection(server.getsockname()) as connection:
        connection.sendall(json.dumps(report).encode() + b"\n")


# ---- whether Dask's scheduler has had a client from here


@contextlib.contextmanager
def answering(text: str) -> Iterator[tuple[str, int]]:
    """Where whoever comes is answered so."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(text.encode() + b"\n")

        answers = threading.Thread(target=answer)
        answers.start()
        host, port = server.getsockname()
        yield host, port
        server.shutdown(socket.SHUT_RDWR)
        answers.join(PATIENCE)


@pytest.mark.parametrize(("hosts", "known"), [(["127.0.0.1"], True), ([], False), (["10.0.0.7"], False)])
def test_a_scheduler_tells_whether_a_client_has_come_from_this_machine(hosts, known):
    with answering(json.dumps(hosts)) as place:
        assert Asking(*place).used() is known


def test_an_application_whose_scheduler_is_not_reached_is_ended_and_that_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PRACTICUS_FAILURE", str(tmp_path / "failure.json"))
    monkeypatch.setenv("PRACTICUS_START_TIMEOUT", "0.2")
    monkeypatch.setenv("PYTHONPATH", str(runtime.FOLDER))
    application = (sys.executable, "-c", "import time; time.sleep(600)")
    command = (*MODULE, "practicus_runtime.dask_driver", "nowhere.invalid", "8788", *application)
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.stdout.startswith("gave up waiting for coordinator-0 (nowhere.invalid:8788) after ")
    assert done.stderr == "the application was ended, as the scheduler of its cluster is not reached\n"
    failure = json.loads((tmp_path / "failure.json").read_text())
    assert (done.returncode, failure["exit_code"]) == (1, 69)
    assert failure["unreached"]["who"] == "coordinator-0 (nowhere.invalid:8788)"


def test_a_scheduler_that_was_never_there_was_not_used_and_one_that_is_gone_was():
    with answering("[]") as place:
        asking = Asking(*place)
        asking.wait.wait()
    assert asking.used()
    assert not Asking(*place).used()
