"""What is built installs as Airflow's own instructions say, beside every Airflow that is supported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from packaging.metadata import RawMetadata, parse_email

from tests.docs import FENCE, README, REPO
from tests.e2e.airflow_home import LOCAL, settings
from tests.matrix.environments import CHOSEN, NEWEST, OLDER, install, kept, resolved
from tests.uv import uv

EXTRAS = "dask,spark"
"""Those that bring what Airflow's sets do not have. Trainings' are gigabytes."""

PYTHONS = ["3.11", "3.12", "3.13"]
SUPPORTED = [*((airflow, PYTHONS[0]) for airflow in OLDER), *((NEWEST, python) for python in PYTHONS)]
INSTALLED = [*CHOSEN, NEWEST]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    uv("build", "--quiet", "--out-dir", str(folder), str(REPO))
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


def required(wheel: Path) -> str:
    return f"airflow-provider-practicus[{EXTRAS}] @ {wheel.as_uri()}"


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> RawMetadata:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        found, not_understood = parse_email(archive.read(name))
    assert not_understood == {}
    return found


@pytest.fixture(scope="module")
def chosen(wheel: Path) -> dict[tuple[str, str], dict[str, str]]:
    """Airflow and Python -> what would be installed with them. Mostly it is the index that takes the time."""
    with ThreadPoolExecutor() as pool:
        pairs = {*SUPPORTED, *((airflow, HERE) for airflow in INSTALLED)}
        resolutions = {pair: pool.submit(resolved, [required(wheel)], *pair) for pair in pairs}
        return {pair: resolution.result() for pair, resolution in resolutions.items()}


@pytest.mark.parametrize("pair", SUPPORTED, ids=" on ".join)
def test_it_resolves_with_the_packages_of_every_supported_airflow(chosen, pair):
    assert chosen[pair]["apache-airflow"] == pair[0]
    assert chosen[pair].keys() >= {"dask", "kubernetes-asyncio", "pyspark"}


def test_the_package_index_takes_what_is_built(built):
    command = [sys.executable, "-m", "twine", "check", "--strict", *built.glob("airflow_provider_practicus-*")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_index_shows_the_readme_without_links_that_lead_nowhere_there(metadata):
    shown, readme = metadata["description"], README.read_text()
    assert [target for target in re.findall(r"\]\(([^)]+)\)", shown) if not target.startswith("https://")] == []
    assert FENCE.findall(shown) == FENCE.findall(readme)
    assert re.findall("^#+ .+", shown, re.MULTILINE) == re.findall("^#+ .+", readme, re.MULTILINE)


def test_it_says_under_which_licence_and_brings_its_text(metadata, wheel):
    assert (metadata["license_expression"], metadata["license_files"]) == ("Apache-2.0", ["LICENSE"])
    with zipfile.ZipFile(wheel) as archive:
        (text,) = (archive.read(name) for name in archive.namelist() if name.endswith("/licenses/LICENSE"))
    assert b"Apache License" in text
    assert b"END OF TERMS AND CONDITIONS" in text


def test_it_names_each_minor_version_of_python_that_is_supported(metadata):
    minors = [found[1] for name in metadata["classifiers"] if (found := re.match(r".* :: Python :: (3\.\d+)$", name))]
    assert minors == PYTHONS
    assert metadata["requires_python"] == f">={minors[0]}"


@pytest.mark.parametrize("airflow", INSTALLED)
def test_a_bare_machine_has_it_by_the_line_of_the_readme_and_runs_its_first_jobs(wheel, chosen, airflow, tmp_path):
    # An environment is kept for what that line chooses today, because all but what is built takes minutes to install.
    with kept(f"bare-{airflow}", chosen[airflow, HERE]) as folder:
        programs = install(folder, [required(wheel)], airflow)
        uv("pip", "check", "--quiet", "--python", str(programs / "python"))
        runs_its_first_jobs(programs, tmp_path)


def runs_its_first_jobs(programs: Path, folder: Path) -> None:
    """By an Airflow that is new there.

    :param folder: where it has its home.
    """
    env = settings(folder / "home", Path(__file__).parent / "dags", LOCAL) | {
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": "",
    }

    def command(*arguments: str) -> str:
        done = subprocess.run([programs / "airflow", *arguments], cwd=folder, env=env, capture_output=True, text=True)
        assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
        return done.stdout + done.stderr

    command("db", "migrate")
    printed = command("dags", "test", "installed")
    assert "the sums are [4950, 4950, 4950, 4950]" in printed, printed[-8000:]
    assert [path for path in (folder / "home" / "practicus").glob("*/cluster.json")] == []
