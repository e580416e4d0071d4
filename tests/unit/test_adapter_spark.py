from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.adapters import NO_RESULT, load, make_plan
from practicus_provider.adapters.spark_settings import REFUSED, REFUSED_ENV
from practicus_provider.adapters.spark_size import LEAST_HEAP_MIB, LEAST_OVERHEAD, OVERHEAD
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Plan, Port, Role, parts
from practicus_provider.pod_settings import PodSettings
from practicus_provider.spec import Elastic, JobSpec, Resources, Volume

PROGRAM = (Here.PYTHON, (Here.APP, "/etl.py"), "--date", "2013-01-05", "a b")
MASTER = Port("coordinator", "spark")
ADDRESS = ("spark://", Host("coordinator"), ":", MASTER)
RUN = (Here.PYTHON, "-m", "practicus_runtime.spark")
LOCAL = {"SPARK_LOCAL_DIRS": (Here.SCRATCH, "/local")}
PLACE = {"SPARK_LOCAL_IP": Here.HOST, **LOCAL}
DAEMON = {
    "SPARK_DAEMON_MEMORY": "256m",
    "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dspark.master.rest.enabled=false",
    "SPARK_NO_DAEMONIZE": "1",
}
DRIVER = {
    "SPARK_LOCAL_IP": "127.0.0.1",
    "SPARK_CONF_DIR": (Here.SCRATCH, "/conf"),
    "PYSPARK_PYTHON": Here.PYTHON,
}
EXECUTOR = {"SPARK_LOCAL_IP": Here.HOST, **NO_RESULT}
DEFAULTS = {
    "spark.driver.memory": "1462m",
    "spark.executor.memory": "1462m",
    "spark.executor.cores": "1",
    "spark.executor.instances": "1",
    "spark.executor.memoryOverhead": "586m",
    "spark.dynamicAllocation.enabled": "false",
    "spark.cores.max": "1",
    "spark.scheduler.minRegisteredResourcesRatio": "0.8",
    "spark.ui.showConsoleProgress": "false",
    "spark.ui.killEnabled": "false",
    "spark.driver.defaultJavaOptions": "-Djava.io.tmpdir=.",
    "spark.executor.defaultJavaOptions": "-Djava.io.tmpdir=.",
    "spark.driver.extraClassPath": "<app>",
    "spark.executor.extraClassPath": "<app>",
}
CLUSTER = {
    "spark.master": "spark://<Host(role='coordinator')>:<Port(role='coordinator', name='spark')>",
    "spark.submit.deployMode": "client",
    "spark.driver.host": "<url_host>",
    "spark.driver.bindAddress": "<url_host>",
    "spark.ui.port": "<Port(role='driver', name='ui')>",
}
LABELS = (
    *("spark-app-name", "spark-app-selector", "spark-exec-id", "spark-exec-resourceprofile-id", "spark-role"),
    "spark-version",
)
ON_PODS = {
    **{name: value for name, value in DEFAULTS.items() if name != "spark.cores.max"},
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
        "spark.executor.instances": str(least),
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": "true",
        "spark.dynamicAllocation.minExecutors": str(least),
        "spark.dynamicAllocation.initialExecutors": str(least),
        "spark.dynamicAllocation.maxExecutors": str(most),
        "spark.scheduler.minRegisteredResourcesRatio": "0",
    }


def spec(**more: Any) -> JobSpec:
    return JobSpec.of(adapter="spark", **more)


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
                + ("daemon", "org.apache.spark.deploy.master.Master", "--host", Here.URL_HOST, "--port", MASTER)
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
                + ("daemon", "org.apache.spark.deploy.worker.Worker", "--host", Here.URL_HOST)
                + ("--webui-port", Port("worker", "ui"), "--cores", "2", "--memory", "4096M")
                + ("--work-dir", (Here.SCRATCH, "/work"), ADDRESS),
                env={**DAEMON, **PLACE, **NO_RESULT},
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
                command=(*RUN, "driver", Here.APP, Port("driver", "executors"), *PROGRAM),
                env={**PLACE, **DRIVER},
                files=recorded(
                    *(("spark.driver.memory=", "731m"), ("spark.executor.memory=", "2925m")),
                    *(("spark.executor.cores=", "2"), ("spark.executor.instances=", "3")),
                    ("spark.dynamicAllocation.enabled=", "false"),
                    ("spark.scheduler.minRegisteredResourcesRatio=", "0.8"),
                    *(("spark.ui.showConsoleProgress=", "false"), ("spark.ui.killEnabled=", "false")),
                    ("spark.driver.defaultJavaOptions=", "-Djava.io.tmpdir=."),
                    ("spark.executor.defaultJavaOptions=", "-Djava.io.tmpdir=."),
                    *(("spark.submit.deployMode=", "client"), ("spark.driver.host=", Here.URL_HOST)),
                    *(("spark.driver.bindAddress=", Here.URL_HOST), ("spark.ui.port=", Port("driver", "ui"))),
                    *(("spark.cores.max=", "6"), ("spark.master=", *ADDRESS)),
                    ("spark.driver.extraClassPath=", "", Here.APP),
                    ("spark.executor.extraClassPath=", "", Here.APP),
                    ("spark.executor.memoryOverhead=", "1171m"),
                ),
                ports={"ui": 4040, "executors": 7079},
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
    assert worker == env | DAEMON | PLACE | NO_RESULT
    assert driver == env | PLACE | DRIVER
    assert settings(env=env) == DEFAULTS | CLUSTER | {
        "spark.executorEnv.TOKEN": "a=b",
        "spark.executorEnv.LANG": "C.UTF-8",
    }


@pytest.mark.parametrize("name", REFUSED_ENV)
def test_a_variable_that_the_cluster_sets_is_refused_with_what_to_give_instead(name):
    with refused(f"env={ {name: 'mine'}!r}: {REFUSED_ENV[name]}"):
        settings(env={name: "mine"})


@pytest.mark.parametrize(
    "given", [{"env": {"PYSPARK_PYTHON": "env/bin/python"}}, {"conf": {"spark.pyspark.python": "env/bin/python"}}]
)
def test_the_executors_python_is_the_users_choice_and_the_drivers_stays_the_images(given):
    for roles in (load("spark").roles(spec(**given), PROGRAM), load("spark").pod_roles(spec(**given), PROGRAM)):
        (driver,) = (role for role in roles if role.name == "driver")
        assert driver.launch.env["PYSPARK_PYTHON"] == "env/bin/python"
        assert driver.launch.command == (*RUN, "driver", Here.APP, Port("driver", "executors"), *PROGRAM)


def test_of_two_choices_of_the_executors_python_the_property_counts_as_in_spark():
    both = spec(env={"PYSPARK_PYTHON": "a"}, conf={"spark.pyspark.python": "b"})
    assert load("spark").roles(both, PROGRAM)[2].launch.env["PYSPARK_PYTHON"] == "b"


@pytest.mark.parametrize(
    ("given", "folders"),
    [
        ({"conf": {"spark.local.dir": "/ssd,/disk"}}, "/ssd,/disk"),
        ({"env": {"SPARK_LOCAL_DIRS": "/ssd"}}, "/ssd"),
        ({"env": {"SPARK_LOCAL_DIRS": "/ssd"}, "conf": {"spark.local.dir": "/disk"}}, "/ssd"),
    ],
)
def test_spark_spills_where_the_user_says(given, folders):
    _, worker, driver = load("spark").roles(spec(**given), PROGRAM)
    assert worker.launch.env["SPARK_LOCAL_DIRS"] == driver.launch.env["SPARK_LOCAL_DIRS"] == folders


def test_on_pods_spark_itself_tells_its_executors_where_they_spill():
    driver, worker = pod_roles(env={"SPARK_LOCAL_DIRS": "/ssd"})
    assert driver.launch.env["SPARK_LOCAL_DIRS"] == "/ssd"
    assert "SPARK_LOCAL_DIRS" not in worker.launch.env


def test_a_place_to_spill_on_a_volume_is_refused_since_spark_would_mount_its_own_there():
    way_out = (
        "on Kubernetes Spark mounts an emptyDir there. Leave it out, and have pod_overrides= mount a volume whose name "
        "begins with 'spark-local-dir-'"
    )
    with refused(f"spark.local.dir='/data/spill': {way_out}"):
        settings(conf={"spark.local.dir": "/ssd,/data/spill"}, volumes=(Volume(path="/data", claim="data"),))


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
                command=(*RUN, "driver", Here.APP, Port("driver", "executors"), *PROGRAM),
                env={**env, **PLACE, **DRIVER},
                files=recorded(
                    *(("spark.driver.memory=", "731m"), ("spark.executor.memory=", "2925m")),
                    *(("spark.executor.cores=", "2"), ("spark.executor.instances=", "3")),
                    ("spark.dynamicAllocation.enabled=", "false"),
                    ("spark.scheduler.minRegisteredResourcesRatio=", "0.8"),
                    *(("spark.ui.showConsoleProgress=", "false"), ("spark.ui.killEnabled=", "false")),
                    ("spark.driver.defaultJavaOptions=", "-Djava.io.tmpdir=."),
                    ("spark.executor.defaultJavaOptions=", "-Djava.io.tmpdir=."),
                    *(("spark.submit.deployMode=", "client"), ("spark.driver.host=", Here.URL_HOST)),
                    *(("spark.driver.bindAddress=", Here.URL_HOST), ("spark.ui.port=", Port("driver", "ui"))),
                    ("spark.kubernetes.executor.request.cores=", "2500m"),
                    ("spark.kubernetes.executor.limit.cores=", "2500m"),
                    ("spark.kubernetes.executor.disableConfigMap=", "true"),
                    ("spark.kubernetes.driver.service.deleteOnTermination=", "false"),
                    ("spark.kubernetes.driver.ownPersistentVolumeClaim=", "false"),
                    ("spark.kubernetes.executor.podTemplateContainerName=", "main"),
                    *(("spark.master=", "k8s://https://kubernetes.default.svc"), ("spark.executorEnv.A=", "a")),
                    ("spark.driver.extraClassPath=", "", Here.APP),
                    ("spark.executor.extraClassPath=", "", Here.APP),
                    ("spark.executor.memoryOverhead=", "1171m"),
                ),
                ports={"ui": 4040, "executors": 7079},
                spawns="worker",
                pod_verbs=("get", "watch", "delete", "deletecollection"),
                pod_labels=LABELS,
            ),
            resources=coordinator,
        ),
        Role(
            "worker",
            Launch((*RUN, "executor"), {**env, "SPARK_LOCAL_IP": Here.HOST, **NO_RESULT}),
            0,
            worker,
            Elastic(3, 3),
        ),
    )


def test_on_pods_an_elastic_cluster_starts_with_its_least_executors_and_they_come_and_go_between_its_bounds():
    driver, worker = pod_roles(workers=Elastic(2, 5))
    assert properties(driver) == ON_PODS | elastic(2, 5)
    assert worker == Role("worker", Launch((*RUN, "executor"), EXECUTOR), 0, elastic=Elastic(2, 5))


def test_labels_that_the_user_has_spark_give_to_executors_are_among_those_of_its_pods():
    driver, _ = pod_roles(conf={"spark.kubernetes.executor.label.team": "sales"})
    assert driver.launch.pod_labels == (*LABELS, "team")


@pytest.mark.parametrize("name", ["decommissionLabel", "podDeletionCost", "deleteOnTermination"])
def test_what_has_spark_change_pods_is_refused(name):
    why = "leave it out: the driver has no right to change pods"
    with refused(f"conf={{'spark.kubernetes.executor.{name}': 'x'}}: {why}"):
        pod_roles(conf={f"spark.kubernetes.executor.{name}": "x"})


@pytest.mark.parametrize("memory", ["717Mi", "1Gi", "2G", "16Gi"])
def test_on_pods_an_executor_has_the_memory_that_was_asked_for(memory):
    resources = Resources(memory=memory)
    found = properties(pod_roles(worker_resources=resources)[0])
    heap, rest = (int(found[f"spark.executor.{name}"].rstrip("m")) for name in ("memory", "memoryOverhead"))
    assert heap + rest == resources.memory_bytes >> 20


@pytest.mark.parametrize("beside", [{}, {"spark.executor.memoryOverhead": "200m"}])
def test_on_pods_an_executor_whose_heap_the_user_chose_is_as_large_as_its_worker(beside):
    found = properties(pod_roles(conf={"spark.executor.memory": "1g", **beside})[0])
    assert (found["spark.executor.memory"], found["spark.executor.memoryOverhead"]) == ("1g", "1024m")


def test_on_pods_what_lies_off_the_heap_is_no_overhead():
    off_heap = {"spark.memory.offHeap.enabled": True, "spark.memory.offHeap.size": "1g"}
    found = properties(pod_roles(conf=off_heap)[0])
    assert found["spark.executor.memory"] == f"{int(1024 / (1 + LEAST_OVERHEAD))}m"
    assert found["spark.executor.memoryOverhead"] == f"{1024 - int(1024 / (1 + LEAST_OVERHEAD))}m"


def test_on_pods_the_users_conf_wins_over_what_the_spec_asks_for():
    own = ("spark.kubernetes.executor.request.cores", "spark.ui.killEnabled")
    found = properties(pod_roles(conf=dict.fromkeys(own, "mine"))[0])
    assert {name: found[name] for name in own} == dict.fromkeys(own, "mine")


def test_on_pods_what_conf_says_for_executors_alone_comes_before_env():
    env, conf = {"A": "env", "B": "$(HOME)"}, {"spark.executorEnv.A": "conf", "spark.executorEnv.PYTHONPATH": "/mine"}
    driver, worker = pod_roles(env=env, conf=conf)
    assert worker.launch.env == {"A": "conf", "B": "$(HOME)", "PYTHONPATH": "/mine"} | EXECUTOR
    assert properties(driver)["spark.executorEnv.A"] == "conf"


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
        pod=PodSettings(image="spark:4", secrets={"TOKEN": "store/token"}),
    )


# ---- the user's conf


def test_the_users_conf_wins_over_what_the_spec_asks_for():
    free = {"spark.driver.defaultJavaOptions", "spark.scheduler.minRegisteredResourcesRatio", "spark.executorEnv.A"}
    conf = {name: f"my {name}" for name in free}
    found = settings(conf=conf, workers=Elastic(1, 2), env={"A": "theirs", "B": "b"})
    assert {name: found[name] for name in conf} == conf
    assert found["spark.executorEnv.B"] == "b"


@pytest.mark.parametrize("key", REFUSED)
@pytest.mark.parametrize("pods", [False, True])
def test_a_property_whose_place_is_an_argument_is_refused_with_that_argument(key, pods):
    name = key.replace("*", "some.x")
    with refused(f"conf={ {name: 'mine'}!r}: {REFUSED[key]}"):
        make_plan(spec(conf={name: "mine"}), PROGRAM, pods=pods)


@pytest.mark.parametrize(
    ("workers", "conf"),
    [
        (3, {"spark.executor.instances": 3, "spark.dynamicAllocation.enabled": False}),
        (Elastic(2, 5), {"spark.dynamicAllocation.enabled": True, "spark.dynamicAllocation.maxExecutors": 5}),
        (1, {"spark.submit.deployMode": "client"}),
    ],
)
@pytest.mark.parametrize("pods", [False, True])
def test_a_property_that_says_what_the_arguments_say_is_let_be(workers, conf, pods):
    both = make_plan(spec(workers=workers, conf=conf), PROGRAM, pods=pods)
    assert both == make_plan(spec(workers=workers), PROGRAM, pods=pods)


@pytest.mark.parametrize("name", ["OnDemand", "ondemand"])
def test_a_claim_that_the_driver_would_have_to_make_is_refused(name):
    key = "spark.kubernetes.executor.volumes.persistentVolumeClaim.spark-local-dir-1.options.claimName"
    way_out = "the driver has no right to make claims: name one that is there, or give volumes="
    with refused(f"conf={ {key: name}!r}: {way_out}"):
        settings(conf={key: name})
    assert settings(conf={key: "mine"})[key] == "mine"


@pytest.mark.parametrize("key", ["spark.driver.extraClassPath", "spark.executor.extraClassPath"])
def test_shipped_configuration_files_are_in_the_class_path_after_the_users_own(key):
    assert settings()[key] == "<app>"
    assert settings(conf={key: "/a.jar:/b/*"})[key] == "/a.jar:/b/*:<app>"


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


OFF_HEAP = {"spark.memory.offHeap.enabled": "true"}


@pytest.mark.parametrize(
    ("conf", "enough"),
    [
        ({"spark.executor.memory": "4g"}, 5735),
        ({"spark.executor.memory": "4096"}, 5735),
        ({"spark.executor.memory": "2048M"}, 2868),
        ({"spark.executor.memory": "1900m"}, 2660),
        ({"spark.executor.memory": "1g", "spark.executor.memoryOverhead": "2g"}, 3072),
        ({"spark.executor.memory": "1g", "spark.executor.pyspark.memory": "2g"}, 3175),
        ({"spark.executor.memoryOverhead": "1600m"}, 2112),
        ({"spark.executor.pyspark.memory": "2g"}, 2612),
    ],
)
@pytest.mark.parametrize("pods", [False, True])
def test_an_executor_larger_than_a_worker_is_refused_with_the_memory_that_would_do(conf, enough, pods):
    way_out = (
        "with what the JVM and Python need beside a heap, that is more than the 2Gi of worker_resources: give "
        f"worker_resources=Resources(memory='{enough}Mi'), or less here"
    )
    with refused(f"conf={conf!r}: {way_out}"):
        make_plan(spec(conf=conf), PROGRAM, pods=pods)
    make_plan(spec(conf=conf, worker_resources=Resources(memory=f"{enough}Mi")), PROGRAM, pods=pods)


def test_memory_off_the_heap_counts_where_it_is_enabled():
    size = {"spark.memory.offHeap.size": str(3 << 30)}
    assert settings(conf=size)["spark.executor.memory"] == DEFAULTS["spark.executor.memory"]
    with pytest.raises(SpecError, match=r"^conf=.*: give worker_resources=Resources\(memory='3636Mi'\), or less here$"):
        settings(conf={**OFF_HEAP, **size})


@pytest.mark.parametrize(
    ("conf", "enough"),
    [
        ({"spark.driver.memory": "8g"}, 11469),
        ({"spark.driver.memory": "1g", "spark.driver.memoryOverhead": "2g"}, 3072),
    ],
)
def test_a_driver_larger_than_its_replica_is_refused_with_the_memory_that_would_do(conf, enough):
    with pytest.raises(
        SpecError, match=rf": give coordinator_resources=Resources\(memory='{enough}Mi'\), or less here$"
    ):
        settings(conf=conf)
    settings(conf=conf, coordinator_resources=Resources(memory=f"{enough}Mi"))


@pytest.mark.parametrize("size", ["4Gi", "1.5g", "", "lots", "-1g"])
def test_a_size_that_spark_cannot_read_is_refused(size):
    way_out = "write it as Spark does: '4g' are 4 GiB, '512m' are 512 MiB"
    with refused(f"conf={ {'spark.executor.memory': size}!r}: {way_out}"):
        settings(conf={"spark.executor.memory": size})


def test_a_heap_that_spark_would_refuse_is_refused():
    way_out = "Spark needs a heap of at least 512m: give that, or leave it out"
    with refused(f"conf={ {'spark.executor.memory': '100m'}!r}: {way_out}"):
        settings(conf={"spark.executor.memory": "100m"})


@pytest.mark.parametrize(
    ("conf", "way_out"),
    [
        ({"spark.executor.cores": "4"}, "a worker has 2: give worker_resources=Resources(cpu=4), or less here"),
        ({"spark.cores.max": "1"}, "an executor has 2: give at least as many, or leave it out"),
        ({"spark.executor.cores": "two"}, "give a whole number of at least 1"),
        ({"spark.cores.max": "0"}, "give a whole number of at least 1"),
        (
            {"spark.executor.resource.gpu.amount": "2"},
            "a worker has 1: give worker_resources=Resources(gpu=2), or less here",
        ),
    ],
)
@pytest.mark.parametrize("pods", [False, True])
def test_cores_and_gpus_that_no_worker_has_are_refused_as_the_job_would_wait_for_ever(conf, way_out, pods):
    with refused(f"conf={conf!r}: {way_out}"):
        make_plan(spec(conf=conf, worker_resources=Resources(cpu=2, gpu=1)), PROGRAM, pods=pods)


def test_a_worker_may_have_several_small_executors():
    conf = {"spark.executor.cores": 1, "spark.executor.memory": "512m"}
    found = settings(conf=conf, worker_resources=Resources(cpu=4, memory="4Gi"))
    assert (found["spark.executor.cores"], found["spark.cores.max"]) == ("1", "4")


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


# ---- the documentation


def test_the_documentation_names_every_property_and_variable_that_is_refused():
    page = (Path(__file__).parents[2] / "docs" / "spark.md").read_text()
    table = page.split("| what to use |\n")[1].split("\n\n")[0]
    named = {name for row in table.splitlines() for name in re.findall("`([^`]+)`", row.split(" | ")[0])}
    assert named == {*REFUSED, *REFUSED_ENV, "OnDemand", "spark.kubernetes.executor.volumes.*"}
