"""The logs of local replicas, read from files that grow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from practicus_provider.backends.base import LogLine
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.logs import CHUNK, TOO_LONG, TURN, Reader
from practicus_provider.runtime.practicus_runtime.lines import BAR_PERIOD, LINE_LIMIT


@pytest.fixture
def folder(tmp_path: Path) -> ClusterFolder:
    (tmp_path / "logs").mkdir()
    return ClusterFolder(tmp_path)


def write(folder: ClusterFolder, data: bytes, replica: str = "driver-0") -> None:
    with folder.log(replica).open("ab") as file:
        file.write(data)


def texts(reader: Reader, folder: ClusterFolder, now: float = 0.0, *, whole: bool = False) -> list[str]:
    return [line.text for line in reader.lines(folder, now, whole=whole) if line is not None]


def test_a_line_is_taken_once_it_has_ended_and_what_is_left_at_the_end(folder):
    reader = Reader(["driver"], {})
    write(folder, b"a\nb")
    assert (texts(reader, folder), reader.taken) == (["a"], {"driver-0": 2})
    write(folder, b"c\nd")
    assert (texts(reader, folder), reader.taken) == (["bc"], {"driver-0": 5})
    assert (texts(reader, folder, whole=True), reader.taken) == (["d"], {"driver-0": 6})
    assert texts(reader, folder, whole=True) == []


def test_who_stops_amid_what_there_is_goes_on_after_the_last_line_that_was_taken(folder):
    write(folder, b"a\nb\nc\n")
    first = Reader(["driver"], {"other-0": 7})
    lines = first.lines(folder, 0.0, whole=True)
    assert [next(lines), next(lines)] == [LogLine("driver", 0, "a"), LogLine("driver", 0, "b")]
    assert first.taken == {"other-0": 7, "driver-0": 4}
    assert texts(Reader(["driver"], first.taken), folder, whole=True) == ["c"]


def test_of_a_file_that_is_larger_than_it_may_be_no_more_is_read_and_that_is_said_once(folder):
    reader = Reader(["driver"], {}, most=1 << 20)
    write(folder, b"a\n")
    os.truncate(folder.log("driver-0"), 100 << 30)  # a hole
    said = texts(reader, folder)
    assert (said[0], said[-1]) == ("a", TOO_LONG.format(1 << 20))
    assert texts(reader, folder, whole=True) == []


def test_a_line_that_goes_on_and_on_gives_others_their_turn(folder):
    write(folder, b"x" * (4 * TURN) + b"\n")
    found = list(Reader(["driver"], {}).lines(folder, 0.0, whole=True))
    assert [line is None for line in found] == [True] * 4 + [False]


def test_roles_and_single_replicas_are_read(folder):
    for replica in ("driver-0", "worker-0", "worker-1", "worker-10", "part-1-0"):
        write(folder, replica.encode() + b"\n", replica)
    (folder.path / "logs" / "supervisor.log").write_text("ours\n")
    assert texts(Reader(["driver", "worker-1", "part-1"], {}), folder) == ["driver-0", "part-1-0", "worker-1"]


def test_of_a_bar_a_state_is_shown_though_nothing_more_is_written(folder):
    reader = Reader(["driver"], {})
    write(folder, b"a\n\r1%")
    assert (texts(reader, folder, 10.0), reader.due()) == (["a", "1%"], None)
    write(folder, b"\r2%")
    assert (texts(reader, folder, 10.5), reader.due()) == ([], 10.0 + BAR_PERIOD)
    assert (texts(reader, folder, 10.0 + BAR_PERIOD), reader.due()) == (["2%"], None)
    assert reader.taken == {"driver-0": 2}
    write(folder, b"[progress   2%] x\n")
    assert texts(reader, folder, 20.0) == ["[progress   2%] x"]
    assert reader.taken == {"driver-0": folder.log("driver-0").stat().st_size}


def test_a_line_without_an_end_is_read_in_parts_and_cut(folder):
    reader = Reader(["driver"], {})
    for _ in range(2 * LINE_LIMIT // CHUNK):
        write(folder, b"x" * CHUNK)
        assert texts(reader, folder) == []
    write(folder, b"\nb\n")
    [cut, after] = texts(reader, folder)
    assert len(cut) < 2 * LINE_LIMIT
    assert " bytes of this line are left out ...) x" in cut
    assert after == "b"


def test_the_tail_of_a_log_has_bars_in_their_last_state(folder):
    write(folder, b"a\n\r1%\r2%Traceback (most recent call last):\n  File\n")
    assert folder.tail("driver-0") == ["a", "2%", "Traceback (most recent call last):", "  File"]
