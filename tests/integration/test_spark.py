"""What a user of Spark's brings along, with the real Spark."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

from practicus_provider.adapters import make_plan
from practicus_provider.backends.local import LocalBackend
from practicus_provider.plan import Here, Plan
from practicus_provider.spec import JobSpec, Resources
from practicus_provider.status import State
from tests.plans import created, end, read

PROGRAM = (Here.PYTHON, (Here.APP, "/", "jobs/main.py"))
START = 300.0
"""Seconds that a loaded machine may need for three JVMs."""
LOG4J = b"""
rootLogger.level = warn
rootLogger.appenderRef.stdout.ref = console
appender.console.type = Console
appender.console.name = console
appender.console.target = SYSTEM_ERR
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = shipped log4j2.properties: %m%n
"""
BRINGS = """
import practicus_runtime as pr
context = pr.get_client().sparkContext

def probe(_):
    import beside, helpers, lib, os
    from pyspark import SparkFiles
    try:
        pr.set_result("lost")
    except RuntimeError as error:
        refused = str(error)
    data = open(SparkFiles.get("data.txt")).read()
    return lib.ten(beside.TWO), helpers.SEVEN, data, os.environ["SPARK_LOCAL_DIRS"], os.environ["MINE"], refused

found = context.parallelize([0], 1).map(probe).collect()[0]
loader = context._jvm.Thread.currentThread().getContextClassLoader()
context._jvm.org.slf4j.LoggerFactory.getLogger("job").warn("hello")
pr.set_result([*found, loader.getResource("in-the-jar.txt") is not None])
"""
NO_AGENT = "import practicus_runtime as pr; pr.get_client().range(10).count()"


def packed(**files: str) -> bytes:
    """A zip, or a jar, of these files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


def plan(script: str, files: dict[str, bytes], **more: Any) -> Plan:
    small = Resources(memory="800Mi")
    spec = JobSpec.of(adapter="spark", worker_resources=small, coordinator_resources=small, timeout=600, **more)
    return make_plan(spec, PROGRAM, {"jobs/main.py": script.encode(), **files})


async def test_what_is_shipped_and_set_is_there_in_the_driver_and_in_the_executors(
    local: LocalBackend, tmp_path: Path
) -> None:
    files = {
        "dep.jar": packed(**{"in-the-jar.txt": ""}),
        "lib.zip": packed(**{"lib.py": "def ten(x): return 10 * x"}),
        "data.txt": b"data",
        "helpers.py": b"SEVEN = 7",
        "jobs/beside.py": b"TWO = 2",
        "log4j2.properties": LOG4J,
    }
    conf = {
        "spark.jars": "dep.jar",
        "spark.submit.pyFiles": "lib.zip",
        "spark.files": "data.txt",
        "spark.local.dir": str(tmp_path / "spill"),
        "spark.executorEnv.MINE": "conf",
        "spark.executor.memory": "600m",
    }
    async with created(local, "job", plan(BRINGS, files, conf=conf, env={"MINE": "env"})) as handle:
        status = await end(local, handle, START)
        lines = [line.text for line in await read(local, handle, "driver")]
        assert (status.state, status.verdict and status.verdict.log_tail) == (State.SUCCEEDED, ())
    ten, seven, data, spilled, mine, refused, jar = json.loads(status.result or "")
    assert (ten, seven, data, mine, jar) == (20, 7, "data", "conf", True)
    assert spilled.startswith(str(tmp_path / "spill"))
    assert refused.startswith("set_result() has no effect on a worker: ")
    assert "shipped log4j2.properties: hello" in lines
    assert not [line for line in lines if "the cluster was not used" in line]


async def test_executors_that_end_at_their_start_end_the_job_with_their_last_words(local: LocalBackend) -> None:
    conf = {"spark.executor.extraJavaOptions": "-javaagent:/nowhere.jar"}
    async with created(local, "job", plan(NO_AGENT, {}, conf=conf)) as handle:
        verdict = (await end(local, handle, START)).verdict
        worker = [line.text for line in await read(local, handle, "worker")]
    assert verdict is not None
    assert verdict.message == "worker-0 exited with code 1"
    last = [line for line in verdict.log_tail if "/nowhere.jar" in line]
    assert last
    assert last[0] in worker
