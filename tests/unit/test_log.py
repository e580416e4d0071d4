from __future__ import annotations

import io
import logging

import pytest

from practicus_provider.log import ALONE, PERIOD, TOGETHER, Entries, Level, level_of

SAYS = {
    Level.DEBUG: [
        "DEBUG:urllib3:a connection",
        "TRACE: x",
        "22:07:06.123 [Thread-1] DEBUG a.B -- x",
    ],
    Level.INFO: [
        "26/11/28 22:07:06 INFO SparkContext: Running Spark",
        "2026-11-28 22:07:06,123 - distributed.core - INFO - an ERROR",
        "[2026-11-28 22:07:06,123] [INFO] [real_accelerator.py:1] x",
        "INFO:     Started server",
        "I1128 22:07:06.123456 123 file.cc:12] x",
    ],
    Level.WARNING: [
        "26/11/28 22:07:06 WARN NativeCodeLoader: Unable to load native-hadoop library",
        "2026-11-28T22:07:06.123Z  WARN 4711 --- [main] c.e.Foo : x",
        "2026-11-28 22:07:06,123 - distributed.worker - WARNING - x",
        "WARNING:root:x",
        "[2026-11-28T22:07:06.123+0000] {job.py:12} WARNING - x",
        "[WARNING|trainer.py:123] 2026-11-28 22:07:06,123 >> x",
        "W1128 22:07:06.123456 123 file.cc:12] x",
        "[rank0]:[W1128 22:07:06.12 Cpp.cpp:1] Warning: x",
        "level=warn msg=x",
        "/a/b.py:12: UserWarning: x",
        "warning: x",
    ],
    Level.ERROR: [
        "26/11/28 22:07:06 ERROR Executor: Exception in task 0.0 in stage 0.0",
        "2026-11-28 22:07:06,123 ERROR [main] org.apache.Foo: x",
        "2026-11-28 22:07:06,123 [main] ERROR org.apache.Foo - x",
        "2026-11-28 22:07:06,123 a.b.c ERROR x",
        "2026-11-28 22:07:06 [pid 12] a.b [ERROR] x",
        "2026-11-28 22:07:06.123 | ERROR    | __main__:f:1 - x",
        "ERROR StatusLogger x",
        "[ERROR] x",
        "\x1b[31mERROR\x1b[0m x",
        "[rank 3] ERROR: x",
        "SEVERE: x",
        '{"ts": 1, "level": "error", "msg": "x"}',
        "gcc: error: no input files",
        "Traceback (most recent call last):",
        "ValueError: x",
        "KeyError",
        "a.b.MyError: x",
        'Exception in thread "main" java.lang.IllegalStateException: x',
        "Caused by: java.io.IOException: x",
    ],
    Level.CRITICAL: [
        "CRITICAL:a.b:x",
        "FATAL: x",
        "\x1b[32m2026-11-28 22:07:06.123\x1b[0m | \x1b[31m\x1b[1mCRITICAL\x1b[0m | x",
        'time="2026-11-28T22:07:06Z" level=fatal msg=x',
        "fatal: not a git repository",
    ],
}


@pytest.mark.parametrize(("line", "level"), [(line, level) for level, lines in SAYS.items() for line in lines])
def test_a_line_has_the_level_that_its_logger_has_written(line, level):
    assert level_of(line) is level


@pytest.mark.parametrize(
    "line",
    [
        "",
        "loss: 0.3",
        "there was an ERROR",
        "errors: 0",
        "5 ERROR rows",
        "2013-03-01 rows with ERROR status: 5",
        "epoch 1 - loss - ERROR - x",
        "17 files, error: none",
        "step 3: error: bad",
        "INFORMATION",
        "WARNINGS",
        "an Error: x",
        '  File "job.py", line 1, in <module>',
        "[progress 100%] ERROR",
    ],
)
def test_a_line_that_speaks_of_an_error_is_none(line):
    assert level_of(line) is Level.INFO


@pytest.mark.parametrize(
    "style",
    [
        logging.BASIC_FORMAT,
        "%(levelname)s %(message)s",
        "%(asctime)s %(levelname)s %(message)s",
        "%(asctime)s - %(name)s - %(levelname)s - %(message)s",
        "%(asctime)s %(name)s %(levelname)s: %(message)s",
        "[%(asctime)s] [%(levelname)s] [%(filename)s:%(lineno)d] %(message)s",
        "[%(levelname)s] %(asctime)s %(message)s",
        "%(asctime)s [%(process)d] [%(threadName)s] %(levelname)-8s %(name)s: %(message)s",
    ],
)
def test_pythons_own_logging_is_understood_in_the_formats_that_people_write(style):
    written = io.StringIO()
    handler, logger = logging.StreamHandler(written), logging.Logger("jobs.etl")
    handler.setFormatter(logging.Formatter(style))
    logger.addHandler(handler)
    for level in Level:
        logger.log(level, "no such table")
    assert [level_of(line) for line in written.getvalue().splitlines()] == [*Level]


@pytest.mark.parametrize(
    "line", ["[" * (1 << 22), "a.b " * (1 << 20), "2026-11-28 22:07:06 " + "(x) " * 100, "1 - " * 99]
)
def test_a_line_of_any_length_is_looked_at(line):
    assert level_of(line) is Level.INFO  # in no time: an expression that tries all ways would not end


def said_as_one(lines: list[tuple[float, str, Level, str]]) -> list[tuple[str, Level, str]]:
    """Entries of lines that were written at those seconds."""
    said: list[tuple[str, Level, str]] = []
    entries = Entries(lambda text, level=Level.INFO, source="", /: said.append((text, level, source)))
    for now, text, level, source in lines:
        entries.add(text, level, source, now)
    entries.flush()
    return said


def test_lines_that_come_one_by_one_are_entries_of_their_own():
    lines = [(number * PERIOD / ALONE, str(number), Level.INFO, "driver-0") for number in range(5 * ALONE)]
    assert said_as_one(lines) == [(text, level, source) for _, text, level, source in lines]


def test_of_very_many_lines_those_of_one_level_and_replica_are_together_and_all_are_there_in_order():
    lines = [
        (number / 1e6, f"line {number}", Level.ERROR if number % 500 == 499 else Level.INFO, f"worker-{number // 1500}")
        for number in range(3000)
    ]
    said = said_as_one(lines)
    assert said[:ALONE] == [(text, level, source) for _, text, level, source in lines[:ALONE]]
    assert len(said) == ALONE + 2 * 6
    assert [(line, level, source) for text, level, source in said for line in text.split("\n")] == [
        (text, level, source) for _, text, level, source in lines
    ]


def test_an_entry_of_many_lines_has_an_end():
    said = said_as_one([(0.0, "x" * 1000, Level.INFO, "") for _ in range(1000)])
    assert max(len(text) for text, _, _ in said) <= TOGETHER + 2 * 1001 + 100


def test_what_waits_is_written_when_its_period_is_over():
    said: list[str] = []
    entries = Entries(lambda text, level=Level.INFO, source="", /: said.append(text))
    waits = [entries.add(str(number), Level.INFO, "", 0.0) for number in range(ALONE + 2)]
    assert waits == [False] * ALONE + [True, True]
    assert said == [str(number) for number in range(ALONE)]
    assert entries.add("later", Level.INFO, "", PERIOD) is False
    assert said[ALONE:] == [f"{ALONE}\n{ALONE + 1}", "later"]
