"""Runs a script as Python does, but for its end: ``python -m practicus_runtime.script SCRIPT ARGS...``.

An interpreter that winds up while a process group is referenced may abort: torch 2.13 with Gloo then ends by SIGABRT
after all went well. So what Python does at its end is done here, for the application's modules: threads are joined,
``atexit`` is called, what the modules hold is dropped, which closes files and calls ``__del__``. Then the process is
left, without the end of the libraries' modules and without the destructors of C.

Modules that prepare for it are imported first: ``practicus_runtime.meeting``, if ``PRACTICUS_MEETS`` is set, and what
``PRACTICUS_PREPARE`` names. A failure's time is written to the file ``PRACTICUS_RANK_FAILURE`` at once: peers fail in
consequence, and may be noticed before. At a signal the stacks of all threads are written to the file
``PRACTICUS_STACK``, where there is to be one.
"""

from __future__ import annotations

import _io
import atexit
import contextlib
import ctypes
import faulthandler
import gc
import importlib
import json
import os
import runpy
import signal
import sys
import threading
import time
import weakref
import zipfile
from functools import partial
from importlib.machinery import SourceFileLoader
from types import ModuleType

from .contract import End, Env

_RUNTIME = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
_STDLIB = os.path.dirname(os.path.realpath(os.__file__))


def main(path: str, *args: str) -> int:
    """Run the script; its exit code."""
    sys.argv = [path, *args]
    if os.environ.get(Env.STACK):
        from practicus_runtime.hangs import STACK_SIGNAL

        # It stays open, and is written to from C.
        faulthandler.register(STACK_SIGNAL, os.open(os.environ[Env.STACK], os.O_WRONLY | os.O_CREAT, 0o600))
    try:
        if Env.MEETS in os.environ:
            importlib.import_module("practicus_runtime.meeting").prepare()
        if os.environ.get(Env.PREPARE):
            importlib.import_module(os.environ[Env.PREPARE])
        if _holds_main(path):
            _run_in()
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
    path = os.environ.get(Env.RANK_FAILURE)
    if code and path:
        # What has given up waiting has said more, there already.
        with contextlib.suppress(OSError), open(path, "x") as file:
            json.dump(End(code, at=time.time()).to_json(), file)


def _run_in() -> None:
    """The module ``__main__`` in the folder or the zip that comes first on the search path."""
    sys.modules["__main__"] = ModuleType("__main__")
    sys.modules["__main__"].__dict__["__builtins__"] = __builtins__
    runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]


def _run_file(path: str) -> None:
    """As the module ``__main__``, which pickles, and processes that it starts, look for."""
    loader = SourceFileLoader("__main__", path)
    module = ModuleType("__main__")
    module.__dict__.update(__file__=path, __loader__=loader, __cached__=None, __builtins__=__builtins__)
    sys.modules["__main__"] = module
    with open(path, "rb") as file:
        code = compile(file.read(), path, "exec", dont_inherit=True)
    exec(code, module.__dict__)


def leave(code: int, ours: ModuleType, folders: list[str]) -> None:
    """What an interpreter does at its end (``Py_FinalizeEx``), up to the libraries' modules and C's destructors."""
    shutdown, exits = threading._shutdown, atexit._run_exitfuncs  # type: ignore[attr-defined]
    # Collected before, too, as Python does: who holds a file, such as its buffer, then comes before it in the next one.
    for step in (shutdown, exits, _flush, gc.collect, partial(_drop, ours, folders), _flush_held, _flush):
        with contextlib.suppress(Exception):  # it has said so
            step()
    os._exit(code)


class _Mark:
    """Lies among a module's names: where it lives on, they do. The module itself may be gone before them."""


def _drop(ours: ModuleType, folders: list[str]) -> None:
    """Drop what the application's modules hold, in the order of ``finalize_modules`` in Python's ``pylifecycle.c``.

    Not what the libraries' modules hold, torch's process groups among it, whose threads may ask for the interpreter
    while it winds up, and abort. What both of them hold lives on.

    :param ours: this module, whose code still runs.
    """
    threading.excepthook = lambda _: None  # Python stops daemon threads here; ours may still miss what is dropped
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):  # enumerations are not
            signal.signal(number, signal.SIG_DFL)
    for name in ("stdin", "stdout", "stderr", "excepthook"):
        setattr(sys, name, getattr(sys, f"__{name}__"))  # a script may have put something of its own there
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        setattr(sys, name, None)
    marks = []
    for name, module in list(sys.modules.items()):
        if module is not ours and (name == "__main__" or _is_applications(module, folders)):
            with contextlib.suppress(AttributeError, TypeError):  # a script may have put something else there
                mark = module.__dict__["__practicus__"] = _Mark()
                marks.append(weakref.ref(mark))
                del mark
            sys.modules[name] = None  # type: ignore[assignment]
    del module
    gc.collect()
    for reference in reversed(marks):
        for names in gc.get_referrers(reference()) if reference() is not None else ():
            if type(names) is dict:
                _clear(names)
    gc.collect()


def _flush_held() -> None:
    """Write out what files hold that live on, such as one that a library was given."""
    for held in gc.get_objects():
        if issubclass(type(held), _io._IOBase):
            with contextlib.suppress(Exception):  # it is closed, or only read
                held.flush()


def _clear(names: dict[str, object]) -> None:
    """As ``_PyModule_ClearDict``: names of one underscore first, then all but the builtins, which destructors use."""
    for name in list(names):
        if name.startswith("_") and not name.startswith("__"):
            names[name] = None
    for name in list(names):
        if name != "__builtins__":
            names[name] = None


def _is_applications(module: object, folders: list[str]) -> bool:
    path = getattr(module, "__file__", None)
    if not isinstance(path, str):
        return False
    path = os.path.realpath(path)
    installed = {"site-packages", "dist-packages"}.intersection(path.split(os.sep))
    beside = installed or _is_below(path, _STDLIB) or _is_below(path, _RUNTIME)
    return not beside and any(_is_below(path, folder) for folder in folders)


def _is_below(path: str, folder: str) -> bool:
    return path.startswith(os.path.join(folder, ""))


def _holds_main(path: str) -> bool:
    return os.path.isdir(path) or zipfile.is_zipfile(path)


def _application() -> list[str]:
    """Folders of the application's modules: the script's own, and what comes before us on the search path."""
    folders = [os.path.realpath(path) for path in sys.path]
    return folders[: folders.index(_RUNTIME)] if _RUNTIME in folders else folders[:1]


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    ctypes.CDLL(None).fflush(None)  # what libraries have printed


if __name__ == "__main__":
    script = sys.argv[1]
    sys.path[0] = script if _holds_main(script) else os.path.dirname(os.path.realpath(script))
    before = sys.modules["__main__"], _application()
    leave(main(*sys.argv[1:]), *before)
