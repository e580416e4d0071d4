"""Runs a script as Python does, but for its end: ``python -m practicus_runtime.script SCRIPT ARGS...``.

An interpreter that winds up while a process group is referenced may abort: torch 2.13 with Gloo then ends by SIGABRT
after all went well. So once Python's own end is done, the process is left without what follows: destructors.

Modules that prepare for it are imported first: ``practicus_runtime.meeting``, if ``PRACTICUS_MEETS`` is set, and what
``PRACTICUS_PREPARE`` names. A failure's time is written to the file ``PRACTICUS_RANK_FAILURE`` at once: peers fail in
consequence, and may be noticed before. At a signal the stacks of all threads are written to the file
``PRACTICUS_STACK``, where there is to be one.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import importlib
import json
import os
import runpy
import sys
import threading
import time
import zipfile
from importlib.machinery import SourceFileLoader
from types import ModuleType


def main(path: str, *args: str) -> int:
    """Run the script; its exit code."""
    sys.argv = [path, *args]
    sys.path[0] = os.path.dirname(os.path.realpath(path))
    if os.environ.get("PRACTICUS_STACK"):
        from practicus_runtime.hangs import STACK_SIGNAL

        # It stays open, and is written to from C.
        faulthandler.register(STACK_SIGNAL, os.open(os.environ["PRACTICUS_STACK"], os.O_WRONLY | os.O_CREAT, 0o600))
    try:
        if "PRACTICUS_MEETS" in os.environ:
            importlib.import_module("practicus_runtime.meeting").prepare()
        if os.environ.get("PRACTICUS_PREPARE"):
            importlib.import_module(os.environ["PRACTICUS_PREPARE"])
        if os.path.isdir(path) or zipfile.is_zipfile(path):
            runpy.run_path(path, run_name="__main__")
        else:
            _run_file(path)
    except SystemExit as end:
        code = (end.code or 0) & 0xFF if end.code is None or isinstance(end.code, int) else 1
        _stamp(code)
        if code == 1 and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        return code
    except BaseException as error:
        _stamp(1)
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename == __file__:  # our own frames say nothing
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return 1
    return 0


def _stamp(code: int) -> None:
    path = os.environ.get("PRACTICUS_RANK_FAILURE")
    if code and path:
        # What has given up waiting has said more, there already.
        with contextlib.suppress(OSError), open(path, "x") as file:
            json.dump({"exit_code": code, "at": time.time()}, file)


def _run_file(path: str) -> None:
    """As the module ``__main__``, which pickles, and processes that it starts, look for."""
    loader = SourceFileLoader("__main__", path)
    module = ModuleType("__main__")
    module.__dict__.update(__file__=path, __loader__=loader, __cached__=None, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, module.__dict__)


def leave(code: int) -> None:
    """What an interpreter does at its end, up to the destructors."""
    for step in (threading._shutdown, atexit._run_exitfuncs, _flush):  # type: ignore[attr-defined]
        with contextlib.suppress(Exception):  # it has said so
            step()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    ctypes.CDLL(None).fflush(None)  # what libraries have printed


if __name__ == "__main__":
    ours = sys.modules["__main__"]  # stays, as its code still runs
    leave(main(*sys.argv[1:]))
