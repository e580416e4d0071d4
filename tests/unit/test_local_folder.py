"""A local cluster's folder, into which a job of the same user may have put anything."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from practicus_provider.backends.base import Handle, LogLine
from practicus_provider.backends.codec import dump_plan
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.creation import write_new
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.logs import Reader
from practicus_provider.status import State, Status
from tests.no_files import FOLDER, PIPE, Put, endless
from tests.plans import PATIENCE, SLEEP, TASK, plan, role

HOSTILE: dict[str, Put] = {
    "a pipe": PIPE,
    "a link to a device without end": endless,
    "a link to another file": lambda path: path.symlink_to("/etc/hostname"),
    "a folder": FOLDER,
    "no JSON": lambda path: path.write_bytes(b"\xff{"),
    "JSON that is too deep": lambda path: path.write_text("[" * 100_000),
    "a list": lambda path: path.write_text("[]"),
    "an object of something else": lambda path: path.write_text('{"state": {}, "uid": []}'),
}


@pytest.fixture
def backend(tmp_path: Path) -> LocalBackend:
    made = LocalBackend(tmp_path)
    for name in ("bad", "good"):
        config = {"uid": f"uid-{name}", "plan": dump_plan(plan(role("driver", SLEEP))), "task": TASK, "created_at": 1.0}
        write_new(ClusterFolder(tmp_path / name), config, {}, ())
        ClusterFolder(tmp_path / name).write("status.json", Status(State.RUNNING).to_json())
    return made


def replace_with(path: Path, put: Put) -> None:
    path.unlink(missing_ok=True)
    put(path)


@pytest.mark.parametrize("put", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["cluster.json", "status.json"])
async def test_a_cluster_whose_folder_holds_something_else_is_a_row_that_says_so_and_the_others_are_as_ever(
    backend, name, put
):
    replace_with(backend.root / "bad" / name, put)
    async with asyncio.timeout(PATIENCE):
        bad, good = await backend.list()
    assert (good.handle, good.state, good.trouble) == (Handle("good", "uid-good"), State.RUNNING, "")
    verdict = bad.status.verdict
    assert (bad.handle.name, bad.state) == ("bad", State.FAILED if verdict else State.UNKNOWN)
    said = verdict.message if verdict else bad.trouble
    assert said.startswith(f"{backend.root}/bad/{name} cannot be read, as something has replaced it: ")
    assert said.endswith(f"; remove {backend.root}/bad if that is to go")


FILES = {name: put for name, put in HOSTILE.items() if put is not FOLDER}
"""Without what is an error of the system, as a full disk is."""


@pytest.mark.parametrize("put", FILES.values(), ids=FILES)
def test_a_status_is_written_whatever_stands_where_it_is_made(backend, put):
    folder = ClusterFolder(backend.root / "bad")
    replace_with(folder.path / ".status.json.new", put)
    folder.write("status.json", Status(State.UNKNOWN).to_json())
    assert folder.state() is State.UNKNOWN


@pytest.mark.parametrize("kind", ["a pipe", "a link to a device without end", "a folder"])
def test_a_log_that_is_no_file_any_more_is_said_once_and_the_others_are_read(backend, kind):
    folder = ClusterFolder(backend.root / "bad")
    replace_with(folder.log("driver-0"), HOSTILE[kind])
    folder.log("driver-1").write_text("fine\n")
    reader = Reader(["driver"], {})
    said, fine = reader.lines(folder, 0.0, whole=False)
    assert fine == LogLine("driver", 1, "fine")
    assert said.text.startswith("(this log cannot be read any more: ")
    assert list(reader.lines(folder, 1.0, whole=True)) == []
    assert folder.tail("driver-0") == []


def test_nobody_is_killed_but_a_supervisor(backend):
    folder = ClusterFolder(backend.root / "bad")
    for content in ("-1", "x", ""):
        held = folder.lock()
        (folder.path / "lock").write_text(content)
        folder.kill_supervisor()
        assert held is not None
        os.close(held)


def test_of_a_log_without_end_its_tail_is_read(backend):
    folder = ClusterFolder(backend.root / "bad")
    with folder.log("driver-0").open("wb") as file:
        file.truncate(100 << 30)  # a hole: it takes no room
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe end\n")
    assert folder.tail("driver-0")[-1] == "the end"
    shutil.rmtree(folder.path)
