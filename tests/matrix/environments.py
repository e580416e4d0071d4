"""Airflow in each version that is supported, with the packages of its day.

Airflow's own instructions install it by a constraint file: what all of its providers agreed on at its release. Those
files are not on the package index. ``make airflow-sets`` makes the same by the same resolution, of what the index had
some hours after the release.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tests.uv import REPO, uv

SETS = {path.stem.removeprefix("airflow-"): path for path in Path(__file__).parent.glob("airflow-*.txt")}
"""Version of Airflow -> what its users give pip as ``--constraint``."""
VERSIONS = sorted(SETS, key=Version)
NEWEST = VERSIONS[-1]


def resolved(requirements: Iterable[str], airflow: str, python: str = "3.11") -> dict[str, str]:
    """What pip would install for an Airflow's users, name -> version; nothing is installed.

    :param python: its version.
    :raises RuntimeError: there is no such set.
    """
    found = uv(
        *("pip", "compile", "--quiet", "--no-header", "--no-annotate"),
        *("--python-version", python, "--python-platform", "linux", "--constraint", str(SETS[airflow]), "-"),
        stdin="\n".join((f"apache-airflow=={airflow}", *requirements)),
    )
    pins = [line.partition("==") for line in found.splitlines() if "==" in line]
    return {name: version for name, _, version in pins}


def install(folder: Path, requirements: Iterable[str], airflow: str, python: str) -> Path:
    """Make an environment as Airflow's instructions say, with these beside Airflow; its folder of programs.

    :param python: the interpreter, or its version.
    """
    uv("venv", "--quiet", "--no-python-downloads", "--python", python, str(folder))
    uv(
        *("pip", "install", "--quiet", "--compile-bytecode", "--python", str(folder / "bin" / "python")),
        *(f"apache-airflow=={airflow}", *requirements, "--constraint", str(SETS[airflow])),
    )
    return folder / "bin"


CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "practicus" / "matrix"
UNUSED = 14 * 86_400.0
"""Seconds after which an environment that nobody has used is removed: what it is made of has changed."""
TOOLS = ("jsonschema", "pytest", "pytest-asyncio", "pytest-xdist", "statsd")
"""Of the developers', what the tests of every Airflow need."""


def environment(airflow: str) -> Path:
    """An environment of that Airflow, which has this tree's package, Dask and what runs tests; its folder of programs.

    It is made once for all that it is made of.
    """
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    tools = [asked for asked in project["dependency-groups"]["dev"] if Requirement(asked).name in TOOLS]
    requirements = [*tools, "--editable", f"{REPO}[dask,openlineage]"]
    made_of = [SETS[airflow].read_text(), project["project"], requirements, sys.version]
    folder = CACHE / f"{airflow}-{sha256(json.dumps(made_of).encode()).hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = folder / "ready"
        if not ready.exists():
            for old in CACHE.glob("*/ready"):
                if time.time() - old.stat().st_mtime > UNUSED:
                    shutil.rmtree(old.parent)
            shutil.rmtree(folder, ignore_errors=True)
            install(folder, requirements, airflow, sys.executable)
        ready.touch()
    return folder / "bin"
