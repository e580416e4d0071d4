"""An environment with PyTorch, DeepSpeed, FairScale and Horovod, for replicas of the local backend: built once.

It has what ``images/training`` has, but PyTorch from the package index, which is newer than Debian's. It is not the
environment that Airflow runs in, as a user's would not be: ``python -m tests.training.environment`` prints its Python.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from tests.cluster import packages
from tests.cluster.errors import ClusterError
from tests.cluster.layout import CACHE, REPOSITORY
from tests.cluster.process import exclusive

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
BUILD = REPOSITORY / "images" / "training" / "build.sh"
SOURCES = BUILD.with_name("sources.txt")

_TO_BUILD = {
    "g++": "g++",
    "make": "make",
    f"{sysconfig.get_path('include')}/Python.h": "python3-dev",
}


def python() -> Path:
    """The environment's Python; the environment is built first if it must be: minutes on a fresh machine."""
    cache = CACHE / "training"
    folder = cache / _key()
    complete = folder / ".complete"
    with exclusive(cache):
        if not complete.exists():
            print(f"building an environment with PyTorch (once; it stays in {folder})", flush=True)
            packages.ensure(_TO_BUILD)
            _build(folder, cache / "wheels")
            complete.touch()
    return folder / "bin" / "python"


def _build(folder: Path, wheels: Path) -> None:
    """Build it where it stays: scripts in an environment have its path in their first line."""
    # As the Makefile finds it, in the version that it names.
    uv = _run("make", "--silent", "--directory", str(REPOSITORY), "uv").strip()
    target = folder / "bin" / "python"
    install = [uv, "pip", "install", "--python", str(target), "--compile-bytecode", "--no-deps"]
    shutil.rmtree(wheels, ignore_errors=True)  # of a build that was killed
    try:
        _run(uv, "venv", "--clear", "--no-python-downloads", "--python", sys.executable, str(folder))
        _run(*install, "--requirement", str(REQUIREMENTS))
        _run(str(BUILD), str(wheels), str(target), "-m", "pip", PATH=f"{folder / 'bin'}:{os.environ['PATH']}")
        _run(*install, *map(str, wheels.iterdir()))
    finally:
        shutil.rmtree(wheels, ignore_errors=True)


def _key() -> str:
    """Changes with anything that the environment is made of."""
    files = [file.read_text() for file in (REQUIREMENTS, SOURCES, BUILD, Path(__file__))]
    inputs = (files, sys.version, sys.base_prefix, sysconfig.get_platform())
    return hashlib.sha256(repr(inputs).encode()).hexdigest()[:16]


def _run(*command: str, **variables: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
    if done.returncode:
        raise ClusterError(f"{' '.join(command)} failed:\n{(done.stdout + done.stderr)[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    print(python())
