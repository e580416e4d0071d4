"""A script that our runtime runs behaves as if Python did."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from practicus_provider import runtime

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def both(tmp_path: Path) -> Run:
    """Runs a script by us, having asserted that Python alone does the same."""

    def run(code: str, *args: str, path: Path = tmp_path / "script.py", **env: str) -> subprocess.CompletedProcess[str]:
        path.write_text(code)
        done = [
            subprocess.run(
                [sys.executable, *how, str(path), *args],
                env={**os.environ, "PYTHONPATH": str(runtime.FOLDER), "PYTHONDONTWRITEBYTECODE": "1", **env},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=20,
            )
            for how in ([], ["-m", "practicus_runtime.script"])
        ]
        by_python, by_us = ((each.returncode, each.stdout, each.stderr) for each in done)
        assert by_us == by_python
        return done[1]

    return run


def test_it_is_the_main_module_and_has_its_arguments_and_its_folder(both, tmp_path):
    (tmp_path / "beside.py").write_text("name = 'beside'")
    code = "import sys, beside; print(__name__, __file__, sys.argv, sys.path[0], beside.name, __spec__)"
    assert "__main__" in both(code, "--rate", "0.1", "a b").stdout


@pytest.mark.parametrize(
    "code",
    [
        "import sys; sys.exit(3)",
        "import sys; sys.exit()",
        "import sys; sys.exit('no such data')",
        "import sys; sys.exit(256 + 7)",
        "def f():\n    raise ValueError('größe')\nf()",
        "try:\n    1 / 0\nexcept ZeroDivisionError as error:\n    raise RuntimeError('why') from error",
        "def f(:",
        "import atexit; atexit.register(print, 'last'); print('first')",
        "import atexit; atexit.register(print, 'last'); raise KeyError('x')",
        "import threading, time; threading.Thread(target=lambda: (time.sleep(0.3), print('thread'))).start()",
        "from __future__ import annotations\nx: nothing = 1\nprint(__annotations__)",
        "# -*- coding: latin-1 -*-\nprint(len('x'))",
        "import sys; sys.excepthook = lambda *_: print('mine'); raise ValueError",
        "print(annotations) if 'annotations' in globals() else print('clean')",
    ],
)
def test_it_ends_as_python_alone_ends_it(both, code):
    both(code)


def test_what_it_defines_can_be_pickled_and_is_found_by_processes_that_it_starts(both):
    code = (
        "import multiprocessing, pickle\n"
        "def double(x):\n    return 2 * x\n"
        "if __name__ == '__main__':\n"
        "    print(pickle.loads(pickle.dumps(double))(21))\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        print(pool.map(double, [1, 2]))\n"
    )
    assert both(code).stdout == "42\n[2, 4]\n"


def test_a_zip_with_a_main_module_runs_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "app.zip", "w") as archive:
        archive.writestr("__main__.py", "import sys; print(__name__, sys.argv[1:])")
    command = [sys.executable, "-m", "practicus_runtime.script", str(tmp_path / "app.zip"), "a"]
    env = {**os.environ, "PYTHONPATH": str(runtime.FOLDER)}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "__main__ ['a']\n")


def test_a_library_that_would_abort_the_interpreter_at_its_end_does_not(tmp_path):
    """By a destructor of C's, as torch's threads do."""
    code = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nlibc.printf(b'of C\\n')\n"
        "libc.__cxa_atexit(ctypes.cast(libc.abort, ctypes.c_void_p), None, None)\nprint('ok')"
    )
    (tmp_path / "script.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": str(runtime.FOLDER)}
    codes = [
        subprocess.run([sys.executable, *how, str(tmp_path / "script.py")], env=env, capture_output=True, text=True)
        for how in ([], ["-m", "practicus_runtime.script"])
    ]
    assert [done.returncode for done in codes] == [-6, 0]
    assert sorted(codes[1].stdout.splitlines()) == ["of C", "ok"]


def test_the_module_that_prepares_the_process_is_imported_first(tmp_path):
    (tmp_path / "prepare.py").write_text("import builtins; builtins.prepared = True")
    (tmp_path / "script.py").write_text("print(prepared)")
    env = {**os.environ, "PYTHONPATH": f"{runtime.FOLDER}:{tmp_path}", "PRACTICUS_PREPARE": "prepare"}
    command = [sys.executable, "-m", "practicus_runtime.script", str(tmp_path / "script.py")]
    assert subprocess.run(command, env=env, capture_output=True, text=True).stdout == "True\n"
