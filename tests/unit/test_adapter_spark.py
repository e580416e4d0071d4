from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest

from practicus_provider.adapters import load, make_plan
from practicus_provider.adapters.spark import LEAST_HEAP_MIB, OVERHEAD
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Plan, Port, Role, parts
from practicus_provider.spec import Elastic, JobSpec, Resources

PROGRAM = (Here.PYTHON, (Here.APP, "/etl.py"), "--date", "2013-01-05", "a b")
MASTER = Port("coordinator", "spark")
ADDRESS = ("spark://", Host("coordinator"), ":", MASTER)
RUN = (Here.PYTHON, "-m", "practicus_runtime.spark")
PLACE = {"SPARK_LOCAL_IP": Here.HOST, "SPARK_LOCAL_DIRS": (Here.SCRATCH, "/local")}
DAEMON = {
    "SPARK_DAEMON_MEMORY": "256m",
    "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dspark.master.rest.enabled=false",
    "SPARK_NO_DAEMONIZE": "1",
}
DRIVER = {"SPARK_CONF_DIR": (Here.SCRATCH, "/conf"), "PYSPARK_PYTHON": Here.PYTHON}
DEFAULTS = {
    "spark.driver.memory": "1462m",
    "spark.executor.memory": "1462m",
    "spark.executor.cores": "1",
    "spark.cores.max": "1",
    "spark.scheduler.minRegisteredResourcesRatio": "0.8",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.defaultJavaOptions": "-Djava.io.tmpdir=.",
    "spark.executor.defaultJavaOptions": "-Djava.io.tmpdir=.",
}
CLUSTER = {
    "spark.master": "spark://<Host(role='coordinator')>:<Port(role='coordinator', name='spark')>",
    "spark.submit.deployMode": "client",
    "spark.driver.host": "<host>",
    "spark.driver.bindAddress": "<host>",
    "spark.ui.port": "<Port(role='driver', name='ui')>",
}
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
    "\x00\x0b\x1f\x7f\x85\xa0\u2028",
    'it\'s "quoted" ${HOME} $(id) `id` %s {0}',
]


def spec(**more: Any) -> JobSpec:
    return JobSpec(adapter="spark", **more)


def driver_file(**more: Any) -> str:
    """The driver's properties as text; ``<...>`` is what only the backend knows."""
    driver = load("spark").roles(spec(**more), PROGRAM)[2]
    [(name, text)] = driver.launch.files.items()
    assert name == "conf/spark-defaults.conf"
    return "".join(part if type(part) is str else f"<{part}>" for part in parts(text))


def settings(**more: Any) -> dict[str, str]:
    return java_properties(driver_file(**more))


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


def refused(message: str) -> pytest.RaisesExc[SpecError]:
    return pytest.raises(SpecError, match=f"^{re.escape(message)}$")


# ---- the whole plan


def test_a_fixed_cluster_is_a_master_workers_of_one_executor_each_and_the_driver():
    coordinator, worker = Resources(0.5, "1Gi"), Resources("2500m", "4Gi")
    assert load("spark").roles(
        spec(workers=3, coordinator_resources=coordinator, worker_resources=worker), PROGRAM
    ) == (
        Role(
            "coordinator",
            Launch(
                command=RUN
                + ("daemon", "org.apache.spark.deploy.master.Master", "--host", Here.HOST, "--port", MASTER)
                + ("--webui-port", Port("coordinator", "ui")),
                env={**DAEMON, **PLACE},
                ports={"spark": 7077, "ui": 8080},
                ready="spark",
            ),
            resources=coordinator,
        ),
        Role(
            "worker",
            Launch(
                command=RUN
                + ("daemon", "org.apache.spark.deploy.worker.Worker", "--host", Here.HOST)
                + ("--webui-port", Port("worker", "ui"), "--cores", "2", "--memory", "4096M")
                + ("--work-dir", (Here.SCRATCH, "/work"), ADDRESS),
                env={**DAEMON, **PLACE},
                ports={"ui": 8081},
                after=(MASTER,),
                ready="ui",
            ),
            3,
            worker,
        ),
        Role(
            "driver",
            Launch(
                command=(*RUN, "driver", *PROGRAM),
                env={**PLACE, **DRIVER},
                files={
                    "conf/spark-defaults.conf": (
                        *("spark.driver.memory", "=", "731m", "\n"),
                        *("spark.executor.memory", "=", "2925m", "\n"),
                        *("spark.executor.cores", "=", "2", "\n"),
                        *("spark.cores.max", "=", "6", "\n"),
                        *("spark.scheduler.minRegisteredResourcesRatio", "=", "0.8", "\n"),
                        *("spark.ui.showConsoleProgress", "=", "false", "\n"),
                        *("spark.driver.defaultJavaOptions", "=", "-Djava.io.tmpdir=.", "\n"),
                        *("spark.executor.defaultJavaOptions", "=", "-Djava.io.tmpdir=.", "\n"),
                        *("spark.master", "=", *ADDRESS, "\n"),
                        *("spark.submit.deployMode", "=", "client", "\n"),
                        *("spark.driver.host", "=", Here.HOST, "\n"),
                        *("spark.driver.bindAddress", "=", Here.HOST, "\n"),
                        *("spark.ui.port", "=", Port("driver", "ui"), "\n"),
                    )
                },
                ports={"ui": 4040},
                after=(MASTER,),
            ),
            resources=coordinator,
        ),
    )


def test_the_plan_names_who_decides_the_client_and_the_page():
    job = spec(timeout=60)
    assert make_plan(job, PROGRAM, {"etl.py": b""}) == Plan(
        "spark",
        load("spark").roles(job, PROGRAM),
        "driver",
        60,
        {"etl.py": b""},
        "pyspark.sql:SparkSession.builder.getOrCreate",
        {"Spark UI": Port("driver", "ui")},
    )


def test_the_properties_of_the_least_job_are_these_and_no_more():
    assert settings() == DEFAULTS | CLUSTER


def test_an_elastic_cluster_has_a_place_for_every_executor_that_may_come():
    elastic, fixed = (load("spark").roles(spec(workers=workers), PROGRAM) for workers in (Elastic(2, 5), 5))
    assert elastic[:2] == fixed[:2]
    assert (elastic[1].replicas, elastic[1].elastic) == (5, None)


@pytest.mark.parametrize("bounds", [Elastic(2, 5), Elastic(1, 1)])
def test_an_elastic_clusters_executors_come_and_go_between_its_bounds(bounds):
    assert settings(workers=bounds, worker_resources=Resources(2)) == DEFAULTS | CLUSTER | {
        "spark.executor.cores": "2",
        "spark.cores.max": str(2 * bounds.max),
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.dynamicAllocation.minExecutors": str(bounds.min),
        "spark.dynamicAllocation.initialExecutors": str(bounds.min),
        "spark.dynamicAllocation.maxExecutors": str(bounds.max),
        "spark.scheduler.minRegisteredResourcesRatio": "0",
    }


def test_the_environment_reaches_the_workers_the_driver_and_the_executors():
    env = {"TOKEN": "a=b", "LANG": "C.UTF-8"}
    coordinator, worker, driver = (role.launch.env for role in load("spark").roles(spec(env=env), PROGRAM))
    assert coordinator == DAEMON | PLACE
    assert worker == env | DAEMON | PLACE
    assert driver == env | PLACE | DRIVER
    assert settings(env=env) == DEFAULTS | CLUSTER | {
        "spark.executorEnv.TOKEN": "a=b",
        "spark.executorEnv.LANG": "C.UTF-8",
    }


def test_the_environment_cannot_replace_what_the_cluster_needs():
    needed = DAEMON | PLACE | DRIVER
    coordinator, worker, driver = load("spark").roles(spec(env=dict.fromkeys(needed, "mine")), PROGRAM)
    assert coordinator.launch.env == DAEMON | PLACE
    assert worker.launch.env == dict.fromkeys(needed, "mine") | DAEMON | PLACE
    assert driver.launch.env == dict.fromkeys(needed, "mine") | PLACE | DRIVER


@pytest.mark.parametrize("application", ["etl.py", "local:///etl.py", None])
def test_what_runs_is_the_program_and_not_the_specs_application(application):
    whole, bare = spec(application=application, application_args=("a", "b"), files=("c",)), spec()
    assert load("spark").roles(whole, PROGRAM) == load("spark").roles(bare, PROGRAM)


# ---- the user's conf


def test_the_users_conf_wins_over_what_the_spec_asks_for():
    conf = {name: f"my {name}" for name in (*DEFAULTS, "spark.dynamicAllocation.maxExecutors", "spark.executorEnv.A")}
    found = settings(conf=conf, workers=Elastic(1, 2), env={"A": "theirs", "B": "b"})
    assert {name: found[name] for name in conf} == conf
    assert found["spark.executorEnv.B"] == "b"


def test_the_users_conf_does_not_win_over_the_clusters_address():
    assert settings(conf=dict.fromkeys(CLUSTER, "mine")) == DEFAULTS | CLUSTER


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (200, "200"),
        (0, "0"),
        (-1, "-1"),
        (0.25, "0.25"),
        (1e-7, "1e-07"),
        ("True", "True"),
        ("", ""),
    ],
)
def test_a_value_is_written_as_spark_reads_it(value, text):
    assert settings(conf={"spark.x": value})["spark.x"] == text


@pytest.mark.parametrize("value", [None, [], ["a"], {"a": 1}, b"1g", object, 1j, Fraction(1, 2)])
def test_a_value_that_is_neither_text_nor_number_is_refused_with_its_key(value):
    with refused(f"conf={ {'spark.x': value}!r}: give a string, a number or a bool"):
        settings(conf={"spark.x": value})


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("sprak.executor.memory", "did you mean 'spark.executor.memory'? "),
        ("Spark.executor.cores", "did you mean 'spark.executor.cores'? "),
        ("spark_.driver.memory", "did you mean 'spark.driver.memory'? "),
        ("sql.shuffle.partitions", "did you mean 'spark.sql.shuffle.partitions'? "),
        ("spark", ""),
        ("sparkling.x", ""),
        (" spark.x", ""),
        ("", ""),
        ("# spark.x", ""),
        ("distributed.worker.memory.target", ""),
    ],
)
def test_a_key_that_is_not_sparks_is_refused_with_the_one_that_was_meant(key, hint):
    with refused(f"conf={key!r}: {hint}Spark's properties start with 'spark.'"):
        settings(conf={key: "1"})


# ---- the properties file


@pytest.mark.parametrize("value", NASTY)
def test_a_value_is_read_back_as_the_user_gave_it(value):
    found = settings(conf={"spark.x": value, "spark.y": "after"}, env={"X": value})
    assert found == DEFAULTS | CLUSTER | {"spark.x": value, "spark.y": "after", "spark.executorEnv.X": value}


@pytest.mark.parametrize("key", [f"spark.{text}.x" for text in NASTY] + ["spark. ", "spark.\\", "spark.="])
def test_a_key_is_read_back_as_the_user_gave_it(key):
    assert settings(conf={key: "1", "spark.y": "after"}) == DEFAULTS | CLUSTER | {key: "1", "spark.y": "after"}


def test_every_property_has_a_line_of_its_own():
    lines = driver_file(conf={f"spark.{i}": text for i, text in enumerate(NASTY)}).split("\n")
    assert len(lines) == len(DEFAULTS) + len(NASTY) + len(CLUSTER) + 1
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


# ---- memory


@pytest.mark.parametrize(
    ("memory", "heap"), [("717Mi", "512m"), ("1Gi", "731m"), ("2G", "1362m"), ("16Gi", "11702m"), ("1Ti", "748982m")]
)
def test_the_heap_is_the_memory_less_what_python_and_the_jvm_need_beside_it(memory, heap):
    resources = Resources(memory=memory)
    found = settings(worker_resources=resources, coordinator_resources=resources)
    assert (found["spark.driver.memory"], found["spark.executor.memory"]) == (heap, heap)
    assert int(heap[:-1]) == int(resources.memory_bytes / OVERHEAD / 2**20) >= LEAST_HEAP_MIB


@pytest.mark.parametrize("field", ["worker_resources", "coordinator_resources"])
@pytest.mark.parametrize("memory", ["716Mi", "750M", "512Mi", "1Mi"])
def test_too_little_memory_is_refused_with_its_field_and_the_least_that_does(field, memory):
    with refused(f"{field}.memory={memory!r}: Spark needs at least 717Mi"):
        settings(**{field: Resources(memory=memory)})


@pytest.mark.parametrize(
    ("cpu", "cores"), [(0.5, "1"), ("100m", "1"), (1, "1"), (1.9, "1"), ("2500m", "2"), (64, "64")]
)
def test_an_executor_has_the_whole_cores_of_its_worker(cpu, cores):
    resources = Resources(cpu=cpu)
    worker = load("spark").roles(spec(worker_resources=resources), PROGRAM)[1]
    command = worker.launch.command
    assert command[command.index("--cores") + 1] == cores
    assert settings(worker_resources=resources)["spark.executor.cores"] == cores
