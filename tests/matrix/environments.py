"""Airflow in each version that is supported, with the packages of its day.

Airflow's own instructions install it by a constraint file: what all of its providers agreed on at its release. Those
files are not on the package index. ``make airflow-sets`` makes the same by the same resolution, of what the index had
some hours after the release.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
import tomllib
from collections.abc import Iterable, Iterator
from datetime import date
from hashlib import sha256
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tests.cluster.layout import CACHE
from tests.cluster.process import exclusive
from tests.uv import REPO, uv

SETS = {path.stem.removeprefix("airflow-"): path for path in Path(__file__).parent.glob("airflow-*.txt")}
"""Version of Airflow -> what its users give pip as ``--constraint``."""
*OLDER, NEWEST = sorted(SETS, key=Version)
CHOSEN = OLDER if os.environ.get("PRACTICUS_TEST_ALL_AIRFLOWS") else [OLDER[date.today().toordinal() % len(OLDER)]]
"""Those of the older ones that are tested beside the newest: all where that is asked for, and else another one each
day, so that none goes untested for longer than there are of them."""


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


def install(folder: Path, requirements: Iterable[str], airflow: str) -> Path:
    """Install these as Airflow's instructions say, beside Airflow; the folder of programs.

    :param folder: the environment, which is made if it is not there; if it is, only what it lacks is installed, and
        this tree's package.
    """
    programs = folder / "bin"
    if not programs.exists():
        uv("venv", "--quiet", "--no-python-downloads", "--python", sys.executable, str(folder))
    uv(
        *("pip", "install", "--quiet", "--compile-bytecode", "--python", str(programs / "python")),
        *("--reinstall-package", "airflow-provider-practicus"),
        *(f"apache-airflow=={airflow}", *requirements, "--constraint", str(SETS[airflow])),
    )
    return programs


KEPT = CACHE / "matrix"
UNUSED = 14 * 86_400.0
"""Seconds after which an environment that nobody has used is removed: what it is made of has changed."""
TOOLS = ("jsonschema", "pytest", "pytest-asyncio", "pytest-xdist", "statsd")
"""Of the developers', what the tests of every Airflow need."""


def environment(airflow: str) -> Path:
    """One of that Airflow, which has this tree's package, Dask and what runs tests; its folder of programs."""
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    tools = [asked for asked in project["dependency-groups"]["dev"] if Requirement(asked).name in TOOLS]
    requirements = [*tools, "--editable", f"{REPO}[dask,openlineage]"]
    with kept(airflow, [SETS[airflow].read_text(), project["project"], requirements]) as folder:
        return install(folder, requirements, airflow)


@contextlib.contextmanager
def kept(name: str, made_of: object) -> Iterator[Path]:
    """The folder of an environment, which nobody else has meanwhile.

    It is not there yet, or as the last one left it. Who fails with it leaves none: the next one makes it anew.

    :param made_of: a folder is kept for all that its environment is made of, and for this Python.
    """
    key = sha256(json.dumps([made_of, sys.version]).encode()).hexdigest()[:16]
    folder = KEPT / f"{name}-{key}"
    ready = folder / "ready"
    with exclusive(KEPT):
        if not ready.exists():
            for old in KEPT.glob("*/ready"):
                if time.time() - old.stat().st_mtime > UNUSED:
                    shutil.rmtree(old.parent)
            shutil.rmtree(folder, ignore_errors=True)
        ready.unlink(missing_ok=True)
        yield folder
        ready.touch()
