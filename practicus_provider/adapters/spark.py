"""Spark: a driver in client mode; executors in a standalone master's workers, on Kubernetes in pods of Spark's own.

Sources: Spark's pages *Standalone Mode*, *Configuration* and *Running on Kubernetes*, which has the 0.4 of OVERHEAD.
"""

from __future__ import annotations

import difflib

from practicus_provider.adapters import DOCKERFILE, Adapter, Program
from practicus_provider.errors import SpecError
from practicus_provider.plan import Framework, Here, Host, Launch, Part, Port, Role, Text, parts
from practicus_provider.spec import Elastic, JobSpec, Resources

MASTER = Port("coordinator", "spark")
UI = Port("driver", "ui")
ADDRESS: tuple[Part, ...] = ("spark://", Host("coordinator"), ":", MASTER)
OVERHEAD = 1.4  # A replica's memory over its JVM's heap: Python, off-heap buffers and the JVM itself need the rest.
LEAST_HEAP_MIB = 512  # Spark refuses one under 450 MiB (UnifiedMemoryManager), and the JVM counts some as its own.
DAEMON = {
    "SPARK_DAEMON_MEMORY": "256m",
    # Master and worker only manage processes: the quick compiler and the small collector start them sooner.
    "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dspark.master.rest.enabled=false",
    "SPARK_NO_DAEMONIZE": "1",
}
PLACE: dict[str, Text] = {"SPARK_LOCAL_IP": Here.HOST, "SPARK_LOCAL_DIRS": (Here.SCRATCH, "/local")}
UI_PLACE: dict[str, Text] = {"SPARK_LOCAL_IP": "127.0.0.1"}  # only the UI's: all else goes by spark.driver.host
RUN: Program = (Here.PYTHON, "-m", "practicus_runtime.spark")
KNOWN = ("spark.executor.memory", "spark.executor.cores", "spark.driver.memory", "spark.sql.shuffle.partitions")
Settings = dict[str, Text]


class SparkAdapter(Adapter):
    """Spark; ``SparkSession.builder.getOrCreate()`` finds it through ``spark-defaults.conf``."""

    client = "pyspark.sql:SparkSession.builder.getOrCreate"
    framework = Framework({"pyspark": "pip install pyspark"}, f"images/spark/{DOCKERFILE}")
    links = {"Spark UI": UI}

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """Coordinator (the master), workers of one executor each, and the driver.

        An elastic cluster starts ``max`` workers: places in which dynamic allocation lets executors come and go.
        """
        master = Launch(
            command=RUN
            + ("daemon", "org.apache.spark.deploy.master.Master", "--host", Here.HOST)
            + ("--port", MASTER, "--webui-port", Port("coordinator", "ui")),
            env={**DAEMON, **PLACE},
            ports={"spark": 7077, "ui": 8080},
            ready="spark",
        )
        worker = Launch(
            command=RUN
            + ("daemon", "org.apache.spark.deploy.worker.Worker", "--host", Here.HOST)
            + ("--webui-port", Port("worker", "ui"), "--cores", str(spec.worker_resources.cores))
            + ("--memory", f"{spec.worker_resources.memory_bytes >> 20}M", "--work-dir", (Here.SCRATCH, "/work"))
            + (ADDRESS,),
            env={**spec.env, **DAEMON, **PLACE},
            ports={"ui": 8081},
            after=(MASTER,),
            ready="ui",
        )
        settings = _settings(spec, {"spark.cores.max": str(spec.worker_resources.cores * spec.max_workers)})
        return (
            Role("coordinator", master, resources=spec.coordinator_resources),
            Role("worker", worker, spec.max_workers, spec.worker_resources),
            _driver(spec, program, settings | {"spark.master": ADDRESS}, after=(MASTER,)),
        )

    def pod_roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """The driver, and executors that it makes from the worker's template, be their number fixed or not."""
        own: Settings = {
            "spark.executor.instances": str(spec.min_workers),
            "spark.executor.memoryOverhead": f"{(spec.worker_resources.memory_bytes >> 20) - _heap_mib(spec)}m",
            "spark.kubernetes.executor.request.cores": str(spec.worker_resources.cpu),
            "spark.kubernetes.executor.limit.cores": str(spec.worker_resources.cpu),
            "spark.kubernetes.executor.disableConfigMap": "true",
            "spark.kubernetes.driver.service.deleteOnTermination": "false",
            "spark.kubernetes.driver.ownPersistentVolumeClaim": "false",
            "spark.kubernetes.executor.podTemplateContainerName": "main",
        }
        settings = _settings(spec, own) | {"spark.master": "k8s://https://kubernetes.default.svc"}
        executor = Launch((*RUN, "executor"), env={**spec.env, **PLACE})
        workers = Role("worker", executor, 0, spec.worker_resources, Elastic(spec.min_workers, spec.max_workers))
        return (_driver(spec, program, settings, spawns="worker"), workers)


def _driver(
    spec: JobSpec, program: Program, settings: Settings, *, after: tuple[Port, ...] = (), spawns: str | None = None
) -> Role:
    records = tuple(part for key, value in settings.items() for part in (key, "=", *parts(value), "\0"))
    launch = Launch(
        command=(*RUN, "driver", *program),
        env={**spec.env, **PLACE, **UI_PLACE, "SPARK_CONF_DIR": (Here.SCRATCH, "/conf"), "PYSPARK_PYTHON": Here.PYTHON},
        files={"conf/settings": records},
        ports={"ui": 4040},
        after=after,
        spawns=spawns,
    )
    return Role("driver", launch, resources=spec.coordinator_resources)


def _settings(spec: JobSpec, own: Settings) -> Settings:
    """The driver's properties: what the spec asks for, the user's ``conf`` over it, and the driver's own address."""
    settings: Settings = {
        "spark.driver.memory": f"{_heap_mib(spec, 'coordinator_resources')}m",
        "spark.executor.memory": f"{_heap_mib(spec)}m",
        "spark.executor.cores": str(spec.worker_resources.cores),
        "spark.scheduler.minRegisteredResourcesRatio": "0.8",
        "spark.ui.showConsoleProgress": "false",  # a bar that redraws itself is many lines in a log
        "spark.ui.killEnabled": "false",  # Spark does it by GET too, and whoever may look at the task may open the UI
        **dict.fromkeys(("spark.driver.defaultJavaOptions", "spark.executor.defaultJavaOptions"), "-Djava.io.tmpdir=."),
        **own,
    }
    if spec.elastic:
        settings |= {
            "spark.dynamicAllocation.enabled": "true",
            "spark.dynamicAllocation.shuffleTracking.enabled": "true",
            "spark.dynamicAllocation.minExecutors": str(spec.elastic.min),
            "spark.dynamicAllocation.initialExecutors": str(spec.elastic.min),
            "spark.dynamicAllocation.maxExecutors": str(spec.elastic.max),
            "spark.scheduler.minRegisteredResourcesRatio": "0",
        }
    settings |= {f"spark.executorEnv.{name}": value for name, value in spec.env.items()}
    settings |= {key: _value(key, value) for key, value in spec.settings.items()}
    place: Settings = {"spark.driver.host": Here.HOST, "spark.driver.bindAddress": Here.HOST, "spark.ui.port": UI}
    return settings | place | {"spark.submit.deployMode": "client"}


def _value(key: str, value: object) -> str:
    if not key.startswith("spark.") or not {"=", "\0"}.isdisjoint(key):
        guesses = (f"spark.{key}", f"spark.{key.partition('.')[2]}")
        near = [name for guess in guesses for name in difflib.get_close_matches(guess, KNOWN, n=1, cutoff=0.8)]
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SpecError("conf", key, f"{hint}Spark's properties start with 'spark.' and hold no '='")
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (str, int, float)) or "\0" in str(value):
        raise SpecError("conf", {key: value}, "give a string, a number or a bool")
    return str(value)


def _heap_mib(spec: JobSpec, field: str = "worker_resources") -> int:
    resources: Resources = getattr(spec, field)
    heap = int(resources.memory_bytes / OVERHEAD) >> 20
    if heap >= LEAST_HEAP_MIB:
        return heap
    raise SpecError(f"{field}.memory", resources.memory, f"Spark needs at least {int(LEAST_HEAP_MIB * OVERHEAD) + 1}Mi")
