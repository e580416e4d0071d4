"""The ranks of one replica, as processes."""

from __future__ import annotations

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
from uuid import NAMESPACE_OID, uuid5

import pytest
from practicus_runtime.member import environment
from practicus_runtime.ranks import torchruns

from practicus_provider import runtime

PATIENCE = 30.0
"""Seconds after which a test that waits has failed."""
TOLD = """
import json, os
names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GLOO_SOCKET_IFNAME")
print(json.dumps({name: os.environ.get(name) for name in names}))
"""
SLEEP = "import time; print('up', flush=True); time.sleep(600)"
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
FAILS = """
import os, sys, time
if os.environ["RANK"] == "3":
    time.sleep(0.3)
    raise ValueError("no such data")
print("waits", flush=True)
time.sleep(600)
"""


@dataclass
class Replica:
    """Ranks that run, as the launcher starts them."""

    process: subprocess.Popen[str]
    folder: Path

    def says(self, count: int, text: str) -> None:
        """Wait until the output has it so often."""
        deadline = time.monotonic() + PATIENCE
        while self.output().count(text) < count:
            assert time.monotonic() < deadline, self.output()
            time.sleep(0.01)

    def heeds(self, number: signal.Signals) -> None:
        """Wait until it has a handler of the signal (``SigCgt`` in ``proc_pid_status(5)``)."""
        status, deadline = Path(f"/proc/{self.process.pid}/status"), time.monotonic() + PATIENCE
        while not int(status.read_text().split("SigCgt:")[1].split()[0], 16) >> (number - 1) & 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def goes_on(self, seconds: float = 0.5) -> None:
        """Watch that it does not end meanwhile."""
        with pytest.raises(subprocess.TimeoutExpired):
            self.process.wait(seconds)

    def output(self) -> str:
        return (self.folder / "log").read_text()

    def end(self) -> tuple[int, list[str]]:
        """Exit code, and lines of output in the order of their ranks."""
        code = self.process.wait(PATIENCE)
        return code, sorted(self.output().splitlines())

    def failure(self) -> dict[str, Any] | None:
        path = self.folder / "failure.json"
        return json.loads(path.read_text()) if path.exists() else None


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Replica]]:
    started = []

    def start(code: str, *args: str, procs: int = 1, index: int = 0, **env: str) -> Replica:
        (tmp_path / "script.py").write_text(code)
        inherited = {name: value for name, value in os.environ.items() if "SOCKET_IFNAME" not in name}
        ours = {
            "LOCAL_WORLD_SIZE": str(procs),
            "GROUP_RANK": str(index),
            "WORLD_SIZE": "8",
            "MASTER_ADDR": "localhost",
            "PRACTICUS_HOST": "127.0.0.1",
            "PRACTICUS_FAILURE": str(tmp_path / "failure.json"),
            "PRACTICUS_RESULT": str(tmp_path / "result.json"),
            "PYTHONPATH": str(runtime.FOLDER),
        }
        command = [sys.executable, "-m", "practicus_runtime.ranks", str(tmp_path / "script.py"), *args]
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(command, env=inherited | ours | env, stdout=log, stderr=log, text=True)
        started.append(process)
        return Replica(process, tmp_path)

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_rank_is_told_who_it_is_and_by_which_interface_it_is_reached(start):
    code, (line,) = start(TOLD, index=3).end()
    assert (code, json.loads(line)) == (
        0,
        {
            "RANK": "3",
            "WORLD_SIZE": "8",
            "LOCAL_RANK": "0",
            "LOCAL_WORLD_SIZE": "1",
            "GROUP_RANK": "3",
            "GLOO_SOCKET_IFNAME": "lo",
        },
    )


FACTS = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "worker-0", "PRACTICUS_TASK": '{"run_id": "a/b"}'}
TORCHRUN = {
    "ROLE_NAME": "default",
    "ROLE_RANK": "5",
    "ROLE_WORLD_SIZE": "8",
    "TORCHELASTIC_RUN_ID": str(uuid5(NAMESPACE_OID, '{"run_id": "a/b"}')),
    "TORCHELASTIC_RESTART_COUNT": "0",
    "TORCHELASTIC_MAX_RESTARTS": "0",
    "TORCHELASTIC_USE_AGENT_STORE": "False",
    "TORCHELASTIC_SIGNALS_TO_HANDLE": "SIGTERM,SIGINT,SIGHUP,SIGQUIT",
    "TORCHELASTIC_ERROR_FILE": "",
    "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, {}),
        ({"PRACTICUS_FAILURE": "/x/failure.json"}, {"TORCHELASTIC_ERROR_FILE": "/x/failure.json.5.error"}),
        ({"TORCH_NCCL_ASYNC_ERROR_HANDLING": "3"}, {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "3"}),
        (
            {"TORCHELASTIC_USE_AGENT_STORE": "True", "ROLE_RANK": "0", "TORCHELASTIC_RUN_ID": "mine"},
            {},
        ),
    ],
)
def test_a_rank_is_told_what_torchrun_tells_and_that_no_agent_serves_the_store(more, told):
    assert torchruns({**FACTS, **more}) == {**TORCHRUN, **told}


def test_a_rank_of_an_elastic_training_is_told_its_restarts_as_by_torchrun():
    order = {"world": 8, "index": 2, "members": 4, "master": ["worker-1", 29500], "round": 3, "max_restarts": 5}
    place = {**environment("torch", order, "notice"), "RANK": "5"}
    counted = {"TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_MAX_RESTARTS": "5"}
    assert torchruns({**FACTS, **place}) == {**TORCHRUN, **counted}


def test_who_has_no_place_where_torchs_ranks_meet_is_not_told_of_torchrun():
    order = {"world": 8, "index": 2, "members": 4, "round": 1, "token": "t"}
    told = {"LOCAL_WORLD_SIZE": "2", "PRACTICUS_ROLE": "worker", "PRACTICUS_INDEX": "2", "PRACTICUS_STORE": "x:1"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        assert torchruns({**environment("horovod", order, "notice"), "RANK": "5"}) == {}


def test_all_ranks_have_torchruns_variables(start):
    code = "import os; print(*(os.environ[name] for name in os.environ['NAMES'].split()))"
    names = ("ROLE_RANK", "ROLE_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
    code, lines = start(code, procs=2, index=1, NAMES=" ".join(names), PRACTICUS_TASK=FACTS["PRACTICUS_TASK"]).end()
    assert (code, lines) == (0, [f"[rank {rank}] {rank} 8 {TORCHRUN['TORCHELASTIC_RUN_ID']} 0" for rank in (2, 3)])


def test_a_script_s_first_argument_is_its_local_rank_where_one_is_named(start):
    code = "import sys; print(sys.argv[1:])"
    code, lines = start(code, "--own", "a b", procs=2, index=1, PRACTICUS_LOCAL_RANK="--local_rank").end()
    assert (code, lines) == (0, [f"[rank {2 + n}] ['--local_rank={n}', '--own', 'a b']" for n in (0, 1)])


def test_several_ranks_of_a_replica_are_numbered_on_and_say_whose_their_lines_are(start):
    code, lines = start("import os; print(os.environ['LOCAL_RANK'], *__import__('sys').argv[1:])", "a b", procs=3).end()
    assert (code, lines) == (0, ["[rank 0] 0 a b", "[rank 1] 1 a b", "[rank 2] 2 a b"])
    code, lines = start("import os; print(os.environ['RANK'])", procs=2, index=2).end()
    assert (code, lines) == (0, ["[rank 4] 4", "[rank 5] 5"])


def test_a_bar_of_a_rank_is_its_last_state_with_the_ranks_name(start):
    code = "import sys\nfor step in range(1000): sys.stderr.write(f'\\r{step}%|##')\nprint('[progress 100%]')"
    code, lines = start(code, procs=2).end()
    for rank in (0, 1):
        own = [line for line in lines if line.startswith(f"[rank {rank}] ")]
        assert {f"[rank {rank}] 999%|##", f"[rank {rank}] [progress 100%]"} <= set(own)
        assert len(own) < 20
    assert len(lines) == sum(line.startswith("[rank ") for line in lines)


def test_a_state_of_a_bar_is_passed_on_though_nothing_more_is_written(start):
    code = "import sys, time\nsys.stderr.write('\\r1%'); sys.stderr.flush()\nsys.stderr.write('\\r2%'); time.sleep(600)"
    start(code, procs=2).says(1, "[rank 0] 2%\n")


def test_each_rank_leads_a_session_of_its_own_as_under_torchrun(start):
    assert start("import os; print(os.getsid(0) == os.getpid())", procs=2).end() == (
        0,
        ["[rank 0] True", "[rank 1] True"],
    )


def test_an_interface_that_the_user_names_stays(start):
    assert json.loads(start(TOLD, GLOO_SOCKET_IFNAME="eth7").end()[1][0])["GLOO_SOCKET_IFNAME"] == "eth7"


def test_a_line_without_its_end_and_a_very_long_one_are_passed_on(start):
    code, lines = start("import os; print('x' * 100_000, end='')", procs=2).end()
    assert code == 0
    for rank in (0, 1):
        assert (
            "".join(line.removeprefix(f"[rank {rank}] ") for line in lines if f"rank {rank}" in line) == "x" * 100_000
        )


def test_the_first_failure_ends_the_others_at_once_and_is_told(start):
    began, wall = time.monotonic(), time.time()
    replica = start(FAILS, procs=2, index=1)
    code, lines = replica.end()
    assert (code, time.monotonic() - began < PATIENCE / 2) == (1, True)
    assert [line for line in lines if "rank 2" in line] == ["[rank 2] waits"]
    assert "[rank 3] ValueError: no such data" in lines
    failure = replica.failure()
    assert wall < failure.pop("at") < time.time()
    assert failure == {"rank": 3, "exit_code": 1, "signal": None}


def test_a_rank_that_a_signal_ends_has_failed(start):
    replica = start("import os; os.kill(os.getpid(), 9 if os.environ['RANK'] == '1' else 0)\n" + SLEEP, procs=2)
    code, _ = replica.end()
    assert code == 137
    assert {**replica.failure(), "at": None} == {"rank": 1, "exit_code": None, "signal": 9, "at": None}


def test_of_ranks_found_dead_at_once_the_one_that_was_killed_is_the_cause(start):
    replica = start("import os, time; print(os.getpid(), flush=True); time.sleep(600)", procs=3)
    replica.says(3, "rank")
    pids = [int(line.split()[-1]) for line in sorted(replica.output().splitlines())]
    replica.process.send_signal(signal.SIGSTOP)
    for pid, number in zip(pids, (signal.SIGABRT, signal.SIGTERM, signal.SIGKILL), strict=True):
        os.kill(pid, number)
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z" for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    replica.process.send_signal(signal.SIGCONT)
    assert replica.end()[0] == 137
    assert replica.failure()["rank"] == 2


def test_ranks_that_are_deaf_to_sigterm_are_killed_soon_after_the_first_failure(start):
    code = f"import os, time\nif os.environ['RANK'] == '1':\n    time.sleep(0.5); os._exit(5)\n{DEAF}"
    began = time.monotonic()
    assert start(code, procs=2).end()[0] == 5
    assert time.monotonic() - began < PATIENCE / 2


def test_sigterm_reaches_every_rank_which_may_end_well(start):
    code = "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(0)))\n"
    replica = start(code + SLEEP, procs=2)
    replica.says(2, "up")
    replica.process.terminate()
    assert replica.end() == (0, ["[rank 0] saved", "[rank 0] up", "[rank 1] saved", "[rank 1] up"])
    assert replica.failure() is None


def test_ranks_that_sigterm_ends_say_so(start):
    replica = start(SLEEP)
    replica.says(1, "up")
    replica.process.terminate()
    assert replica.end()[0] == 143
    assert {**replica.failure(), "at": None} == {"rank": 0, "exit_code": None, "signal": 15, "at": None}


def test_no_rank_starts_before_the_place_where_they_meet_is_known_and_sigterm_ends_the_wait(start):
    replica = start("print('started')", MASTER_ADDR="nowhere.invalid")
    replica.heeds(signal.SIGTERM)
    replica.goes_on(1.0)
    replica.process.terminate()
    assert replica.end() == (143, [])


MEETING = {
    "torch": ("torch/distributed/rendezvous.py", "def rendezvous(url): print(url)", "rendezvous('met')"),
    "horovod": (
        "horovod/common/basics.py",
        "class HorovodBasics:\n    def init(self): print('met')",
        "HorovodBasics().init()",
    ),
}


@pytest.fixture(params=MEETING)
def early(request, start, tmp_path) -> Callable[..., Replica]:
    """Starts a rank of a made-up framework, which says when it is ready, and when it has met the others."""
    path, module, call = MEETING[request.param]
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(module)
    imported = path.removesuffix(".py").replace("/", ".")
    script = f"from {imported} import *; print('ready', flush=True); {call}"
    return lambda **env: start(script, PRACTICUS_MEETS=request.param, **env)


def test_a_rank_of_a_framework_that_we_know_waits_for_the_place_where_they_meet_once_it_is_ready(early):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
    place = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": port}
    replica = early(MASTER_ADDR="nowhere.invalid", **place)
    replica.says(1, "ready")
    replica.goes_on()
    replica.process.terminate()
    assert replica.end() == (143, ["ready"])


def test_a_rank_that_waited_meets_the_others(early):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        place = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": port}
        assert early(**place).end() == (0, ["met", "ready"])


VAIN = {"PRACTICUS_START_TIMEOUT": "0.2"}
"""Has all waits be short."""


def test_a_place_that_stays_unknown_is_given_up_before_any_rank_starts(start):
    replica = start("print('started')", MASTER_ADDR="nowhere.invalid", **VAIN)
    code, (said,) = replica.end()
    assert (code, said.startswith("gave up waiting for rank 0 (nowhere.invalid) after ")) == (69, True)
    failure = replica.failure()
    assert (failure["exit_code"], failure["unreached"]["who"]) == (69, "rank 0 (nowhere.invalid)")


def test_a_place_that_a_rank_waits_for_in_vain_is_given_up_and_the_rank_named(early):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    place = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port)}
    replica = early(MASTER_ADDR="nowhere.invalid", **place, **VAIN)
    code, lines = replica.end()
    said, ready = lines
    assert (code, ready, said.startswith("gave up waiting for ")) == (69, "ready", True)
    failure = replica.failure()
    assert (failure["rank"], failure["exit_code"], failure["signal"]) == (0, 69, None)
    assert failure["unreached"]["who"] in ("rank 0 (nowhere.invalid)", f"worker-0 (127.0.0.1:{port})")


GO = {
    "bind": "socket.create_server((place, 0))",
    "connect": "socket.create_connection((place, port))",
    "connect_ex": "socket.socket().connect_ex((place, port))",
    "asyncio": "asyncio.run(asyncio.open_connection(place, port))",
}
"""Ways of a script to go to the place by itself."""


@pytest.mark.parametrize("way", GO)
def test_a_script_that_goes_to_the_place_by_itself_waits_for_it_too(start, way):
    with socket.create_server(("127.0.0.1", 0)) as server:
        prepare = f"import asyncio, os, socket; place, port = os.environ['MASTER_ADDR'], {server.getsockname()[1]}; "
        script = f"{prepare}print('ready', flush=True); {GO[way]}; print('met')"
        assert start(script, PRACTICUS_MEETS="torch").end() == (0, ["met", "ready"])
        replica = start(script, PRACTICUS_MEETS="torch", MASTER_ADDR="nowhere.invalid")
        replica.says(1, "ready")
        replica.goes_on()
        replica.process.terminate()
        assert replica.end() == (143, ["ready"])


@pytest.mark.parametrize("way", GO)
def test_a_script_that_goes_to_a_place_that_stays_unknown_ends_with_that_as_its_failure(start, way):
    prepare = "import asyncio, os, socket; place, port = os.environ['MASTER_ADDR'], 1; "
    replica = start(prepare + GO[way], PRACTICUS_MEETS="torch", MASTER_ADDR="nowhere.invalid", **VAIN)
    assert replica.end()[0] == 69
    assert replica.failure()["unreached"]["who"] == "rank 0 (nowhere.invalid)"


def test_sockets_are_as_they_were_once_the_place_is_known(start):
    script = """
import os, socket
NAMES = {"bind", "connect", "connect_ex"}
def ours(): return socket.getaddrinfo.__module__, *sorted(NAMES & vars(socket.socket).keys())
socket.getaddrinfo("127.0.0.9", None)
print(1, *ours())
socket.getaddrinfo(os.environ["MASTER_ADDR"], None)
print(2, *ours())
"""
    said = ["1 practicus_runtime.meeting bind connect connect_ex", "2 socket"]
    assert start(script, PRACTICUS_MEETS="torch").end() == (0, said)


@pytest.mark.parametrize(
    ("call", "waits"),
    [
        ("rendezvous('env://')", True),
        ("rendezvous('env://', 1, 2)", True),
        ("rendezvous('env://', rank=0)", False),
        ("rendezvous('tcp://127.0.0.1:1')", False),
    ],
)
def test_ranks_of_torch_go_to_rank_0_once_that_listens(start, tmp_path, call, waits):
    (tmp_path / "torch/distributed").mkdir(parents=True)
    (tmp_path / "torch/distributed/rendezvous.py").write_text("def rendezvous(*_, **__): print('gone', flush=True)")
    script = f"from torch.distributed.rendezvous import rendezvous; print('ready', flush=True); {call}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GROUP_RANK": "1", "PRACTICUS_MEETS": "torch"}
    replica = start(script, **place)
    replica.says(1, "ready")
    if waits:
        replica.goes_on()
        assert "gone" not in replica.output()
        with socket.create_server(("127.0.0.1", port)):
            assert replica.end() == (0, ["gone", "ready"])
    assert replica.end() == (0, ["gone", "ready"])


@pytest.mark.parametrize("url", ["env://", "file:///shared/place", "tcp://127.0.0.1:1"])
def test_a_script_that_takes_the_place_out_of_its_environment_is_told_what_is_missing_by_torch(start, tmp_path, url):
    (tmp_path / "torch/distributed").mkdir(parents=True)
    (tmp_path / "torch/distributed/rendezvous.py").write_text("def rendezvous(*_, **__): print('gone', flush=True)")
    take = "import os; del os.environ['MASTER_ADDR']"
    script = f"{take}; from torch.distributed.rendezvous import rendezvous; rendezvous('{url}', 1, 2)"
    assert start(script, PRACTICUS_MEETS="torch", GROUP_RANK="1").end() == (0, ["gone"])


def test_a_version_whose_function_has_another_name_is_left_alone(start, tmp_path):
    (tmp_path / "torch/distributed").mkdir(parents=True)
    (tmp_path / "torch/distributed/rendezvous.py").write_text("def other(): print('met')")
    script = "from torch.distributed.rendezvous import other; other()"
    assert start(script, PRACTICUS_MEETS="torch", MASTER_ADDR="nowhere.invalid").end() == (0, ["met"])


def test_ranks_die_with_the_process_that_started_them(start):
    replica = start("import os, time; print(os.getpid(), flush=True); time.sleep(600)", procs=2)
    replica.says(2, "rank")
    pids = [int(line.split()[-1]) for line in replica.output().splitlines()]
    replica.process.kill()
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}/stat").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_outlives_its_rank_and_holds_its_output_is_not_waited_for(start):
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    code, lines = start(f"import subprocess; print('left', subprocess.Popen({sleep}).pid)", procs=2).end()
    for line in lines:
        os.kill(int(line.split()[-1]), signal.SIGKILL)  # fails where it is gone
    assert (code, [line.rpartition(" ")[0] for line in lines]) == (0, ["[rank 0] left", "[rank 1] left"])


def test_the_result_is_rank_0s(start, tmp_path):
    code = "import os, practicus_runtime as pr; pr.set_result(pr.context().rank)"
    task = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": -1, "try_number": 1, "logical_date": None}
    env = {"PRACTICUS_TASK": json.dumps(task), "PRACTICUS_INDEX": "0", "PRACTICUS_ROLE": "worker"}
    assert start(code, procs=3, **env).end() == (0, [])
    assert (tmp_path / "result.json").read_text() == "0"


def test_an_application_behind_a_url_is_fetched_once(start, tmp_path):
    served = tmp_path / "served.py"
    served.write_text("import sys; print(sys.argv[1])")
    code = """
import os, sys
from practicus_runtime import fetch, ranks
fetches = []
fetch.download = lambda url: fetches.append(url) or url.removeprefix("file://")
code = ranks.Ranks(["-m", "practicus_runtime.fetch", sys.argv[1], "a"], lambda: True, {}).run()
print(fetches == [sys.argv[1]])
sys.exit(code)
"""
    env = {**os.environ, "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "PYTHONPATH": str(runtime.FOLDER)}
    command = [sys.executable, "-c", code, f"file://{served}"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, sorted(done.stdout.splitlines())) == (0, ["True", "[rank 0] a", "[rank 1] a"])
