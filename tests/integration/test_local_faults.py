"""What goes wrong on one machine: processes are killed, ports are taken, folders cannot be written."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from pathlib import Path

import psutil
import pytest

from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.processes import marked
from practicus_provider.backends.local.replica import GRACE
from practicus_provider.errors import BackendError
from practicus_provider.plan import Port
from practicus_provider.runtime.practicus_runtime.contract import RESULT_LIMIT, Env
from practicus_provider.runtime.practicus_runtime.control import connectable
from practicus_provider.spec import Elastic
from practicus_provider.status import Reason, State
from tests.local import GONE_WITHIN, nothing_left, processes_of, running, supervisor_of
from tests.plans import SLEEP, TASK, asking, created, end, plan, role, server

DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
"""


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "root")


JOB = plan(server(), role("worker", SLEEP, replicas=2), role("driver", DAEMON + SLEEP))


async def test_a_killed_supervisor_is_noticed_and_its_replicas_do_not_stay(backend: LocalBackend) -> None:
    async with created(backend, "job", JOB) as handle:
        await running(backend, handle)
        watching = asyncio.create_task(end(backend, handle))
        await asyncio.sleep(0.2)
        supervisor_of(backend, handle).kill()
        verdict = (await watching).verdict
        assert verdict is not None
        assert verdict.reason is Reason.SUPERVISOR_LOST
        assert verdict.message == "the cluster's supervisor was killed, and its replicas with it"
        await nothing_left(handle)


async def test_a_killed_supervisors_replicas_die_also_when_nobody_watches(backend: LocalBackend) -> None:
    handle = await backend.create("job", JOB, task=TASK)
    await running(backend, handle)
    supervisor_of(backend, handle).kill()
    await nothing_left(handle)
    assert (await end(backend, handle)).state is State.FAILED
    await backend.delete(handle)


async def test_a_cluster_whose_supervisor_was_killed_is_replaced(backend: LocalBackend) -> None:
    first = await backend.create("job", JOB, task=TASK)
    await running(backend, first)
    supervisor_of(backend, first).kill()
    async with created(backend, "job", JOB) as second:
        assert second.uid != first.uid
        await running(backend, second)
        assert marked(Env.CLUSTER, first.uid) == []


@pytest.mark.parametrize("victim", [0, 1], ids=["launcher", "command"])
@pytest.mark.parametrize("replica", ["worker-1", "driver-0"])
async def test_a_killed_replica_ends_the_job_at_once_and_is_named(
    backend: LocalBackend, replica: str, victim: int
) -> None:
    async with created(backend, "job", JOB) as handle:
        await running(backend, handle)
        processes_of(handle, replica)[victim].kill()
        began = time.monotonic()
        verdict = (await end(backend, handle)).verdict
        assert time.monotonic() - began < GONE_WITHIN / 4
    assert verdict is not None
    assert (verdict.reason, verdict.signal, verdict.replica) == (Reason.KILLED, "SIGKILL", replica)
    await nothing_left(handle)


async def test_a_driver_that_forks_daemons_and_exits_leaves_none(backend: LocalBackend) -> None:
    async with created(backend, "job", plan(role("driver", DAEMON))) as handle:
        assert (await end(backend, handle)).state is State.SUCCEEDED
        await nothing_left(handle)


NAMELESS = """
import os, signal, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], {})
    os._exit(0)
time.sleep(0.5)
children = open(f"/proc/{os.getppid()}/task/{os.getppid()}/children").read().split()
with open(sys.argv[1], "w") as file:  # a launcher that is killed takes with it what it has not read yet
    file.write(next(child for child in children if int(child) != os.getpid()))
os.kill(os.getppid(), signal.SIGKILL)
time.sleep(600)
"""
"""Kills its launcher, whose child a process without any environment has become."""


async def test_a_daemon_without_an_environment_whose_launcher_was_killed_goes_with_the_cluster(
    backend: LocalBackend, tmp_path: Path
) -> None:
    hidden = tmp_path / "hidden"
    async with created(backend, "job", plan(role("driver", NAMELESS, str(hidden)))) as handle:
        assert (await end(backend, handle)).state is State.FAILED
        daemon = psutil.Process(int(hidden.read_text()))
        assert daemon.environ() == {}
    assert not daemon.is_running() or daemon.status() == psutil.STATUS_ZOMBIE


async def test_deleting_takes_grandchildren_that_hide_in_sessions_of_their_own(backend: LocalBackend) -> None:
    handle = await backend.create("job", plan(role("driver", DAEMON + SLEEP)), task=TASK)
    await running(backend, handle)
    while len(processes_of(handle, "driver-0")) < 3:
        await asyncio.sleep(0.02)
    await backend.delete(handle)
    assert marked(Env.CLUSTER, handle.uid) == []


async def test_a_command_has_as_long_to_save_as_its_grace_says(backend: LocalBackend, tmp_path: Path) -> None:
    saves = (
        "import os, signal, sys, time\n"
        "def save(*_):\n    time.sleep(float(sys.argv[2]))\n    open(sys.argv[1], 'w').close()\n    os._exit(0)\n"
        f"signal.signal(signal.SIGTERM, save)\n{SLEEP}"
    )
    late = str(GRACE + 1)
    handle = await backend.create(
        "job", plan(role("driver", saves, str(tmp_path / "saved"), late), grace=60.0), task=TASK
    )
    await running(backend, handle)
    await asyncio.sleep(0.5)  # until its handler is there
    await backend.delete(handle)
    assert (tmp_path / "saved").exists()


async def test_a_command_that_ignores_sigterm_is_killed(backend: LocalBackend) -> None:
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
    handle = await backend.create("job", plan(role("driver", stubborn)), task=TASK)
    await running(backend, handle)
    await backend.delete(handle)
    assert marked(Env.CLUSTER, handle.uid) == []


async def test_sigterm_lets_a_driver_clean_up(backend: LocalBackend, tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys, time\n"
        "def leave(*_):\n    pathlib.Path(sys.argv[1]).touch(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\nprint('ready', flush=True)\ntime.sleep(600)"
    )
    handle = await backend.create("job", plan(role("driver", code, str(tmp_path / "saved"))), task=TASK)
    async for _ in backend.logs(handle, ["driver"]):
        break
    await backend.delete(handle)
    assert (tmp_path / "saved").exists()


async def test_a_driver_that_is_out_of_time_may_clean_up(backend: LocalBackend, tmp_path: Path) -> None:
    code = (
        "import pathlib, signal, sys, time\n"
        "def leave(*_):\n    time.sleep(0.8); pathlib.Path(sys.argv[1]).touch(); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, leave)\ntime.sleep(600)"
    )
    # So long that a busy machine has started it by then.
    async with created(backend, "job", plan(role("driver", code, str(tmp_path / "saved")), timeout=6.0)) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert verdict.reason is Reason.DEADLINE_EXCEEDED
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("byte", [0, ord("x")])
async def test_a_result_beyond_all_bounds_is_cut_and_told_of_whatever_bytes_it_is_made_of(
    backend: LocalBackend, byte: int
) -> None:
    code = f"import os; open(os.environ['PRACTICUS_RESULT'], 'wb').write(bytes([{byte}]) * (8 << 20))"
    async with created(backend, "job", plan(role("driver", code))) as handle:
        status = await end(backend, handle)
    assert (status.state, status.result) == (State.SUCCEEDED, chr(byte) * (RESULT_LIMIT + 1))


@pytest.mark.parametrize("replicas", [0, 4])
async def test_scaling_beyond_the_bounds_is_refused(backend: LocalBackend, replicas: int) -> None:
    job = plan(role("worker", SLEEP, elastic=Elastic(1, 3)), asking("worker", replicas))
    async with created(backend, "job", job) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert verdict.log_tail[-1] == f"{replicas} replicas are outside 1 to 3"


@pytest.mark.parametrize(
    "said",
    [
        *(b"\xff", b"[" * 1500, b"[]", b"{}", b'{"do": "delete", "after": "1"}', b'{"do": "watch", "lease": []}'),
        *(b'{"do": "scale", "role": 1, "replicas": 2}', b"x" * 5000, b"x" * (3 << 20)),
        *(b'{"do": "watch", "lease": NaN}', b'{"do": "watch", "lease": -1}', b'{"do": "delete", "after": NaN}'),
        b'{"do": "watch", "lease": 1%s}' % (b"0" * 400),
    ],
    ids=lambda said: repr(said[:30]),
)
async def test_what_is_no_request_is_hung_up_on_and_the_cluster_goes_on(backend: LocalBackend, said: bytes) -> None:
    async with created(backend, "job", plan(role("driver", SLEEP))) as handle:
        await running(backend, handle)
        with connectable(str(backend.root / handle.name / "control")) as path:
            reader, writer = await asyncio.open_unix_connection(path)
        writer.write(said + b"\n")
        with contextlib.suppress(ConnectionError):  # it has not read to the end
            assert await reader.read() == b""
        writer.close()
        assert (await anext(backend.watch(handle))).state is State.RUNNING
    log = (backend.root / "ended" / f"{handle.name}-{handle.uid}" / "logs" / "supervisor.log").read_text()
    assert log == ""


async def test_a_port_in_use_is_said_in_the_verdict(backend: LocalBackend) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code = f"import socket; socket.create_server(('127.0.0.1', {taken.getsockname()[1]}))"
        async with created(backend, "job", plan(role("driver", code))) as handle:
            verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert verdict.reason is Reason.PORT_IN_USE
    assert verdict.advice == "A port that it listens on is taken: free it, or leave its choice to us by not naming one."


async def test_two_clusters_at_once_are_never_given_one_port(backend: LocalBackend) -> None:
    code = "import sys, time; print(sys.argv[1:], flush=True); " + SLEEP
    ports = {str(number): 9000 + number for number in range(20)}
    job = plan(role("driver", code, *(Port("driver", name) for name in ports), ports=ports))
    handles = await asyncio.gather(*(backend.create(f"job-{i}", job, task=TASK) for i in range(4)))
    seen: list[int] = []
    for handle in handles:
        await running(backend, handle)
        seen += json.loads((backend.root / handle.name / "ports.json").read_text())["driver"].values()
    await asyncio.gather(*(backend.delete(handle) for handle in handles))
    assert len(seen) == len(set(seen)) == 80


async def test_a_root_that_cannot_be_written_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    backend = LocalBackend(tmp_path / "file" / "root")
    with pytest.raises(BackendError, match="set the connection's extra 'root' to a folder that this user may write to"):
        await backend.create("job", JOB, task=TASK)


async def test_only_this_user_may_look_into_the_root_and_into_a_cluster_of_one_that_was_there(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o755)
    async with created(LocalBackend(tmp_path / "made"), "job", plan(role("driver", "pass"))):
        assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    async with created(LocalBackend(there), "job", plan(role("driver", "pass"))):
        assert [path.stat().st_mode & 0o777 for path in (there, there / "job")] == [0o755, 0o700]


async def test_no_process_of_a_cluster_has_airflows_secrets_in_its_environment(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "secret")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "secret")
    async with created(backend, "job", plan(role("driver", SLEEP))) as handle:
        await running(backend, handle)
        found = [supervisor_of(backend, handle), *processes_of(handle, "driver-0")]
        assert len(found) >= 3
        assert [name for process in found for name in process.environ() if "AIRFLOW" in name] == []


async def test_a_folder_that_was_written_but_never_started_is_started_by_the_next(backend: LocalBackend) -> None:
    job = plan(role("driver", "pass"))
    backend._prepare_root()
    folder = ClusterFolder(backend.root / "job")
    backend._write_new(folder, job, TASK, None, None)
    async with created(backend, "job", job) as handle:
        assert handle == folder.handle()
        assert (await end(backend, handle)).state is State.SUCCEEDED


async def test_logs_of_a_deleted_cluster_stay_until_their_time_to_live_is_over(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / "root", ttl=3600)
    async with created(backend, "job", plan(role("driver", "print('kept')"))) as handle:
        await end(backend, handle)
    folder = backend.root / "ended" / f"{handle.name}-{handle.uid}"
    log = folder / "logs" / "driver-0.log"
    assert log.read_text() == "kept\n"
    assert not (folder / "replicas").exists()
    two_hours_ago = time.time() - 7200
    os.utime(folder / "status.json", (two_hours_ago, two_hours_ago))
    async with created(backend, "next", plan(role("driver", "pass"))):
        assert not log.exists()


async def test_a_root_with_a_long_path_works(tmp_path: Path) -> None:
    backend = LocalBackend(tmp_path / ("long" * 30) / ("path" * 30))
    async with created(backend, "job", plan(role("driver", "pass"))) as handle:
        assert (await end(backend, handle)).state is State.SUCCEEDED


async def test_a_hung_supervisor_is_killed_and_its_replicas_with_it(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("practicus_provider.backends.local.STOP_PATIENCE", 0.5)
    handle = await backend.create("job", JOB, task=TASK)
    await running(backend, handle)
    supervisor_of(backend, handle).suspend()
    await backend.delete(handle)
    await nothing_left(handle)
    assert await backend.list() == []


async def test_sigterm_to_the_supervisor_ends_the_cluster_in_order(backend: LocalBackend) -> None:
    async with created(backend, "job", JOB) as handle:
        await running(backend, handle)
        supervisor_of(backend, handle).send_signal(signal.SIGTERM)
        assert (await end(backend, handle)).state is State.CANCELLED
        await nothing_left(handle)


async def test_a_plan_whose_file_cannot_be_written_fails_with_the_reason(backend: LocalBackend) -> None:
    bad = role("driver", "pass", files={"x/\0": "text"})
    async with created(backend, "job", plan(bad)) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert verdict.state is State.FAILED
