"""Airflow in each version that is supported, with the packages of its day.

Airflow's own instructions install it by a constraint file: what all of its providers agreed on at its release. Those
files are not on the package index. ``make airflow-sets`` makes the same by the same resolution, of what the index had
some hours after the release.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from packaging.version import Version

from tests.uv import uv

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
