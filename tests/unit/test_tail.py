from __future__ import annotations

import subprocess
import sys

import pytest

from practicus_provider.tail import LINE_SHOWN, LINES_READ, SHOWN, TAIL_LINES, Cause, cause_in, last_lines

START = "Traceback (most recent call last):"
LOGGED = """
import logging
try:
    {}["retried"]
except KeyError:
    logging.exception("tried in vain")
"""
AFTER = """
import atexit
def leave():
    try:
        {}["left"]
    except KeyError:
        logging.exception("Exception while sending command.")
atexit.register(leave)
"""
UNCAUGHT = """
def load():
    raise OSError("no such bucket")
try:
    load()
except OSError as error:
    raise ValueError("no table") from error
"""


def output(program: str) -> list[str]:
    """What Python writes of a program."""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return (run.stdout + run.stderr).splitlines()


def errors(lines: tuple[str, ...]) -> list[str]:
    """Without what Python says of the place."""
    return [line for line in lines if not line.startswith("  ") and line != START]


CHAIN = ["OSError: no such bucket", "The above exception was the direct cause of the following exception:"]


ASIDE = {
    "logged before": LOGGED,
    "logged before and after": LOGGED + AFTER,
    "logged after": f"import logging\n{AFTER}",
    "a destructor": "class Left:\n    def __del__(self):\n        {}['left']\nleft = Left()\n",
    "a thread": "from threading import Thread\nt = Thread(target=lambda: {}['aside'])\nt.start()\nt.join()\n",
    "an exit handler": "import atexit\natexit.register(lambda: {}['left'])\n",
}


@pytest.mark.parametrize("aside", ASIDE.values(), ids=ASIDE)
def test_the_exception_that_nobody_caught_is_the_cause_with_its_chain_and_not_what_else_was_told(aside):
    found = cause_in(output(aside + UNCAUGHT))
    assert (errors(found.before), errors(found.lines)) == (CHAIN, ["ValueError: no table"])
    assert found.shown[0] == START


def test_an_exception_that_was_raised_while_another_was_handled_is_shown_with_it():
    found = cause_in(output("try:\n    {}['a']\nexcept KeyError:\n    1 / 0"))
    assert errors(found.before)[0] == "KeyError: 'a'"
    assert errors(found.lines) == ["ZeroDivisionError: division by zero"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python has them since 3.11")
def test_an_exception_group_is_shown_whole():
    found = cause_in(output(LOGGED + "raise ExceptionGroup('both', [ValueError('a'), TypeError('b')])"))
    assert found.lines[0].lstrip(" +|") == f"Exception Group {START}"
    assert [line for line in found.lines if "ValueError: a" in line or "TypeError: b" in line] != []
    assert not any("retried" in line for line in found.shown)


def test_what_was_logged_is_the_cause_where_nothing_else_is_told():
    found = cause_in(output(LOGGED + "raise SystemExit(3)"))
    assert errors(found.shown) == ["KeyError: 'retried'"]


def test_what_a_logger_writes_after_an_exception_is_not_of_it_and_what_the_program_writes_is():
    tail = [
        START,
        '  File "job.py", line 1',
        "SparkException: two",
        "lines",
        "26/11/28 22:07:06 INFO SparkContext: bye",
    ]
    assert cause_in(tail) == Cause((), tuple(tail[:-1]))


JVM = [
    "26/11/28 22:07:06 INFO SparkContext: up",
    'Exception in thread "main" java.lang.IllegalStateException: no route',
    "\tat org.example.Job.main(Job.java:7)",
    "Caused by: java.io.IOException: refused",
    "\tat org.example.Net.open(Net.java:3)",
]
BYE = ["26/11/28 22:07:06 INFO ShutdownHookManager: Shutdown hook called"]


def test_an_exception_of_a_jvms_main_thread_is_shown_with_its_causes():
    assert cause_in([*JVM, *BYE]) == Cause((), tuple(JVM[1:]))


GATEWAY = [
    START,
    '  File "job.py", line 3, in <module>',
    "pyspark.errors.exceptions.base.PySparkRuntimeError: [JAVA_GATEWAY_EXITED] Java gateway process exited before "
    "sending its port number.",
]


@pytest.mark.parametrize(
    "before",
    [
        JVM[1:],
        ["/opt/spark/bin/spark-class: line 71: /opt/java/bin/java: No such file or directory"],
        ["Unrecognized VM option 'UseNothing'", "Error: Could not create the Java Virtual Machine."],
    ],
)
def test_where_the_jvm_is_missed_what_it_wrote_before_is_the_cause(before):
    assert cause_in([*before, *GATEWAY]) == Cause((), (*before, *GATEWAY))


def test_an_exception_of_an_executors_python_is_shown_with_the_drivers():
    driver = [START, '  File "job.py", line 9, in <module>', "PythonException:"]
    said = "  An exception was thrown from the Python worker. Please see the stack trace below."
    executor = [START, '  File "worker.py", line 1247, in main', "ZeroDivisionError: division by zero"]
    assert cause_in(["x", *driver, said, *executor]) == Cause((*driver, said), tuple(executor))


def test_without_any_exception_the_last_lines_are_the_cause():
    tail = [f"line {number}" for number in range(2 * TAIL_LINES)]
    assert cause_in(tail) == Cause((), tuple(tail[-TAIL_LINES:]))
    assert cause_in([]) == Cause((), ())


def test_what_is_looked_at_is_long_enough_for_what_frameworks_write_as_they_close():
    assert LINES_READ >= 1000


def test_a_line_is_shown_as_text_whatever_a_terminal_would_make_of_it():
    tail = ["\x1b[31;1mred\x1b[0m\tand\x00 \x1b]0;title\x07 \x9b2J \udc80", "\x1b[0m \x1b[1m"]
    assert last_lines(tail) == (r"red	and\x00 \x1b]0;title\x07 \x9b2J \udc80".replace(r"\t", "\t"),)


def test_of_a_very_long_line_beginning_and_end_are_shown():
    begin, end = "a" * (LINE_SHOWN // 2), "z" * (LINE_SHOWN // 2)
    (line,) = last_lines([f"{begin}{'x' * 3_000_000}{end}"])
    assert line == f"{begin} (... 3000000 characters are left out ...) {end}"
    assert last_lines([begin + end]) == (begin + end,)


def test_of_very_much_the_last_lines_are_shown_and_how_many_are_left_out_is_said():
    frames = [f'  File "job.py", line {number}, in f{"x" * 1000}' for number in range(900)]
    shown = cause_in(["Traceback (most recent call last):", *frames, "RecursionError: too deep"]).shown
    kept = len(shown) - 1
    assert shown == (
        f"(... {902 - kept} lines before these are left out ...)",
        *frames[-kept + 1 :],
        "RecursionError: too deep",
    )
    assert SHOWN - 2_000 < sum(map(len, shown[1:])) <= SHOWN
