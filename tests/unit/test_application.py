from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from practicus_provider import application
from practicus_provider.application import Shipment, ship
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here


def write(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def refused(field: str, value: object, way_out: str) -> pytest.RaisesExc[SpecError]:
    return pytest.raises(SpecError, match=f"^{re.escape(f'{field}={str(value)!r}: {way_out}')}")


def test_a_file_beside_the_dag_is_shipped_and_run_with_its_arguments(tmp_path):
    write(tmp_path / "jobs" / "etl.py", "print()")
    assert ship("jobs/etl.py", ["--date", "x y"], [], tmp_path) == Shipment(
        (Here.PYTHON, (Here.APP, "/", "etl.py"), "--date", "x y"), {"etl.py": b"print()"}
    )


def test_an_absolute_path_is_read_where_it_is(tmp_path):
    path = write(tmp_path / "etl.py")
    assert ship(str(path), [], [], Path("/nowhere")).files == {"etl.py": b""}


@pytest.mark.parametrize(
    ("there", "entry"),
    [(["main.py"], "main.py"), (["__main__.py"], "__main__.py"), (["main.py", "__main__.py"], "__main__.py")],
)
def test_a_folder_starts_at_its_entry_point(tmp_path, there, entry):
    for name in (*there, "lib/helper.py", ".hidden"):
        write(tmp_path / "job" / name)
    shipment = ship("job", [], [], tmp_path)
    assert shipment == Shipment(
        (Here.PYTHON, (Here.APP, "/", f"job/{entry}")),
        {f"job/{name}": b"" for name in (*there, "lib/helper.py", ".hidden")},
    )


def test_a_package_starts_as_by_its_name_so_that_its_modules_may_be_imported_by_relative_ones(tmp_path):
    write(tmp_path / "job" / "__init__.py")
    write(tmp_path / "job" / "helpers.py", "HELLO = 'hello'")
    write(
        tmp_path / "job" / "__main__.py", "import sys\nfrom .helpers import HELLO\nprint(HELLO, __name__, sys.argv[1:])"
    )
    python, (_, _, entry), *args = ship("job", ["x"], [], tmp_path).program
    for name, content in ship("job", ["x"], [], tmp_path).files.items():
        write(tmp_path / "app" / name, content.decode())
    env = {"PYTHONPATH": str(tmp_path / "app")}
    said = subprocess.run([sys.executable, tmp_path / "app" / entry, *args], env=env, capture_output=True, check=True)
    assert (python, said.stdout) == (Here.PYTHON, b"hello __main__ ['x']\n")


@pytest.mark.parametrize("name", ["my-job", "job"])
def test_a_folder_that_is_no_package_starts_as_a_script(tmp_path, name):
    write(tmp_path / name / "__main__.py")
    if not name.isidentifier():
        write(tmp_path / name / "__init__.py")
    assert ship(name, [], [], tmp_path).program == (Here.PYTHON, (Here.APP, "/", f"{name}/__main__.py"))


def test_caches_environments_and_repositories_in_a_folder_stay_behind(tmp_path):
    for name in ("main.py", "__pycache__/main.pyc", "lib/__pycache__/x.pyc", ".git/config", ".venv/bin/python"):
        write(tmp_path / "job" / name)
    assert ship("job", [], [], tmp_path).files == {"job/main.py": b""}


def test_a_folder_without_an_entry_point_is_refused(tmp_path):
    write(tmp_path / "job" / "etl.py")
    with refused("application", "job", "the folder has no __main__.py and no main.py to start"):
        ship("job", [], [], tmp_path)


@pytest.mark.parametrize(("field", "names"), [("application", ("gone.py", [])), ("files", ("job.py", ["gone.py"]))])
def test_what_is_not_there_is_refused_with_the_place_that_was_looked_at(tmp_path, field, names):
    write(tmp_path / "job.py")
    with refused(field, "gone.py", f"there is no such file or folder; looked for {tmp_path / 'gone.py'}"):
        ship(names[0], [], names[1], tmp_path)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_path_that_leads_nowhere_says_where_paths_start(tmp_path, absolute):
    name = str(tmp_path / "gone.py") if absolute else "gone.py"
    with pytest.raises(SpecError) as raised:
        ship(name, [], [], tmp_path)
    assert ("starts at the folder of the DAG's file" in str(raised.value)) is not absolute


@pytest.fixture
def archive(tmp_path):
    with zipfile.ZipFile(tmp_path / "dags.zip", "w") as archive:
        for name in ("dag.py", "sub/dag.py", "job/main.py", "job/lib/helper.py", "job/__pycache__/x.pyc", "jobless/x"):
            archive.writestr(name, name)
    return tmp_path / "dags.zip"


@pytest.mark.parametrize(("name", "base"), [("job", ""), ("../job", "sub"), ("{archive}/job", "/nowhere")])
def test_a_folder_in_a_zip_is_shipped_like_any_other(archive, name, base):
    assert ship(name.format(archive=archive), [], [], archive / base) == Shipment(
        (Here.PYTHON, (Here.APP, "/", "job/main.py")),
        {"job/main.py": b"job/main.py", "job/lib/helper.py": b"job/lib/helper.py"},
    )


def test_a_file_in_a_zip_is_shipped_like_any_other(archive):
    assert ship("dag.py", [], ["sub"], archive).files == {"dag.py": b"dag.py", "sub/dag.py": b"sub/dag.py"}


def test_what_is_not_in_a_zip_is_refused_with_the_place_that_was_looked_at(archive):
    with refused("application", "gone.py", f"there is no such file or folder; looked for {archive / 'gone.py'}"):
        ship("gone.py", [], [], archive)


@pytest.mark.parametrize("name", ["job.sh", "job.jar", "job.sql", "job.ipynb", "job.R", "libjob.so", "job.whl"])
@pytest.mark.parametrize("where", ["", "local:///opt/", "https://host/"])
def test_an_application_that_is_no_python_is_refused_with_the_way_out(tmp_path, name, where):
    write(tmp_path / name)
    with refused("application", f"{where}{name}", "give a Python file (.py, .pyz or .zip) or a folder"):
        ship(f"{where}{name}", [], [], tmp_path)


@pytest.mark.parametrize("name", ["job", "job.py", "job.pyz", "job.zip"])
@pytest.mark.parametrize("where", ["", "local:///opt/", "https://host/v1.2/"])
def test_what_python_runs_may_be_an_application(tmp_path, name, where):
    write(tmp_path / name)
    assert ship(f"{where}{name}", [], [], tmp_path).program[-1]


def test_a_file_that_cannot_be_read_is_refused_with_the_systems_reason(tmp_path):
    write(tmp_path / "job" / "main.py")
    (tmp_path / "job" / "memory").symlink_to("/proc/self/mem")  # a regular file that not even root reads at 0
    with refused("application", tmp_path / "job" / "memory", "cannot be read: Input/output error"):
        ship("job", [], [], tmp_path)


def test_a_link_to_nowhere_in_a_folder_is_left_out(tmp_path):
    write(tmp_path / "job" / "main.py")
    (tmp_path / "job" / "gone").symlink_to("nowhere")
    assert ship("job", [], [], tmp_path).files == {"job/main.py": b""}


def test_a_folder_that_links_to_itself_is_read_once(tmp_path):
    write(tmp_path / "job" / "main.py")
    (tmp_path / "job" / "again").symlink_to(tmp_path / "job", target_is_directory=True)
    assert ship("job", [], [], tmp_path).files == {"job/main.py": b""}


def test_more_than_may_travel_is_refused_with_the_ways_out(tmp_path):
    write(tmp_path / "job.py")
    with (tmp_path / "data.bin").open("wb") as file:
        os.truncate(file.fileno(), application.SHIP_LIMIT + (1 << 20))
    way_out = "65 MiB are over the 64 MiB that travel with a job; put the data on a volume, in the image, or behind a"
    with refused("files", tmp_path / "data.bin", way_out):
        ship("job.py", [], ["data.bin"], tmp_path)


def test_the_limit_is_for_all_files_together(tmp_path, monkeypatch):
    monkeypatch.setattr(application, "SHIP_LIMIT", 10)
    for name in ("job.py", "a", "b"):
        write(tmp_path / name, "1234")
    assert len(ship("job.py", [], ["a"], tmp_path).files) == 2
    with refused("application", tmp_path / "job.py", "0 MiB are over"):
        ship("job.py", [], ["a", "b"], tmp_path)


def test_more_files_and_folders_lie_beside_the_application(tmp_path):
    for name in ("jobs/etl.py", "lib/helper.py", "data/rates.csv"):
        write(tmp_path / name, name)
    assert ship("jobs/etl.py", [], ["lib", "data/rates.csv"], tmp_path).files == {
        "lib/helper.py": b"lib/helper.py",
        "rates.csv": b"data/rates.csv",
        "etl.py": b"jobs/etl.py",
    }


def test_two_files_that_would_lie_at_the_same_place_are_refused(tmp_path):
    for name in ("a/job.py", "b/job.py"):
        write(tmp_path / name, name)
    with refused("application", tmp_path / "a" / "job.py", "another file is shipped as job.py already; rename one"):
        ship("a/job.py", [], ["b/job.py"], tmp_path)


def test_the_same_file_may_be_named_twice(tmp_path):
    write(tmp_path / "job.py", "x")
    assert ship("job.py", [], ["job.py", "job.py"], tmp_path).files == {"job.py": b"x"}


def test_what_is_in_the_image_is_not_shipped(tmp_path):
    write(tmp_path / "rates.csv", "1")
    assert ship("local:///opt/my jobs/etl.py", ["--x"], ["rates.csv"], tmp_path) == Shipment(
        (Here.PYTHON, "/opt/my jobs/etl.py", "--x"), {"rates.csv": b"1"}
    )


@pytest.mark.parametrize("url", ["http://host/etl.py", "https://host/etl.py?token=a&b=c"])
def test_a_url_is_fetched_by_the_replica(tmp_path, url):
    assert ship(url, ["--x"], [], tmp_path) == Shipment((Here.PYTHON, "-m", "practicus_runtime.fetch", url, "--x"))


@pytest.mark.parametrize("url", ["s3://bucket/etl.py", "gs://b/x", "ftp://host/x", "file:///etl.py"])
def test_a_url_that_nothing_here_can_fetch_is_refused(tmp_path, url):
    with refused("application", url, "give a path, a local:///path, or an http(s) URL"):
        ship(url, [], [], tmp_path)


def test_local_without_an_absolute_path_is_refused(tmp_path):
    with refused("application", "local://etl.py", "give an absolute path, as in local:///path"):
        ship("local://etl.py", [], [], tmp_path)


def test_a_program_stays_one(tmp_path):
    for name in ("job/main.py", "job/bin/tool", "probe"):
        write(tmp_path / name)
    for name in ("job/bin/tool", "probe"):
        (tmp_path / name).chmod(0o755)
    assert ship("job", [], ["probe"], tmp_path).executable == {"job/bin/tool", "probe"}


def test_a_program_in_a_zip_stays_one(tmp_path):
    write(tmp_path / "tool").chmod(0o755)
    write(tmp_path / "job.py")
    with zipfile.ZipFile(tmp_path / "dags.zip", "w") as file:
        for name in ("tool", "job.py"):
            file.write(tmp_path / name, name)
    assert ship("job.py", [], ["tool"], tmp_path / "dags.zip").executable == {"tool"}
