"""Spark: a standalone master and workers, and a driver that runs the application in client mode.

Sources: Spark's *Standalone Mode*, *Configuration* and *Running on Kubernetes* pages, whose overhead factor for Python
jobs (``spark.kubernetes.memoryOverheadFactor``, 0.4) divides a replica's memory here too.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from practicus_provider.adapters import Adapter, Program
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Part, Port, Role, Text, parts
from practicus_provider.spec import JobSpec, Resources

MASTER = Port("coordinator", "spark")
UI = Port("driver", "ui")
ADDRESS: tuple[Part, ...] = ("spark://", Host("coordinator"), ":", MASTER)
OVERHEAD = 1.4
"""A replica's memory over its JVM's heap: Python, off-heap buffers and the JVM itself need the rest."""
LEAST_HEAP_MIB = 512
"""Spark refuses a heap under 450 MiB (``UnifiedMemoryManager``), and the JVM counts some of it as its own."""
DAEMON = {
    "SPARK_DAEMON_MEMORY": "256m",
    # Master and worker only manage processes: the quick compiler and the small collector start them sooner.
    "SPARK_DAEMON_JAVA_OPTS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Dspark.master.rest.enabled=false",
    "SPARK_NO_DAEMONIZE": "1",
}
RUN: Program = (Here.PYTHON, "-m", "practicus_runtime.spark")
KNOWN = ("spark.executor.memory", "spark.executor.cores", "spark.driver.memory", "spark.sql.shuffle.partitions")


class SparkAdapter(Adapter):
    """Spark; ``SparkSession.builder.getOrCreate()`` finds it through ``spark-defaults.conf``."""

    client = "pyspark.sql:SparkSession.builder.getOrCreate"
    links = {"Spark UI": UI}

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """Coordinator (the master), workers of one executor each, and the driver.

        An elastic cluster starts ``max`` workers: places in which dynamic allocation lets executors come and go.
        """
        place: dict[str, Text] = {"SPARK_LOCAL_IP": Here.HOST, "SPARK_LOCAL_DIRS": (Here.SCRATCH, "/local")}
        master = Launch(
            command=RUN
            + ("daemon", "org.apache.spark.deploy.master.Master", "--host", Here.HOST)
            + ("--port", MASTER, "--webui-port", Port("coordinator", "ui")),
            env={**DAEMON, **place},
            ports={"spark": 7077, "ui": 8080},
            ready="spark",
        )
        worker = Launch(
            command=RUN
            + ("daemon", "org.apache.spark.deploy.worker.Worker", "--host", Here.HOST)
            + ("--webui-port", Port("worker", "ui"), "--cores", str(spec.worker_resources.cores))
            + ("--memory", f"{spec.worker_resources.memory_bytes >> 20}M", "--work-dir", (Here.SCRATCH, "/work"))
            + (ADDRESS,),
            env={**spec.env, **DAEMON, **place},
            ports={"ui": 8081},
            after=(MASTER,),
            ready="ui",
        )
        driver = Launch(
            command=(*RUN, "driver", *program),
            env={**spec.env, **place, "SPARK_CONF_DIR": (Here.SCRATCH, "/conf"), "PYSPARK_PYTHON": Here.PYTHON},
            files={"conf/spark-defaults.conf": _properties(_settings(spec))},
            ports={"ui": 4040},
            after=(MASTER,),
        )
        return (
            Role("coordinator", master, resources=spec.coordinator_resources),
            Role("worker", worker, spec.max_workers, spec.worker_resources),
            Role("driver", driver, resources=spec.coordinator_resources),
        )


def _settings(spec: JobSpec) -> dict[str, Text]:
    """The driver's properties: what the spec asks for, the user's ``conf`` over it, and the cluster's address."""
    cores = spec.worker_resources.cores
    settings: dict[str, Text] = {
        "spark.driver.memory": _heap("coordinator_resources", spec.coordinator_resources),
        "spark.executor.memory": _heap("worker_resources", spec.worker_resources),
        "spark.executor.cores": str(cores),
        "spark.cores.max": str(cores * spec.max_workers),
        "spark.scheduler.minRegisteredResourcesRatio": "0.8",
        "spark.ui.showConsoleProgress": "false",  # a bar that redraws itself is many lines in a log
        "spark.driver.defaultJavaOptions": "-Djava.io.tmpdir=.",
        "spark.executor.defaultJavaOptions": "-Djava.io.tmpdir=.",
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
    settings |= {key: _value(key, value) for key, value in spec.conf.items()}
    return settings | {
        "spark.master": ADDRESS,
        "spark.submit.deployMode": "client",
        "spark.driver.host": Here.HOST,
        "spark.driver.bindAddress": Here.HOST,
        "spark.ui.port": UI,
    }


def _value(key: str, value: object) -> str:
    if not key.startswith("spark."):
        guesses = (f"spark.{key}", f"spark.{key.partition('.')[2]}")
        near = [name for guess in guesses for name in difflib.get_close_matches(guess, KNOWN, n=1, cutoff=0.8)]
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise SpecError("conf", key, f"{hint}Spark's properties start with 'spark.'")
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, (str, int, float)):
        raise SpecError("conf", {key: value}, "give a string, a number or a bool")
    return str(value)


def _heap(field: str, resources: Resources) -> str:
    heap = int(resources.memory_bytes / OVERHEAD) >> 20
    if heap < LEAST_HEAP_MIB:
        least = int(LEAST_HEAP_MIB * OVERHEAD) + 1
        raise SpecError(f"{field}.memory", resources.memory, f"Spark needs at least {least}Mi")
    return f"{heap}m"


def _properties(settings: Mapping[str, Text]) -> tuple[Part, ...]:
    """A Java properties file (``java.util.Properties.load``): only what it would read otherwise is escaped."""
    file: list[Part] = []
    for key, text in settings.items():
        file += [_escape(key, " :="), "="]
        file += [part if isinstance(part, (Here, Host, Port)) else _escape(str(part), "") for part in parts(text)]
        file.append("\n")
    return tuple(file)


def _escape(text: str, special: str) -> str:
    named = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}
    body = text.lstrip(" ")
    indent = "\\ " * (len(text) - len(body))
    return indent + "".join(named.get(char, f"\\{char}" if char in special else char) for char in body)
