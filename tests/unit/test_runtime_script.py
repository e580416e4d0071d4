"""A script that our runtime runs behaves as if Python did."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from practicus_provider import runtime

PATIENCE = 60.0
"""Seconds after which a test that waits has failed."""
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def both(tmp_path: Path) -> Run:
    """Runs a script by us, having asserted that Python alone does the same, and leaves the same files ``out*``."""

    def run(
        code: str, *args: str, path: Path = tmp_path / "script.py", start: Path | None = None, **env: str
    ) -> subprocess.CompletedProcess[str]:
        path.write_text(code)
        done, found = [], []
        for how in ([], ["-m", "practicus_runtime.script"]):
            process = subprocess.run(
                [sys.executable, *how, str(start or path), *args],
                env={**os.environ, "PYTHONPATH": str(runtime.FOLDER), "PYTHONDONTWRITEBYTECODE": "1", **env},
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
            written = {file.name: file.read_bytes() for file in tmp_path.glob("out*")}
            for name in written:
                (tmp_path / name).unlink()
            done.append(process)
            found.append((process.returncode, process.stdout, process.stderr, written))
        assert found[1] == found[0]
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


SAYS = """
import os

class Says:
    def __init__(self, word):
        self.word = word
    def __del__(self, write=os.write):
        write(1, self.word.encode())
"""
HELD = {
    "a file": "curve = open('out', 'w'); print('1,2', file=curve)",
    "a file that functions write": "curve = open('out', 'w')\ndef say(): print('1,2', file=curve)\nsay()",
    "gzip": "import gzip; curve = gzip.GzipFile('out', 'wb', mtime=0); curve.write(b'1,2')",
    "text in gzip": "import gzip, io; curve = io.TextIOWrapper(gzip.GzipFile('out', 'wb', mtime=0)); curve.write('1')",
    "a zip": "import zipfile; z = zipfile.ZipFile('out', 'w'); z.writestr(zipfile.ZipInfo('a'), '1,2')",
    "a ring": "curve = open('out', 'w'); ring = [curve]; ring.append(ring); del curve; ring[0].write('1')",
    "a file of a module beside it": "import beside; beside.curve.write('1,2')",
    "a file of a package beside it": "from inside import deep; deep.curve.write('1,2')",
    "a file that a library holds": "import logging; logging.curve = open('out', 'w'); logging.curve.write('1,2')",
    "a file in place of stdout": "import sys; sys.stdout = open('out', 'w'); print('1,2')",
    "a file that a signal's handler holds": (
        "import signal; curve = open('out', 'w'); curve.write('1')\n"
        "signal.signal(signal.SIGTERM, lambda *_: curve.flush())"
    ),
    "a destructor that a library's hook needs": (
        f"{SAYS}\nimport logging; says = Says('gone'); logging.hook = lambda: says"
    ),
    "a destructor": f"{SAYS}\nsays = Says('gone')",
    "a destructor that needs other names": f"{SAYS}\nwhere = b'gone'\nSays.__del__ = lambda self: os.write(1, where)",
    "what its hook for exceptions needs": f"{SAYS}\nimport sys; says = Says('gone')\nsys.excepthook = lambda *_: says",
    "destructors in order": (
        f"{SAYS}\nimport signal; signal.signal(signal.SIGTERM, lambda *_: SAYS)\n"
        "b, _a, __c, _d, a = map(Says, ('b', '_a', '__c', '_d', 'a'))"
    ),
    "a file that atexit writes": "import atexit; curve = open('out', 'w'); atexit.register(lambda: curve.write('1'))",
    "a file that a thread writes": (
        "import threading, time; curve = open('out', 'w')\n"
        "threading.Thread(target=lambda: (time.sleep(0.2), curve.write('late'))).start()"
    ),
    "names that a daemon thread needs": (
        "import threading, time\nrate = 1e-5\n"
        "def beat():\n    while True:\n        time.sleep(rate)\n"
        "for _ in range(4): threading.Thread(target=beat, daemon=True).start()"
    ),
}
"""What a script's modules hold at their end -> the script."""
ENDS = {"well": "", "by an exception": "raise ValueError('lost')", "by sys.exit": "import sys; sys.exit(3)"}


@pytest.fixture
def beside(tmp_path: Path) -> Path:
    """The folder of an application of several modules."""
    folder = tmp_path / "application"
    (folder / "inside").mkdir(parents=True)
    for module in ("beside.py", "inside/deep.py"):
        (folder / module).write_text("curve = open('out', 'w')\ndef say(): print(curve)\n")
    return folder


@pytest.mark.parametrize(
    ("held", "end"),
    [*((held, "well") for held in HELD), *(("a file of a module beside it", end) for end in ENDS if end != "well")],
)
def test_nothing_of_what_its_modules_hold_is_lost_at_its_end(both, beside, held, end):
    both(f"{HELD[held]}\n{ENDS[end]}\n", path=beside / "script.py")


@pytest.mark.parametrize("packed", ["a folder", "a zip"])
@pytest.mark.parametrize("held", ["a file that functions write", "a file of a module beside it", "a destructor"])
def test_neither_is_it_where_the_application_is_a_folder_or_a_zip(both, beside, held, packed):
    start = beside
    (beside / "__main__.py").write_text(HELD[held])
    if packed == "a zip":
        start = Path(shutil.make_archive(str(beside), "zip", beside))
    both(HELD[held], path=beside / "__main__.py", start=start)


def test_what_libraries_hold_lives_on_as_they_may_need_it(both, tmp_path, beside):
    """As torch holds its process groups, which abort where they are dropped while an interpreter winds up."""
    installed = beside / "site-packages"
    installed.mkdir()
    (installed / "library.py").write_text(
        "import os\nclass Group:\n    __del__ = lambda self: os.abort()\nworld = Group()"
    )
    (beside / "script.py").write_text(
        "import library; group = library.world; curve = open('out', 'w'); curve.write('1')"
    )
    command = [sys.executable, "-m", "practicus_runtime.script", str(beside / "script.py")]
    env = {**os.environ, "PYTHONPATH": f"{runtime.FOLDER}:{installed}"}
    assert subprocess.run(command, env=env, cwd=tmp_path).returncode == 0
    assert (tmp_path / "out").read_text() == "1"


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
