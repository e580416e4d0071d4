from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import typing
from collections import UserList
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from practicus_provider.application import Shipment, ship
from practicus_provider.errors import SpecError
from practicus_provider.function import arguments, read, script
from practicus_provider.plan import Here
from practicus_provider.spec import Function

LIMIT = 3


def practicus(function):
    return function


def refused(name: str, way_out: str) -> pytest.RaisesExc[SpecError]:
    return pytest.raises(SpecError, match=f"^{re.escape(f'python_callable={name!r}: {way_out}')}")


def run(function: Function, folder: Path) -> Any:
    """The result of its script, in a process that has nothing but a stand-in of our runtime."""
    (folder / "practicus_runtime.py").write_text("import json\ndef set_result(obj): print(json.dumps(obj))\n")
    (folder / "job.py").write_bytes(script(function))
    done = subprocess.run([sys.executable, str(folder / "job.py")], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


# ---- what travels


def test_a_function_is_shipped_as_a_script_that_calls_it(tmp_path):
    def add(a, b):
        return a + b

    function = read(add)
    assert function == Function("add", "    def add(a, b):\n        return a + b\n")
    assert ship(function, ["--x"], [], tmp_path) == Shipment(
        (Here.PYTHON, (Here.APP, "/", "add.py"), "--x"), {"add.py": script(function)}
    )


def test_the_script_gives_the_arguments_and_makes_what_is_returned_the_result(tmp_path):
    @practicus
    def join(first, *others, end: typing.Literal["."] = ".", **more) -> dict[str, LIMIT]:
        """A text of several lines
        stays as it is."""
        import os

        text = """
two
  lines"""  # a comment stays, too

        def inner(item: Undefined) -> Undefined:  # noqa: F821
            return f"{item}{end}"

        total: LIMIT = sum(len(inner(other)) for other in others)
        return {"first": first, "total": total, "more": more, "text": text, "doc": join.__doc__, "sep": os.sep}

    given = arguments(["a"], {"end": "!", "others": [1.5, None, True]}, lambda _: False)
    function = read(join)
    assert "# a comment stays, too" in function.source
    called = Function(function.name, function.source, given)
    assert run(called, tmp_path) == {
        "first": "a",
        "total": 0,
        "more": {"others": [1.5, None, True]},
        "text": "\ntwo\n  lines",
        "doc": "A text of several lines\n        stays as it is.",
        "sep": "/",
    }


def test_a_function_may_call_itself_keep_state_and_define_what_it_needs(tmp_path):
    def factorial(n=4):
        global calls

        class Counter:
            step = 1

            def more(self, calls):
                return calls + self.step

        try:
            calls = Counter().more(calls)
        except NameError:
            calls = 1
        return n * factorial(n - 1) if n > 1 else [calls, sorted({k: v for k, v in zip("b", [1], strict=True)})]

    assert run(read(factorial), tmp_path)[-2:] == [4, ["b"]]


def test_its_own_name_does_not_make_the_text_of_its_arguments_code(tmp_path):
    def echo(text):
        return text

    text = "'''\"\"\"\\{name} {}\n\u2028"
    called = Function("echo", read(echo).source, arguments([text], {}, lambda _: False))
    assert run(called, tmp_path) == text


# ---- what cannot travel


def test_what_a_function_takes_from_outside_is_refused_by_name():
    limit = 2

    def closure(x, since=LIMIT):
        return json.dumps([x, limit, (lambda: Path)()])

    with refused("closure", "only its own source travels: import, define or pass inside it what it takes from"):
        read(closure)
    with pytest.raises(SpecError, match=r"takes from outside: LIMIT, Path, json, limit$"):
        read(closure)


def test_what_is_no_plain_function_is_refused():
    async def waits(): ...

    def yields():
        yield 1

    with refused("waits", "define it by 'def': a lambda or an async function cannot be a job"):
        read(waits)
    with refused("<lambda>", "define it by 'def'"):
        read(lambda: 1)
    with refused("yields", "return a list instead"):
        read(yields)
    with refused("len", "define it in a file by 'def': its source cannot be read: "):
        read(len)
    with refused("typed", "define it in a file by 'def': its source cannot be read: "):
        read(eval(compile("def typed(): ...\nf = typed", "<typed>", "exec"), space := {}) or space["f"])


def test_a_decorator_of_the_function_itself_is_refused_and_one_of_its_task_is_not():
    def task(function):
        return function

    @task
    @practicus
    def above(): ...

    @practicus
    @functools.lru_cache(maxsize=1)
    def below(): ...

    assert read(above).source == "    def above(): ...\n"
    with refused("below", "only its own source travels: leave out the decorator @functools.lru_cache"):
        read(below)


# ---- arguments


def test_sequences_and_mappings_of_any_kind_become_those_of_json():
    given = arguments((1, ("a", UserList([2]))), {"m": MappingProxyType({"k": range(2)})}, lambda _: False)
    assert json.loads(given) == {"args": [1, ["a", [2]]], "kwargs": {"m": {"k": [0, 1]}}}


@pytest.mark.parametrize("value", [date(2013, 1, 5), {1: 2}, b"x", float("nan"), {1, 2}, object])
def test_an_argument_that_json_cannot_hold_is_refused_by_its_name(value):
    with pytest.raises(SpecError, match=f"^day={re.escape(repr(value))}: give what JSON can hold"):
        arguments([], {"day": [value]}, lambda _: False)


def test_what_only_stands_for_a_value_is_not_looked_at():
    assert arguments([date], {}, lambda value: value is date) == '{"args": [null], "kwargs": {}}'
