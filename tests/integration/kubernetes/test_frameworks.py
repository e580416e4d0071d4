"""Spark's executors and Dask's workers are pods, which come with the load and go after it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from practicus_provider import lifecycle
from practicus_provider.adapters import make_plan
from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.render import short
from practicus_provider.lifecycle import Policy
from practicus_provider.plan import Here
from practicus_provider.spec import Elastic, JobSpec, Resources
from tests.kubernetes import Namespace, pods
from tests.plans import PATIENCE, TASK, wheel


@pytest.fixture
def roomy(namespace: Namespace, image: Callable[[str], str]) -> KubernetesBackend:
    return pods(namespace, image("python"))


async def nothing_left(left: Callable[[], list[str]]) -> None:
    """The task has ended; the server removes the rest."""
    async with asyncio.timeout(PATIENCE):
        while left():
            await asyncio.sleep(0.1)


DASK = """
import time, practicus_runtime as pr
client = pr.get_client()
client.wait_for_workers(1, timeout=120)
futures = client.map(lambda i: time.sleep(1) or i * i, range(30))
deadline = time.monotonic() + 120
most, load = 1, []
while most < 4 and time.monotonic() < deadline:  # the load grows meanwhile, so that slow starts do not outlast it
    most = max(most, len(client.nthreads()))
    load += client.map(lambda _: time.sleep(1), range(2), pure=False)
    time.sleep(0.2)
del load
total = sum(client.gather(futures))
hello = client.submit(lambda: __import__("greeting").HELLO).result()
while len(client.nthreads()) > 1 and time.monotonic() < deadline:
    time.sleep(0.1)
pr.set_result({"most": most, "left": len(client.nthreads()), "total": sum(client.gather(futures)) == total == 8555,
               "hello": hello})
"""
SPARK = """
import practicus_runtime as pr
spark = pr.get_client()
host = lambda _: (__import__("time").sleep(0.3), __import__("socket").gethostname() + __import__("greeting").HELLO)[1]
hosts = spark.sparkContext.parallelize(range(8), 8).map(host).distinct().collect()
pr.set_result({"hosts": sorted(hosts), "sum": spark.range(1000).selectExpr("sum(id)").collect()[0][0]})
"""


def small(adapter: str, image: str, workers: int | Elastic, resources: Resources, **more: Any) -> JobSpec:
    """A job whose replicas all have these resources."""
    return JobSpec.of(
        adapter=adapter,
        workers=workers,
        image=image,
        worker_resources=resources,
        coordinator_resources=resources,
        **more,
    )


async def follow(backend: KubernetesBackend, spec: JobSpec, script: str, *files: Path) -> tuple[Handle, Any]:
    program = (Here.PYTHON, (Here.APP, "/job.py"))
    shipped = {"job.py": script.encode(), **{file.name: file.read_bytes() for file in files}}
    whole = make_plan(spec, program, shipped, pods=True)
    handle = await backend.create("c-job", whole, task=TASK)
    return handle, (await lifecycle.follow(backend, handle, Policy.of(spec, whole), print)).value()


REQUIRED: dict[str, Any] = {"requirements": ("greeting>=1",), "env": {"PIP_NO_INDEX": "1"}}


async def test_dask_workers_are_pods_that_come_with_the_load_and_go_after_it(
    roomy: KubernetesBackend, image: Callable[[str], str], left: Callable[[], list[str]], tmp_path: Path
) -> None:
    spec = small("dask", image("dask"), Elastic(1, 4), Resources(cpu="200m", memory="512Mi"), **REQUIRED)
    _, result = await follow(roomy, spec, DASK, wheel(tmp_path, "greeting", "HELLO = 'hello'\n"))
    assert result == {"most": 4, "left": 1, "total": True, "hello": "hello"}
    await nothing_left(left)


async def test_spark_executors_are_pods_that_spark_makes(
    roomy: KubernetesBackend, image: Callable[[str], str], left: Callable[[], list[str]], tmp_path: Path
) -> None:
    spec = small("spark", image("spark"), 2, Resources(cpu="500m", memory="1Gi"), **REQUIRED)
    handle, result = await follow(roomy, spec, SPARK, wheel(tmp_path, "greeting", "HELLO = ' says hello'\n"))
    pods = [f"{short(handle.name)}-worker-exec-{number} says hello" for number in (1, 2)]
    assert result == {"hosts": pods, "sum": 499_500}
    await nothing_left(left)


SPARK_LOAD = """
import time
from concurrent.futures import ThreadPoolExecutor
import practicus_runtime as pr
context = pr.get_client().sparkContext
executors = lambda: len(context._jsc.sc().statusTracker().getExecutorInfos()) - 1
most, deadline = 0, time.monotonic() + 300
with ThreadPoolExecutor() as pool:
    load = pool.submit(context.parallelize(range(8), 8).map(lambda number: (time.sleep(8), number)[1]).sum)
    while not load.done() and time.monotonic() < deadline:
        most = max(most, executors())
        time.sleep(0.1)
while executors() > 1 and time.monotonic() < deadline:
    time.sleep(0.1)
pr.set_result({"most": most, "left": executors(), "sum": load.result()})
"""


async def test_spark_executors_come_with_the_load_and_go_after_it(
    roomy: KubernetesBackend, image: Callable[[str], str], left: Callable[[], list[str]]
) -> None:
    idle = {"spark.dynamicAllocation.executorIdleTimeout": "3s"}
    spec = small("spark", image("spark"), Elastic(1, 4), Resources(cpu="500m", memory="1Gi"), conf=idle)
    _, result = await follow(roomy, spec, SPARK_LOAD)
    assert result == {"most": 4, "left": 1, "sum": 28}
    await nothing_left(left)
