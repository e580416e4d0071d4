from __future__ import annotations

import io
import logging

import pytest

from practicus_provider.log import Level, level_of

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
