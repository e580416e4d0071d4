"""What becomes of the Spark properties, and of Spark's own environment variables, that a user gives.

Most are the user's alone. What says where the cluster is, or how large, has one place, which is an argument of ours: it
is refused, and the way out names that argument. What a user and we both have to say is merged.

Sources: Spark's pages *Configuration* and *Running on Kubernetes*.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

from practicus_provider.adapters.spark_pods import CHANGES
from practicus_provider.checks import is_below
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Text
from practicus_provider.spec import JobSpec

KNOWN = ("spark.executor.memory", "spark.executor.cores", "spark.driver.memory", "spark.sql.shuffle.partitions")
Settings = dict[str, Text]

_PLACE = "leave it out: where the cluster is, the task knows"
_RANGE = "give workers=, a number or Elastic(min, max)"
_POD = "give pod_overrides=, which changes the driver's pod and the executors'"
_OUR_DRIVER = (
    "Spark does not make the driver's pod here: give env=, secrets=, volumes=, coordinator_resources= or pod_overrides="
)
_PYTHON = "the driver's Python is the image's, or locally the connection's 'python' or 'pythons': choose it there"
_DAEMON = "leave it out: master and workers only manage processes"
REFUSED = {
    "spark.master": _PLACE,
    "spark.submit.deployMode": _PLACE,
    "spark.driver.host": _PLACE,
    "spark.driver.bindAddress": _PLACE,
    "spark.ui.port": _PLACE,
    "spark.executor.instances": _RANGE,
    "spark.dynamicAllocation.enabled": _RANGE,
    "spark.dynamicAllocation.minExecutors": _RANGE,
    "spark.dynamicAllocation.maxExecutors": _RANGE,
    "spark.driver.cores": "give coordinator_resources=Resources(cpu=...)",
    "spark.pyspark.driver.python": _PYTHON,
    "spark.kubernetes.namespace": "give namespace=, or the connection's extra 'namespace'",
    "spark.kubernetes.container.image": "give image=, or the connection's extra 'image'",
    "spark.kubernetes.driver.*": _OUR_DRIVER,
    "spark.kubernetes.driverEnv.*": _OUR_DRIVER,
    "spark.kubernetes.authenticate.*": _POD,
    "spark.kubernetes.executor.podTemplateFile": _POD,
    "spark.kubernetes.executor.podTemplateContainerName": _POD,
    "spark.kubernetes.executor.podNamePrefix": "leave it out: pods are named after the task",
    "spark.kubernetes.executor.disableConfigMap": "leave it out: the driver has no right to make a ConfigMap",
    "spark.kubernetes.executor.terminationGracePeriodSeconds": "give grace=",
    **dict.fromkeys(CHANGES, "leave it out: the driver has no right to change pods"),
}
"""Property, or the beginning of some, of ``conf`` -> what to give instead. What is as we set it anyway is let be."""
REFUSED_ENV = {
    "PYSPARK_DRIVER_PYTHON": _PYTHON,
    "SPARK_CONF_DIR": "give conf=, and log4j2.properties, hive-site.xml and the like by files=",
    "SPARK_LOCAL_IP": _PLACE,
    "SPARK_DRIVER_MEMORY": "give coordinator_resources=, or conf={'spark.driver.memory': ...}",
    "SPARK_EXECUTOR_MEMORY": "give worker_resources=, or conf={'spark.executor.memory': ...}",
    "SPARK_EXECUTOR_CORES": "give worker_resources=, or conf={'spark.executor.cores': ...}",
    "SPARK_WORKER_CORES": "give worker_resources=",
    "SPARK_WORKER_MEMORY": "give worker_resources=",
    "SPARK_WORKER_DIR": "give SPARK_LOCAL_DIRS, or conf={'spark.local.dir': ...}",
    "SPARK_DAEMON_MEMORY": _DAEMON,
    "SPARK_DAEMON_JAVA_OPTS": _DAEMON,
    "SPARK_NO_DAEMONIZE": _DAEMON,
}
"""Variable of ``env`` -> what to give instead."""
_ON_DEMAND = re.compile(r"spark\.kubernetes\.executor\.volumes\.persistentVolumeClaim\..+\.options\.claimName")


def given(spec: JobSpec) -> dict[str, str]:
    """The user's properties as Spark's text.

    :raises SpecError: one is not Spark's, not a text or a number, or has its place in an argument of ours.
    """
    for name, way_out in REFUSED_ENV.items():
        if name in spec.env:
            raise SpecError("env", {name: spec.env[name]}, way_out)
    found = {key: _text(key, value) for key, value in spec.settings.items()}
    for key, text in found.items():
        if _ON_DEMAND.fullmatch(key) and text.lower() == "ondemand":
            way_out = "the driver has no right to make claims: name one that is there, or give volumes="
            raise SpecError("conf", {key: text}, way_out)
    return found


def merged(ours: Settings, theirs: Mapping[str, str]) -> Settings:
    """Both; of a property that both have, the user's.

    :raises SpecError: it is one whose place is an argument of ours.
    """
    for key, text in theirs.items():
        way_out = REFUSED.get(key) or next((REFUSED[start] for start in _starts(key) if start in REFUSED), None)
        if way_out and ours.get(key) != text:
            raise SpecError("conf", {key: text}, way_out)
    return {**ours, **theirs}


def _starts(key: str) -> list[str]:
    """``a.*`` and ``a.b.*`` of ``a.b.c``."""
    words = key.split(".")
    return [".".join([*words[:end], "*"]) for end in range(1, len(words))]


def local_dirs(spec: JobSpec, theirs: Mapping[str, str]) -> Text:
    """Where Spark spills and keeps its shuffles: as in Spark, the variable comes before the property.

    :raises SpecError: a folder lies on one of ``volumes``, of which Spark's executors know nothing.
    """
    chosen = spec.env.get("SPARK_LOCAL_DIRS") or theirs.get("spark.local.dir")
    for folder in (chosen or "").split(","):
        if any(is_below(folder, volume.path) for volume in spec.volumes):
            way_out = (
                "on Kubernetes Spark mounts an emptyDir there. Leave it out, and have pod_overrides= mount a volume "
                "whose name begins with 'spark-local-dir-'"
            )
            raise SpecError("spark.local.dir", folder, way_out)
    return chosen or (Here.SCRATCH, "/local")


def executor_env(spec: JobSpec, theirs: Mapping[str, str]) -> dict[str, str]:
    """The executors' environment: ``env``, and what ``conf`` says for executors alone."""
    start = "spark.executorEnv."
    return {**spec.env, **{key.removeprefix(start): text for key, text in theirs.items() if key.startswith(start)}}


def _text(key: str, value: object) -> str:
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
