from __future__ import annotations

import re
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
DRIVER = {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_CONF_DIR": (Here.SCRATCH, "/conf"), "PYSPARK_PYTHON": Here.PYTHON}
DEFAULTS = {
    "spark.driver.memory": "1462m",
    "spark.executor.memory": "1462m",
    "spark.executor.cores": "1",
    "spark.cores.max": "1",
    "spark.scheduler.minRegisteredResourcesRatio": "0.8",
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.killEnabled": "false",
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
ON_PODS = {
    **{name: value for name, value in DEFAULTS.items() if name != "spark.cores.max"},
    "spark.executor.instances": "1",
    "spark.executor.memoryOverhead": "586m",
    "spark.kubernetes.executor.request.cores": "1",
    "spark.kubernetes.executor.limit.cores": "1",
    "spark.kubernetes.executor.disableConfigMap": "true",
    "spark.kubernetes.driver.service.deleteOnTermination": "false",
    "spark.kubernetes.driver.ownPersistentVolumeClaim": "false",
    "spark.kubernetes.executor.podTemplateContainerName": "main",
    **CLUSTER,
    "spark.master": "k8s://https://kubernetes.default.svc",
}


def elastic(least: int, most: int) -> dict[str, str]:
    """What makes executors come and go."""
    return {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.dynamicAllocation.minExecutors": str(least),
        "spark.dynamicAllocation.initialExecutors": str(least),
        "spark.dynamicAllocation.maxExecutors": str(most),
        "spark.scheduler.minRegisteredResourcesRatio": "0",
    }


def spec(**more: Any) -> JobSpec:
    return JobSpec(adapter="spark", **more)


def settings(**more: Any) -> dict[str, str]:
    """The driver's properties; ``<...>`` is what only the backend knows."""
    return properties(load("spark").roles(spec(**more), PROGRAM)[2])


def properties(driver: Role) -> dict[str, str]:
    records = driver.launch.files["conf/settings"]
    texts = "".join(part if type(part) is str else f"<{part}>" for part in parts(records)).split("\0")
    return dict(text.split("=", 1) for text in texts[:-1])


def recorded(*settings: tuple[Any, ...]) -> dict[str, Any]:
    """The file that the driver is told its properties in."""
    return {"conf/settings": tuple(part for key, *value in settings for part in (key[:-1], "=", *value, "\0"))}


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
                files=recorded(
                    *(("spark.driver.memory=", "731m"), ("spark.executor.memory=", "2925m")),
                    *(("spark.executor.cores=", "2"), ("spark.scheduler.minRegisteredResourcesRatio=", "0.8")),
                    *(("spark.ui.showConsoleProgress=", "false"), ("spark.ui.killEnabled=", "false")),
                    ("spark.driver.defaultJavaOptions=", "-Djava.io.tmpdir=."),
                    ("spark.executor.defaultJavaOptions=", "-Djava.io.tmpdir=."),
                    *(("spark.cores.max=", "6"), ("spark.driver.host=", Here.HOST)),
                    *(("spark.driver.bindAddress=", Here.HOST), ("spark.ui.port=", Port("driver", "ui"))),
                    *(("spark.submit.deployMode=", "client"), ("spark.master=", *ADDRESS)),
                ),
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
        framework=load("spark").framework,
    )


def test_the_properties_of_the_least_job_are_these_and_no_more():
    assert settings() == DEFAULTS | CLUSTER


def test_an_elastic_cluster_has_a_place_for_every_executor_that_may_come():
    ranged, fixed = (load("spark").roles(spec(workers=workers), PROGRAM) for workers in (Elastic(2, 5), 5))
    assert ranged[:2] == fixed[:2]
    assert (ranged[1].replicas, ranged[1].elastic) == (5, None)


@pytest.mark.parametrize("bounds", [Elastic(2, 5), Elastic(1, 1)])
def test_an_elastic_clusters_executors_come_and_go_between_its_bounds(bounds):
    size = {"spark.executor.cores": "2", "spark.cores.max": str(2 * bounds.max)}
    found = settings(workers=bounds, worker_resources=Resources(2))
    assert found == DEFAULTS | CLUSTER | size | elastic(bounds.min, bounds.max)


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


# ---- where replicas are pods


def pod_roles(**more: Any) -> tuple[Role, ...]:
    return load("spark").pod_roles(spec(**more), PROGRAM)


def test_on_pods_a_fixed_cluster_is_the_driver_and_the_template_of_the_executors_that_it_makes():
    coordinator, worker, env = Resources(0.5, "1Gi"), Resources("2500m", "4Gi"), {"A": "a"}
    assert pod_roles(workers=3, coordinator_resources=coordinator, worker_resources=worker, env=env) == (
        Role(
            "driver",
            Launch(
                command=(*RUN, "driver", *PROGRAM),
                env={**env, **PLACE, **DRIVER},
                files=recorded(
                    *(("spark.driver.memory=", "731m"), ("spark.executor.memory=", "2925m")),
                    *(("spark.executor.cores=", "2"), ("spark.scheduler.minRegisteredResourcesRatio=", "0.8")),
                    *(("spark.ui.showConsoleProgress=", "false"), ("spark.ui.killEnabled=", "false")),
                    ("spark.driver.defaultJavaOptions=", "-Djava.io.tmpdir=."),
                    ("spark.executor.defaultJavaOptions=", "-Djava.io.tmpdir=."),
                    *(("spark.executor.instances=", "3"), ("spark.executor.memoryOverhead=", "1171m")),
                    ("spark.kubernetes.executor.request.cores=", "2500m"),
                    ("spark.kubernetes.executor.limit.cores=", "2500m"),
                    ("spark.kubernetes.executor.disableConfigMap=", "true"),
                    ("spark.kubernetes.driver.service.deleteOnTermination=", "false"),
                    ("spark.kubernetes.driver.ownPersistentVolumeClaim=", "false"),
                    ("spark.kubernetes.executor.podTemplateContainerName=", "main"),
                    *(("spark.executorEnv.A=", "a"), ("spark.driver.host=", Here.HOST)),
                    *(("spark.driver.bindAddress=", Here.HOST), ("spark.ui.port=", Port("driver", "ui"))),
                    ("spark.submit.deployMode=", "client"),
                    ("spark.master=", "k8s://https://kubernetes.default.svc"),
                ),
                ports={"ui": 4040},
                spawns="worker",
            ),
            resources=coordinator,
        ),
        Role("worker", Launch((*RUN, "executor"), {**env, **PLACE}), 0, worker, Elastic(3, 3)),
    )


def test_on_pods_an_elastic_cluster_starts_with_its_least_executors_and_they_come_and_go_between_its_bounds():
    driver, worker = pod_roles(workers=Elastic(2, 5))
    least = {"spark.executor.instances": "2", "spark.executor.memoryOverhead": "586m"}
    assert properties(driver) == ON_PODS | least | elastic(2, 5)
    assert worker == Role("worker", Launch((*RUN, "executor"), PLACE), 0, elastic=Elastic(2, 5))


@pytest.mark.parametrize("memory", ["717Mi", "1Gi", "2G", "16Gi"])
def test_on_pods_an_executor_has_the_memory_that_was_asked_for(memory):
    resources = Resources(memory=memory)
    found = properties(pod_roles(worker_resources=resources)[0])
    heap, rest = (int(found[f"spark.executor.{name}"].rstrip("m")) for name in ("memory", "memoryOverhead"))
    assert heap + rest == resources.memory_bytes >> 20


def test_on_pods_the_users_conf_wins_over_what_the_spec_asks_for_but_not_over_the_clusters_address():
    own = ("spark.executor.instances", "spark.kubernetes.executor.request.cores", "spark.executor.memory")
    found = properties(pod_roles(conf=dict.fromkeys((*own, *CLUSTER), "mine"))[0])
    assert {name: found[name] for name in own} == dict.fromkeys(own, "mine")
    assert {name: found[name] for name in CLUSTER} == {name: ON_PODS[name] for name in CLUSTER}


def test_the_plan_for_pods_is_that_of_the_roles_for_pods():
    job = spec(image="spark:4", secrets={"TOKEN": "store/token"})
    assert make_plan(job, PROGRAM, pods=True) == Plan(
        "spark",
        load("spark").pod_roles(job, PROGRAM),
        "driver",
        86_400,
        client="pyspark.sql:SparkSession.builder.getOrCreate",
        framework=load("spark").framework,
        links={"Spark UI": Port("driver", "ui")},
        image="spark:4",
        secrets={"TOKEN": ("store", "token")},
    )


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
        ("  a=b\n# \\ größe $(id) ", "  a=b\n# \\ größe $(id) "),
    ],
)
def test_a_value_is_given_to_the_driver_as_spark_reads_it(value, text):
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
        ("spark.x=y", ""),
        ("spark.executor.memory=4g", "did you mean 'spark.executor.memory'? "),
    ],
)
def test_a_key_that_is_not_sparks_is_refused_with_the_one_that_was_meant(key, hint):
    with refused(f"conf={key!r}: {hint}Spark's properties start with 'spark.' and hold no '='"):
        settings(conf={key: "1"})


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
