"""Spark: a driver in client mode; executors in a standalone master's workers, on Kubernetes in pods of Spark's own.

Sources: Spark's pages *Standalone Mode*, *Configuration* and *Running on Kubernetes*.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from practicus_provider.adapters import DOCKERFILE, NO_RESULT, Adapter, Program, spark_pods
from practicus_provider.adapters.spark_settings import Settings, executor_env, given, local_dirs, merged
from practicus_provider.adapters.spark_size import check_room, driver_memory, executor_memory
from practicus_provider.plan import Framework, Here, Host, Launch, Part, Port, Role, Text, parts
from practicus_provider.spec import Elastic, JobSpec

MASTER = Port("coordinator", "spark")
UI = Port("driver", "ui")
ADDRESS: tuple[Part, ...] = ("spark://", Host("coordinator"), ":", MASTER)
DAEMON = {
    "SPARK_DAEMON_MEMORY": "256m",
    # Master and worker only manage processes: the quick compiler and the small collector start them sooner.
    "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dspark.master.rest.enabled=false",
    "SPARK_NO_DAEMONIZE": "1",
}
PLACE: dict[str, Text] = {"SPARK_LOCAL_IP": Here.HOST}
UI_PLACE: dict[str, Text] = {"SPARK_LOCAL_IP": "127.0.0.1"}  # only the UI's: all else goes by spark.driver.host
RUN: Program = (Here.PYTHON, "-m", "practicus_runtime.spark")


class SparkAdapter(Adapter):
    """Spark; ``SparkSession.builder.getOrCreate()`` finds it through ``spark-defaults.conf``."""

    client = "pyspark.sql:SparkSession.builder.getOrCreate"
    framework = Framework({"pyspark": "pip install pyspark"}, f"images/spark/{DOCKERFILE}")
    links = {"Spark UI": UI}

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """Coordinator (the master), workers of one executor each, and the driver.

        An elastic cluster starts ``max`` workers: places in which dynamic allocation lets executors come and go.
        """
        theirs = given(spec)
        local: dict[str, Text] = {"SPARK_LOCAL_DIRS": local_dirs(spec, theirs)}
        master = Launch(
            command=RUN
            + ("daemon", "org.apache.spark.deploy.master.Master", "--host", Here.URL_HOST)
            + ("--port", MASTER, "--webui-port", Port("coordinator", "ui")),
            env={**DAEMON, **PLACE, **local},
            ports={"spark": 7077, "ui": 8080},
            ready="spark",
        )
        worker = Launch(
            command=RUN
            + ("daemon", "org.apache.spark.deploy.worker.Worker", "--host", Here.URL_HOST)
            + ("--webui-port", Port("worker", "ui"), "--cores", str(spec.worker_resources.cores))
            + ("--memory", f"{spec.worker_resources.memory_bytes >> 20}M", "--work-dir", (Here.SCRATCH, "/work"))
            + (ADDRESS,),
            env={**spec.env, **DAEMON, **PLACE, **local, **NO_RESULT},
            ports={"ui": 8081},
            after=(MASTER,),
            ready="ui",
        )
        own: Settings = {
            "spark.cores.max": str(spec.worker_resources.cores * spec.max_workers),
            "spark.master": ADDRESS,
        }
        return (
            Role("coordinator", master, resources=spec.coordinator_resources),
            Role("worker", worker, spec.max_workers, spec.worker_resources),
            _driver(spec, program, own, theirs, after=(MASTER,)),
        )

    def pod_roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """The driver, and executors that it makes from the worker's template, be their number fixed or not."""
        theirs = given(spec)
        own: Settings = {
            "spark.kubernetes.executor.request.cores": str(spec.worker_resources.cpu),
            "spark.kubernetes.executor.limit.cores": str(spec.worker_resources.cpu),
            "spark.kubernetes.executor.disableConfigMap": "true",
            "spark.kubernetes.driver.service.deleteOnTermination": "false",
            "spark.kubernetes.driver.ownPersistentVolumeClaim": "false",
            "spark.kubernetes.executor.podTemplateContainerName": "main",
            "spark.master": "k8s://https://kubernetes.default.svc",
        }
        env = executor_env(spec, theirs)
        env.pop("SPARK_LOCAL_DIRS", None)  # Spark says it, as it mounts them
        executor = Launch((*RUN, "executor"), env={**env, **PLACE, **NO_RESULT})
        workers = Role("worker", executor, 0, spec.worker_resources, Elastic(spec.min_workers, spec.max_workers))
        labels = spark_pods.labels(theirs)
        driver = _driver(spec, program, own, theirs, spawns="worker", pod_verbs=spark_pods.VERBS, pod_labels=labels)
        return (driver, workers)


def _driver(spec: JobSpec, program: Program, own: Settings, theirs: Mapping[str, str], **more: Any) -> Role:
    settings = _settings(spec, own, theirs)
    records = tuple(part for key, value in settings.items() for part in (key, "=", *parts(value), "\0"))
    python = {"PYSPARK_PYTHON": theirs.get("spark.pyspark.python") or spec.env.get("PYSPARK_PYTHON") or Here.PYTHON}
    conf = {"SPARK_CONF_DIR": (Here.SCRATCH, "/conf"), "SPARK_LOCAL_DIRS": local_dirs(spec, theirs)}
    launch = Launch(
        command=(*RUN, "driver", Here.APP, Port("driver", "executors"), *program),
        env={**spec.env, **UI_PLACE, **conf, **python},
        files={"conf/settings": records},
        ports={"ui": 4040, "executors": 7079},
        **more,
    )
    return Role("driver", launch, resources=spec.coordinator_resources)


def _settings(spec: JobSpec, own: Settings, theirs: Mapping[str, str]) -> Settings:
    """The driver's properties: what the spec asks for, and the user's ``conf``."""
    check_room(spec, theirs)
    heap, beside = executor_memory(spec, theirs)
    settings: Settings = {
        "spark.driver.memory": f"{driver_memory(spec, theirs)}m",
        "spark.executor.memory": f"{heap}m",
        "spark.executor.cores": str(spec.worker_resources.cores),
        "spark.executor.instances": str(spec.min_workers),
        "spark.dynamicAllocation.enabled": str(bool(spec.elastic)).lower(),
        "spark.scheduler.minRegisteredResourcesRatio": "0.8",
        "spark.ui.showConsoleProgress": "false",  # a bar that redraws itself is many lines in a log
        "spark.ui.killEnabled": "false",  # Spark does it by GET too, and whoever may look at the task may open the UI
        **dict.fromkeys(("spark.driver.defaultJavaOptions", "spark.executor.defaultJavaOptions"), "-Djava.io.tmpdir=."),
        "spark.submit.deployMode": "client",
        "spark.driver.host": Here.URL_HOST,
        "spark.driver.bindAddress": Here.URL_HOST,
        "spark.ui.port": UI,
        **own,
    }
    if spec.elastic:
        settings |= {
            "spark.dynamicAllocation.shuffleTracking.enabled": "true",
            "spark.dynamicAllocation.minExecutors": str(spec.elastic.min),
            "spark.dynamicAllocation.initialExecutors": str(spec.elastic.min),
            "spark.dynamicAllocation.maxExecutors": str(spec.elastic.max),
            "spark.scheduler.minRegisteredResourcesRatio": "0",
        }
    settings |= {f"spark.executorEnv.{name}": value for name, value in spec.env.items()}
    # Configuration files that travel with the job, such as log4j2.properties, are found in the class path.
    paths = {key: theirs.get(key) for key in ("spark.driver.extraClassPath", "spark.executor.extraClassPath")}
    classes: Settings = {key: (f"{path}:" if path else "", Here.APP) for key, path in paths.items()}
    # As large as the worker in all, whatever is its heap.
    return merged(settings, theirs) | classes | {"spark.executor.memoryOverhead": f"{beside}m"}
