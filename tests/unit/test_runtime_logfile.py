"""A log on disk that outgrows its bound, as it is written by a launcher and read by whoever follows it."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import pytest
from practicus_runtime.logfile import LogFile

from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.logs import LEFT_OUT, Reader
from practicus_provider.tail import LINES_READ
from tests.no_files import PIPE

LIMIT = 10_000
LEFT = re.compile(re.escape(LEFT_OUT).replace(re.escape("{}"), "([0-9]+)"))


@pytest.fixture
def folder(tmp_path: Path) -> ClusterFolder:
    (tmp_path / "logs").mkdir()
    return ClusterFolder(tmp_path)


@pytest.fixture
def log(folder: ClusterFolder) -> LogFile:
    return LogFile(str(folder.log("driver-0")), LIMIT)


def line(number: int) -> bytes:
    return b"%09d\n" % number


def numbered(count: int) -> bytes:
    return b"".join(map(line, range(count)))


def files(folder: ClusterFolder) -> list[Path]:
    return sorted((folder.path / "logs").iterdir())


def texts(folder: ClusterFolder, taken: int = 0, *, whole: bool = True) -> list[str]:
    return [found.text for found in Reader(["driver"], {"driver-0": taken}).lines(folder, 0.0, whole=whole) if found]


def test_a_log_within_its_bound_is_one_file_as_it_was_written(folder, log):
    log.write(b"a\nb")
    assert [(path.name, path.read_bytes()) for path in files(folder)] == [("driver-0.log", b"a\nb")]


@pytest.mark.parametrize("chunk", [1, 7, 999, 100_000])
def test_of_a_log_beyond_its_bound_half_is_its_beginning_and_at_least_a_fifth_its_end(folder, log, chunk):
    written = numbered(5_000)
    for start in range(0, len(written), chunk):
        log.write(written[start : start + chunk])
        assert sum(path.stat().st_size for path in files(folder)) <= LIMIT
    first, *further = [path.read_bytes() for path in files(folder)]
    assert first == written[: LIMIT // 2]
    end = b"".join(part.partition(b"\n")[2] for part in further)
    assert written.endswith(end)
    assert len(end) >= LIMIT // 5


def test_who_comes_late_is_told_at_the_place_how_much_was_left_out(folder, log):
    log.write(numbered(5_000))
    found = texts(folder)
    [(at, left_out)] = [(at, int(told[1])) for at, text in enumerate(found) if (told := LEFT.fullmatch(text))]
    before, after = found[:at], found[at + 1 :]
    assert before == [f"{number:09}" for number in range(LIMIT // 2 // 10)]
    assert "\n".join([*after, ""]).encode() == numbered(5_000)[LIMIT // 2 + left_out :]


def test_who_reads_the_files_themselves_is_told_too(folder, log):
    log.write(numbered(5_000))
    said = re.compile(rb"^\(\.\.\. this goes on after ([0-9]+) bytes of the log; .* \.\.\.\)$", re.MULTILINE)
    for path in files(folder)[1:]:
        assert said.findall(path.read_bytes()) == [b"%d" % int(path.suffix[1:])]


def test_who_keeps_up_reads_each_line_once_whatever_is_left_out_behind_it(folder, log):
    reader, found = Reader(["driver"], {}), []
    for number in range(5_000):
        log.write(line(number))
        found += [told.text for told in reader.lines(folder, 0.0, whole=False)]
    assert found == [f"{number:09}" for number in range(5_000)]


@pytest.mark.parametrize("pause", [100, 173, 700, 1_900])
def test_who_comes_back_now_and_then_loses_what_it_is_told_of_and_reads_nothing_twice(folder, log, pause):
    taken: dict[str, int] = {}
    found: list[str] = []
    for number in range(5_000):
        log.write(line(number))
        if number % pause == 0 or number == 4_999:
            reader = Reader(["driver"], taken)
            found += [told.text for told in reader.lines(folder, 0.0, whole=False)]
            taken = reader.taken
    left_out = sum(int(told[1]) for text in found if (told := LEFT.fullmatch(text)))
    read = [text for text in found if not LEFT.fullmatch(text)]
    assert taken == {"driver-0": 50_000}
    assert sum(len(text) + 1 for text in read) in range(50_000 - left_out, 50_000 - left_out + len(found))  # cut lines
    whole = [int(text) for text in read if len(text) == 9]
    assert whole == sorted(set(whole))
    assert (left_out > 0) == (pause > 500)


def test_a_place_that_was_left_out_is_the_next_one_that_there_is(folder, log):
    log.write(numbered(5_000))
    first, *found = texts(folder, LIMIT // 2 + 10)
    told = LEFT.fullmatch(first)
    assert told
    assert "\n".join([*found, ""]).encode() == numbered(5_000)[LIMIT // 2 + 10 + int(told[1]) :]


def test_a_line_that_is_not_whole_as_the_rest_is_left_out_is_one_of_its_own(folder):
    log = LogFile(str(folder.log("driver-0")), LIMIT)
    log.write(b"x" * 50_000 + b"\nthe end\n")
    beginning, left_out, rest, end = texts(folder)
    assert (beginning, end) == ("x" * (LIMIT // 2), "the end")
    told = LEFT.fullmatch(left_out)
    assert told
    assert len(rest) == 50_000 - LIMIT // 2 - int(told[1])


def test_the_tail_is_that_of_all_files(folder, log):
    log.write(numbered(1_000))  # the last file has some lines alone
    assert folder.tail("driver-0") == [text for text in texts(folder) if not LEFT.fullmatch(text)][-LINES_READ:]
    assert folder.tail("driver-0")[-200:] == [f"{number:09}" for number in range(800, 1_000)]


def test_a_log_that_grows_makes_another_stamp_in_whichever_file(folder, log):
    stamps = set()
    for number in range(2_000):
        log.write(line(number))
        stamps.add(folder.stamp())
    assert len(stamps) == 2_000


def test_what_a_full_disk_does_not_take_is_left_out_and_told(folder, log):
    log.write(b"before\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))  # as a disk on which nothing more has room
    try:
        for number in range(10):
            log.write(line(number))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.write(b"after\n")
    assert texts(folder) == ["before", f"{0:09}", "000", LEFT_OUT.format(87), "after"]


def test_what_was_written_before_stays(folder, log):
    log.write(b"before\n")
    again = LogFile(log.path, LIMIT)
    again.write(b"after\n")
    assert texts(folder) == ["before", "after"]


def test_a_further_file_that_is_none_is_said(folder, log):
    log.write(b"fine\n")
    PIPE(folder.path / "logs" / f"driver-0.log.{100:015}")
    os.mkfifo(folder.path / "logs" / "driver-0.log.new")  # of no log
    found = texts(folder)
    assert found[0] == "fine"
    assert found[1].startswith("(this log cannot be read any more: ")
    assert folder.tail("driver-0") == ["fine"]
