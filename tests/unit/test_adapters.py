from __future__ import annotations

import importlib
import io
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from practicus_provider.adapters import BUILT_IN, DOCKERFILE, Adapter, load, make_plan
from practicus_provider.adapters.dask import DaskAdapter
from practicus_provider.errors import AdapterError, SpecError
from practicus_provider.plan import Here, Host, Launch, Plan, Port, Role
from practicus_provider.spec import JobSpec

HERE = __name__
PROGRAM = ("python", "job.py")
REPOSITORY = Path(__file__).parents[2]


class Alone(Adapter):
    """One replica that runs the application."""

    client = "os:getcwd"

    def roles(self, spec, program):
        return (Role("driver", Launch(program), spec.min_workers),)


class Unsaid(Adapter):
    """Says nothing of its roles."""


class Demanding(Alone):
    def __init__(self, argument):
        self.argument = argument


class Failing(Alone):
    def roles(self, spec, program):
        return {}["missing"]


class Refusing(Alone):
    def roles(self, spec, program):
        raise SpecError("conf", "x", "not here")


class Listing(Alone):
    def roles(self, spec, program):
        return list(super().roles(spec, program))


class Odd(Alone):
    def roles(self, spec, program):
        return ("driver",)


class Dangling(Alone):
    def roles(self, spec, program):
        return (Role("driver", Launch((*program, Host("boss")))),)


class Undecided(Alone):
    def roles(self, spec, program):
        return (Role("worker", Launch(program)),)


class Linked(Alone):
    links: ClassVar[dict[str, Port]] = {"web": Port("driver", "web")}


not_a_class = Alone()


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """This very module by its name, as a user's adapter is."""
    monkeypatch.setitem(sys.modules, "adapters_under_test", sys.modules[HERE])


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that packages can be installed to."""
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return tmp_path


@pytest.fixture
def installed(site: Path) -> Callable[..., None]:
    """Installs a distribution with these entry points."""

    def install(entry_points: str) -> None:
        folder = site / "vendor_adapters-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: vendor-adapters\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[practicus_provider.adapters]\n{entry_points}\n")
        importlib.invalidate_caches()

    return install


def refused(name: str, way_out: str) -> pytest.RaisesExc[AdapterError]:
    return pytest.raises(AdapterError, match=f"^{re.escape(f'adapter={name!r}: {way_out}')}$")


def mine(cls: type | str) -> str:
    return f"adapters_under_test.{cls if isinstance(cls, str) else cls.__name__}"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_adapter_says_what_its_framework_is_and_which_image_has_it(name):
    framework = load(name).framework
    dockerfile = REPOSITORY / framework.dockerfile.removesuffix(DOCKERFILE.removeprefix("Dockerfile"))
    made_of = "".join(file.read_text() for file in dockerfile.parent.iterdir())
    assert dockerfile.is_file()
    assert [module for module in framework.modules if module not in made_of] == []
    assert make_plan(JobSpec.of(adapter=name), PROGRAM).framework == framework


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_adapter_loads_by_its_name(name):
    assert f"{type(load(name)).__module__}.{type(load(name)).__qualname__}" == BUILT_IN[name]


def test_a_built_in_adapter_is_found_without_a_look_at_all_packages_that_are_installed(monkeypatch):
    monkeypatch.delattr("practicus_provider.adapters.entry_points")
    assert isinstance(load("dask"), DaskAdapter)


@pytest.mark.parametrize("path", [mine(Alone), mine(Alone).replace(".", ":")])
def test_an_adapter_loads_by_its_dotted_path(path):
    assert type(load(path)) is Alone


def test_an_unknown_adapter_is_refused_with_those_that_exist():
    with refused("zzz", f"choose one of {', '.join(BUILT_IN)}, or give 'module.Class'"):
        load("zzz")


def test_a_slip_of_the_pen_is_refused_with_the_name_that_was_meant():
    with refused("sprak", f"did you mean 'spark'? choose one of {', '.join(BUILT_IN)}, or give 'module.Class'"):
        load("sprak")


def test_an_adapter_in_another_installed_package_is_found_by_its_name(installed):
    installed("alone = adapters_under_test:Alone")
    assert type(load("alone")) is Alone
    with refused("alon", f"did you mean 'alone'? choose one of alone, {', '.join(BUILT_IN)}, or give 'module.Class'"):
        load("alon")


def test_another_package_cannot_replace_a_built_in_adapter(installed):
    installed("dask = adapters_under_test:Alone")
    assert type(load("dask")) is DaskAdapter


def test_an_adapter_of_a_package_that_is_broken_is_refused_by_its_name(installed):
    installed("broken = no_such_package.adapters:Broken")
    with refused(
        "broken",
        "cannot load 'no_such_package.adapters:Broken': ModuleNotFoundError: No module named 'no_such_package'",
    ):
        load("broken")


def test_a_broken_adapter_of_another_package_leaves_the_others_alone(installed):
    installed("broken = no_such_package:Broken")
    assert type(load("dask")) is DaskAdapter


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("", "AttributeError: module 'user_adapter' has no attribute 'Mine'"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused_with_the_reason(site, monkeypatch, source, reason):
    (site / "user_adapter.py").write_text(source)
    monkeypatch.delitem(sys.modules, "user_adapter", raising=False)
    with refused("user_adapter.Mine", f"cannot load 'user_adapter.Mine': {reason}") as error:
        load("user_adapter.Mine")
    sys.modules.pop("user_adapter", None)
    assert error.value.__cause__ is not None


@pytest.mark.parametrize("name", ["", ".", "..", ".Mine", "mine.", "a..b", ":"])
def test_a_name_that_cannot_be_a_dotted_path_is_refused(name):
    with pytest.raises(AdapterError, match=f"^{re.escape(f'adapter={name!r}: ')}"):
        load(name)


@pytest.mark.parametrize("name", ["pathlib.Path", "os.getcwd", "os.sep", mine("not_a_class")])
def test_what_is_not_an_adapter_is_refused(name):
    with refused(name, f"{name!r} is not a subclass of practicus_provider.adapters.Adapter"):
        load(name)


@pytest.mark.parametrize("cls", [Unsaid, Demanding])
def test_an_adapter_that_cannot_be_made_is_refused(cls):
    with pytest.raises(AdapterError, match=f"^{re.escape(f'adapter={mine(cls)!r}: cannot make {mine(cls)!r}: ')}"):
        load(mine(cls))


def test_the_abstract_adapter_is_refused():
    with pytest.raises(AdapterError, match=r"cannot make 'practicus_provider\.adapters\.Adapter'"):
        load("practicus_provider.adapters.Adapter")


def test_the_plan_holds_what_the_adapter_says():
    spec = JobSpec.of(adapter=mine(Alone), workers=3, timeout=60)
    assert make_plan(spec, PROGRAM, {"job.py": b""}) == Plan(
        mine(Alone), (Role("driver", Launch(PROGRAM), 3),), "driver", 60, {"job.py": b""}, "os:getcwd"
    )


def test_what_an_adapter_refuses_itself_stays_as_it_says():
    with pytest.raises(SpecError, match=r"^conf='x': not here$"):
        make_plan(JobSpec.of(adapter=mine(Refusing)), PROGRAM)


def test_an_adapter_whose_roles_fail_is_refused_with_the_reason():
    with refused(mine(Failing), "its roles() failed: KeyError: 'missing'") as error:
        make_plan(JobSpec.of(adapter=mine(Failing)), PROGRAM)
    assert isinstance(error.value.__cause__, KeyError)


def test_an_adapter_that_returns_a_list_is_refused():
    with refused(mine(Listing), "its roles() returned list, not a tuple of Role"):
        make_plan(JobSpec.of(adapter=mine(Listing)), PROGRAM)


@pytest.mark.parametrize(
    ("cls", "message"),
    [
        (Odd, "roles='driver': every role must be a practicus_provider.plan.Role"),
        (Dangling, "reference=Host(role='boss'): there are only these roles and ports: {'driver': {}}"),
        (Undecided, "decides='driver': name one of ['worker']"),
        (Linked, "reference=Port(role='driver', name='web'): there are only these roles and ports: {'driver': {}}"),
    ],
)
def test_a_plan_whose_parts_do_not_fit_is_refused_by_its_adapters_name(cls, message):
    with pytest.raises(SpecError, match=f"^{re.escape(f'adapter {mine(cls)}: {message}')}$"):
        make_plan(JobSpec.of(adapter=mine(cls)), PROGRAM)


@pytest.mark.parametrize(("adapter", "apart"), [("dask", set()), ("spark", {"coordinator"})])
def test_every_replica_that_loads_what_is_the_users_installs_what_the_job_requires_before_it_starts(adapter, apart):
    """Dask's scheduler unpickles what tasks are made of; Spark's master only manages processes."""
    plain, installing = (
        make_plan(JobSpec(adapter=adapter, requirements=requirements), PROGRAM) for requirements in ((), ("polars>=1",))
    )
    install = (Here.PYTHON, "-m", "practicus_runtime.requirements", Here.APP, "polars>=1", "--")
    for role in plain.roles:
        launch = replace(role.launch, command=(*install, *role.launch.command))
        assert installing.role(role.name) == (role if role.name in apart else replace(role, launch=launch))


# ---- modules beside the script


def search_paths(program: tuple[Any, ...], **more: Any) -> dict[str, Any]:
    """Of each role of a Dask job, what its launch says of it."""
    plan = make_plan(JobSpec.of(adapter="dask", **more), program)
    return {role.name: role.launch.env.get("PYTHONPATH") for role in plan.roles}


@pytest.mark.parametrize(
    ("script", "folder"),
    [
        ((Here.APP, "/", "jobs/main.py"), (Here.APP, "/", "jobs")),
        ((Here.APP, "/", "jobs/daily/__main__.py"), (Here.APP, "/", "jobs/daily")),
        ("/opt/jobs/main.py", ("/opt/jobs",)),
    ],
)
def test_modules_beside_the_script_are_found_on_every_replica(script, folder):
    found = search_paths((Here.PYTHON, script, "a/b"))
    assert found == dict.fromkeys(("coordinator", "worker", "driver"), folder)
    found = search_paths((Here.PYTHON, script), env={"PYTHONPATH": "/mine"})
    assert found == dict.fromkeys(("coordinator", "worker", "driver"), (*folder, ":", "/mine"))


@pytest.mark.parametrize(
    "program",
    [
        (Here.PYTHON, (Here.APP, "/", "main.py"), "a/b"),
        (Here.PYTHON, "-m", "practicus_runtime.fetch", "https://h/jobs/main.py"),
        (Here.PYTHON, "/main.py"),
        ("true",),
    ],
)
def test_where_the_script_lies_beside_the_shipped_files_or_nowhere_yet_nothing_is_added(program):
    assert search_paths(program) == {"coordinator": None, "worker": None, "driver": None}


def test_modules_beside_the_script_are_found_by_pods_that_a_framework_makes():
    plan = make_plan(JobSpec.of(adapter="spark"), (Here.PYTHON, (Here.APP, "/", "jobs/main.py")), pods=True)
    found = {role.name: role.launch.env["PYTHONPATH"] for role in plan.roles}
    assert found == dict.fromkeys(("driver", "worker"), (Here.APP, "/", "jobs"))


# ---- modules in archives


def archive(*names: str) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name in names:
            file.writestr(name, "HELLO = 'hello'")
    return content.getvalue()


HELPERS = archive("helpers/__init__.py", "helpers-1.dist-info/METADATA")


@pytest.mark.parametrize("name", ["helpers-1-py3-none-any.whl", "helpers.egg", "helpers.zip"])
@pytest.mark.parametrize(("adapter", "pods"), [("dask", False), ("spark", False), ("spark", True), ("torch", True)])
def test_what_an_archive_among_the_files_holds_is_found_on_every_replica(adapter, pods, name):
    program = (Here.PYTHON, (Here.APP, "/", "jobs/main.py"))
    plan = make_plan(JobSpec.of(adapter=adapter), program, {"jobs/main.py": b"", name: HELPERS}, pods=pods)
    path = (Here.APP, "/", "jobs", ":", Here.APP, "/", name)
    assert [role.launch.env.get("PYTHONPATH") for role in plan.roles] == [path] * len(plan.roles)


def test_python_imports_from_the_archives_that_are_put_on_its_path(tmp_path):
    files = {"a.whl": HELPERS, "b.zip": archive("more.py")}
    plan = make_plan(JobSpec.of(adapter="torch"), PROGRAM, files)
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    path = "".join(str(tmp_path) if part is Here.APP else part for part in plan.roles[0].launch.env["PYTHONPATH"])
    command = [sys.executable, "-c", "import helpers, more; print(helpers.HELLO, more.HELLO)"]
    said = subprocess.run(command, env={"PYTHONPATH": path}, check=True, capture_output=True, text=True).stdout
    assert said == "hello hello\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.zip", archive("a.csv")),
        ("data.zip", b"no zip"),
        ("lib/helpers.whl", HELPERS),
        ("deep.zip", archive("a/b/c.py")),
    ],
)
def test_an_archive_of_something_else_or_in_a_folder_is_shipped_and_no_more(name, content):
    plan = make_plan(JobSpec.of(adapter="dask"), PROGRAM, {name: content})
    assert all("PYTHONPATH" not in role.launch.env for role in plan.roles)


@pytest.mark.parametrize(
    ("name", "content", "way_out"),
    [
        ("a.whl", archive("a/__init__.py", "a/fast.so"), "it holds a/fast.so, which Python cannot import"),
        ("a.whl", archive("a-1.dist-info/METADATA"), "it is no zip that holds a Python module"),
        ("a.egg", b"no zip", "it is no zip that holds a Python module"),
    ],
)
def test_a_wheel_or_egg_that_cannot_be_imported_from_is_refused(name, content, way_out):
    with pytest.raises(SpecError, match=re.escape(f"files={name!r}: {way_out}")):
        make_plan(JobSpec.of(adapter="dask"), PROGRAM, {name: content})


def test_wheels_are_pips_where_something_is_required():
    plan = make_plan(JobSpec.of(adapter="dask", requirements=("a",)), PROGRAM, {"a.whl": archive("a/fast.so")})
    assert all("PYTHONPATH" not in role.launch.env for role in plan.roles)
