"""What cannot be started on one machine, and who waits for what does not answer."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import re
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local import creation as creation_module
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.ports import RANGE
from practicus_provider.backends.local.refusals import ADVICE
from practicus_provider.errors import BackendError
from practicus_provider.plan import Plan
from practicus_provider.spec import Volume
from practicus_provider.status import Reason, State, Verdict
from tests.local import nothing_left, running, supervisor_of
from tests.plans import PATIENCE, SLEEP, TASK, created, end, plan, role, server, until


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    return LocalBackend(tmp_path / "root")


async def test_a_job_that_has_failed_before_its_creator_looks_is_that_tasks(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    async def start(folder: ClusterFolder) -> None:
        await creation_module.start(folder)
        started.append(folder.handle())
        await end(backend, folder.handle())

    monkeypatch.setattr("practicus_provider.backends.local.start", start)
    async with created(backend, "job", plan(role("driver", "raise SystemExit(3)"))) as handle:
        assert started == [handle]
        verdict = (await end(backend, handle)).verdict
    assert verdict == Verdict(
        State.FAILED, Reason.ERROR, "driver-0 exited with code 3", replica="driver-0", exit_code=3
    )


@pytest.mark.parametrize(
    ("faulty", "why", "advice"),
    [
        ({"env": {"LONG": "x" * (128 << 10)}}, "Argument list too long", ADVICE[errno.E2BIG]),
        ({"env": {"NUL": "a\0b"}}, "embedded null byte", ""),
        ({"files": {"x/\0": "text"}}, "embedded null byte", ""),
        ({"files": {"x" * 300: "text"}}, "File name too long", ""),
    ],
    ids=["a long variable", "a NUL in a variable", "a NUL in a name", "a long name"],
)
async def test_a_replica_that_cannot_be_started_is_the_verdict_with_the_systems_words(
    backend: LocalBackend, faulty: dict[str, dict[str, str]], why: str, advice: str
) -> None:
    async with created(backend, "job", plan(server(), role("driver", "pass", **faulty))) as handle:
        status = await end(backend, handle)
    verdict = status.verdict
    assert verdict is not None
    assert (verdict.reason, verdict.replica, verdict.advice) == (Reason.ERROR, "driver-0", advice)
    assert verdict.message.startswith(f"driver-0 cannot be started: {why}")
    assert [replica.state for replica in status.replicas if replica.name == "driver-0"] == [State.FAILED]


async def refused(backend: LocalBackend, words: str, job: Plan | None = None) -> None:
    """The error, and that nothing is left."""
    with pytest.raises(BackendError, match=words):
        async with asyncio.timeout(PATIENCE):
            await backend.create("job", job or plan(server(), role("driver", "pass")), task=TASK)
    assert [path.name for path in backend.root.iterdir() if path.name not in ("ended", "volumes")] == []


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, of processes that are started."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.skipif(os.getuid() != 0, reason="gives a folder to another user")
@pytest.mark.parametrize("is_folder", [True, False], ids=["folder", "file"])
async def test_ports_are_not_reserved_in_what_is_another_users(
    backend: LocalBackend, temporary: Path, is_folder: bool
) -> None:
    folder = temporary / f"practicus-ports-{os.getuid()}"
    folder.mkdir() if is_folder else folder.touch()
    os.chown(folder, 65534, 65534)
    await refused(backend, f"{re.escape(str(folder))}.*(no folder of this user's own .*: remove it|File exists)")


async def test_ports_are_not_reserved_where_others_may_write(backend: LocalBackend, temporary: Path) -> None:
    folder = temporary / f"practicus-ports-{os.getuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    await refused(backend, f"{re.escape(str(folder))}.*nobody else may write to: remove it")


async def test_where_there_is_no_port_left_a_cluster_is_refused(backend: LocalBackend, temporary: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limits[1] < len(RANGE) + 200:
        pytest.skip("this process may not hold all ports")
    folder = temporary / f"practicus-ports-{os.getuid()}"
    folder.mkdir(mode=0o700)
    with contextlib.ExitStack() as held:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        for port in RANGE:
            fcntl.flock(held.enter_context((folder / str(port)).open("w")), fcntl.LOCK_EX)
        await refused(backend, "no port from 20000 to 32767 on 127.0.0.1 is free: end what holds them")


async def test_a_supervisor_that_cannot_be_started_is_said_with_its_words(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "psutil.py").write_text("raise ImportError('of another machine')")
    await refused(backend, r"(?s)^the supervisor of job cannot be started: .*ImportError: of another machine$")
    monkeypatch.setattr("practicus_provider.backends.local.creation.sys.executable", "/no/python")
    await refused(backend, r"^the supervisor of job cannot be started: No such file or directory: /no/python$")


async def test_a_supervisor_that_does_not_answer_is_given_up(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(creation_module, "START_PATIENCE", 0.5)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "psutil.py").write_text("import time; time.sleep(600)")
    await refused(backend, r"^the supervisor of job cannot be started: it does not answer within 0\.5 s$")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ("mount", "-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs", str(folder))
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a disk")
    yield folder
    subprocess.run(("umount", "--lazy", str(folder)), check=True)


def make_read_only(disk: Path) -> None:
    subprocess.run(("mount", "-o", "remount,ro", str(disk)), check=True)


def fill(disk: Path, left: int) -> None:
    """All but so many bytes of a disk."""
    with (disk / "filler").open("wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while True:
                file.write(bytes(1024))
        file.truncate(max(0, file.tell() - left))


async def test_on_a_full_disk_a_cluster_is_refused(small_disk: Path) -> None:
    backend = LocalBackend(small_disk / "root")
    backend.root.mkdir()
    fill(small_disk, 0)
    await refused(backend, f"^cannot create cluster job in .*: No space left on device.*{ADVICE[errno.ENOSPC]}")


async def test_a_disk_that_is_full_at_any_step_ends_in_an_error_or_a_verdict_and_nothing_stays(
    small_disk: Path,
) -> None:
    backend, ends = LocalBackend(small_disk / "root"), set()
    (backend.root / "ended").mkdir(parents=True)
    for pages in range(1, 7):
        fill(small_disk, pages * resource.getpagesize())
        async with asyncio.timeout(PATIENCE):
            ends.add(await how_it_ends(backend))
        assert await backend.list() == []
        assert not (backend.root / "job").exists()
    assert "refused" in ends


async def how_it_ends(backend: LocalBackend) -> str:
    """Of a job: it is refused, as the disk is full, or has a verdict, of that reason."""
    try:
        handle = await backend.create("job", plan(server(), role("driver", "pass")), task=TASK)
    except BackendError as error:
        return "refused" if "No space left on device" in str(error) else str(error)
    verdict = (await end(backend, handle)).verdict
    await backend.delete(handle)
    await nothing_left(handle)
    return verdict.reason if verdict else "no verdict"


async def test_a_disk_that_may_only_be_read_is_refused(small_disk: Path) -> None:
    backend = LocalBackend(small_disk / "root")
    (backend.root / "ended").mkdir(parents=True)
    make_read_only(small_disk)
    await refused(backend, f"^cannot write to {backend.root}: Read-only file system; set the connection's extra 'root'")


async def test_a_claims_folder_that_cannot_be_made_is_said(backend: LocalBackend) -> None:
    backend.root.mkdir()
    (backend.root / "volumes").touch()
    job = plan(role("driver", ""), volumes=(Volume(path="/data", claim="claim"),))
    await refused(
        backend, f"^cannot create cluster job in .*: Not a directory: {backend.root / 'volumes' / 'claim'}$", job
    )


# ---- who waits does not wait for ever


async def test_a_cluster_whose_supervisor_hangs_is_neither_adopted_nor_waited_for(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("practicus_provider.backends.local.STOP_PATIENCE", 0.5)
    job = plan(role("driver", SLEEP))
    handle = await backend.create("job", job, task=TASK)
    await running(backend, handle)
    supervisor_of(backend, handle).suspend()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BackendError, match=r"its supervisor does not answer within 0\.5 s"):
            await backend.create("job", job, task=TASK)
        await backend.delete(handle)
    await nothing_left(handle)


async def test_a_supervisor_that_hangs_beyond_its_clusters_time_is_ended_by_who_watches(
    backend: LocalBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("practicus_provider.backends.local.STOP_PATIENCE", 0.5)
    async with created(backend, "job", plan(server(), role("driver", SLEEP), timeout=5.0)) as handle:
        await running(backend, handle)
        supervisor_of(backend, handle).suspend()
        verdict = (await end(backend, handle)).verdict
        assert verdict is not None
        assert (verdict.state, verdict.reason) == (State.FAILED, Reason.SUPERVISOR_LOST)
        assert "its supervisor did not end it: it hung, and was killed with its replicas" in verdict.message
        await nothing_left(handle)


async def test_a_lock_that_is_held_for_ever_is_said(backend: LocalBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("practicus_provider.backends.local.STOP_PATIENCE", 0.5)
    async with created(backend, "job", plan(role("driver", SLEEP))) as handle:
        held = ClusterFolder(backend.root).lock()
        with pytest.raises(BackendError, match=r"lock is held for 0\.5 s: a process of ours hangs"):
            await backend.delete(handle)
        os.close(held or 0)


async def test_a_cluster_whose_folder_cannot_be_moved_is_ended_and_that_is_said(backend: LocalBackend) -> None:
    async with created(backend, "job", plan(role("driver", SLEEP))) as handle:
        (backend.root / "ended").rmdir()
        (backend.root / "ended").touch()
        with pytest.raises(BackendError, match=f"^cannot delete cluster job: File exists: {backend.root / 'ended'}$"):
            await backend.delete(handle)
        await nothing_left(handle)
        (backend.root / "ended").unlink()


async def test_who_has_no_file_left_to_watch_with_does_not_take_the_cluster_for_lost(backend: LocalBackend) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with created(backend, "job", plan(role("driver", SLEEP))) as handle:
        await running(backend, handle)
        with contextlib.ExitStack() as held:
            resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
            held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
            with contextlib.suppress(OSError):
                while True:
                    held.callback(os.close, os.open(os.devnull, os.O_RDONLY))
            with pytest.raises(BackendError, match="Too many open files"):
                await end(backend, handle)
        assert (await until(backend, handle, lambda status: True)).state is State.RUNNING
