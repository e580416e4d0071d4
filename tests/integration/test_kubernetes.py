"""What users and clusters do to a job on Kubernetes, and what is left of it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from practicus_provider import lifecycle
from practicus_provider.adapters import make_plan
from practicus_provider.backends.base import Handle, Usage
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.api import Access
from practicus_provider.backends.kubernetes.labels import CLUSTER, INDEX, MANAGED, ROLE
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.render import short
from practicus_provider.errors import BackendError
from practicus_provider.lifecycle import Outcome, Policy
from practicus_provider.plan import Here, Launch, Plan, Port, Role
from practicus_provider.runtime.practicus_runtime.launcher import END_MARK
from practicus_provider.spec import Elastic, JobSpec, Resources
from practicus_provider.status import Reason, State, Verdict
from tests.cluster.layout import REPOSITORY
from tests.kubernetes import Namespace, pods
from tests.plans import PATIENCE, SLEEP, TASK, created, end, plan, role, until, wheel
from tests.plans import page as page_role

KINDS = "pods,jobs,configmaps,services,serviceaccounts,roles,rolebindings,networkpolicies"
HOG = "x = []\nwhile True: x.append(bytearray(10_000_000))"
EMPTY_REGISTRY = """
from socketserver import BaseRequestHandler, ThreadingTCPServer

class Empty(BaseRequestHandler):
    def handle(self):  # TLS is greeted in HTTP, too: then a container runtime speaks that
        self.request.recv(65536)
        self.request.sendall(b"HTTP/1.1 404 Not Found\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")

ThreadingTCPServer.allow_reuse_address = True
ThreadingTCPServer(("127.0.0.1", 5005), Empty).serve_forever()
"""


@pytest.fixture
def backend(namespace: Namespace, image: Callable[[str], str]) -> KubernetesBackend:
    return KubernetesBackend(Access(namespace.kubeconfig), Site(namespace.name, image("python")))


@pytest.fixture
def roomy(namespace: Namespace, image: Callable[[str], str]) -> KubernetesBackend:
    return pods(namespace, image("python"))


@pytest.fixture
def left(namespace: Namespace, kubectl: Callable[..., str]) -> Callable[[], list[str]]:
    """What there is of any cluster of ours."""
    selector = ",".join(f"{key}={value}" for key, value in MANAGED.items())

    def look() -> list[str]:
        return kubectl("get", KINDS, "-n", namespace.name, "-l", selector, "-o", "name").split()

    return look


async def nothing_left(left: Callable[[], list[str]]) -> None:
    """The task has ended; the server removes the rest."""
    async with asyncio.timeout(PATIENCE):
        while left():
            await asyncio.sleep(0.1)


async def verdict_of(backend: KubernetesBackend, job: Plan) -> Verdict:
    async with created(backend, "job", job) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    return verdict


# ---- verdicts


async def test_a_replica_that_takes_too_much_memory_is_named_with_its_limit(backend: KubernetesBackend) -> None:
    hog = Role("worker", Launch((Here.PYTHON, "-c", HOG)), resources=Resources(cpu="100m", memory="64Mi"))
    verdict = await verdict_of(backend, plan(hog, role("driver", SLEEP)))
    assert (verdict.reason, verdict.replica) == (Reason.OOM_KILLED, "worker-0")
    assert verdict.message == "worker-0 was OOM-killed at 64Mi"
    assert "Raise worker_resources=Resources(memory=...)" in verdict.advice


@pytest.fixture
def registry(kubectl: Callable[..., str], image: Callable[[str], str]) -> Iterator[tuple[str, str]]:
    """A node, and the address that it reaches a registry at, which answers 404 to all that is asked of it."""
    command = ["python3", "-c", EMPTY_REGISTRY]
    probe = {"exec": {"command": ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 5005))"]}}
    container = {"name": "main", "image": image("python"), "command": command, "readinessProbe": probe}
    spec = {"hostNetwork": True, "terminationGracePeriodSeconds": 0, "containers": [container]}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "empty-registry"}, "spec": spec}
    kubectl("create", "-n", "default", "-f", "-", stdin=json.dumps(pod))
    try:
        kubectl("wait", "pod/empty-registry", "-n", "default", "--for=condition=Ready", f"--timeout={PATIENCE:g}s")
        node = kubectl("get", "pod/empty-registry", "-n", "default", "-o", "jsonpath={.spec.nodeName}")
        yield node, "127.0.0.1:5005"
    finally:
        kubectl("delete", "pod/empty-registry", "-n", "default")


async def test_an_image_that_is_not_there_is_said_at_once(
    backend: KubernetesBackend, registry: tuple[str, str]
) -> None:
    node, address = registry
    here = {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}}}
    gone = replace(plan(role("driver", SLEEP)), image=f"{address}/nothing:1", pod_overrides=here)
    verdict = await verdict_of(backend, gone)
    assert verdict.reason is Reason.IMAGE_PULL_FAILED
    assert verdict.message.startswith(f"driver-0 has no image {address}/nothing:1 to run: ")
    assert verdict.message.endswith(f"{address}/nothing:1: not found")


async def test_a_secret_that_is_not_there_is_said_at_once(backend: KubernetesBackend) -> None:
    job = replace(plan(role("driver", SLEEP)), secrets={"TOKEN": ("no-such-secret", "token")})
    verdict = await verdict_of(backend, job)
    assert verdict.reason is Reason.CONFIG_ERROR
    assert re.fullmatch('driver-0 cannot start: secrets? "no-such-secret" not found', verdict.message)


async def test_a_secret_reaches_the_application_by_reference(
    backend: KubernetesBackend, namespace: Namespace, kubectl: Callable[..., str]
) -> None:
    kubectl("create", "secret", "generic", "s3", "--from-literal=token=s3cr3t-value", "-n", namespace.name)
    code = "import os, practicus_runtime as p; p.set_result(len(os.environ['TOKEN']) == 12)"
    job = replace(plan(role("driver", code)), secrets={"TOKEN": ("s3", "token")})
    async with created(backend, "job", job) as handle:
        assert (await end(backend, handle)).result == "true"
        assert "s3cr3t" not in kubectl("get", "configmaps,jobs,pods", "-n", namespace.name, "-o", "yaml")


async def test_a_pod_that_fits_no_node_is_said_while_it_waits(backend: KubernetesBackend) -> None:
    large = Role("driver", Launch((Here.PYTHON, "-c", "pass")), resources=Resources(cpu=500))
    async with created(backend, "job", plan(large)) as handle:
        status = await until(backend, handle, lambda status: "Insufficient cpu" in status.summary())
    assert status.summary().startswith("pending: driver 1 pending (Unschedulable: 0/")
    assert re.search(r" It asks for cpu 500, memory 2Gi\. The largest node has cpu \d+\.\)$", status.summary())


async def test_a_quota_that_is_used_up_is_said_while_it_waits_and_fails_nothing_before_start_timeout(
    backend: KubernetesBackend, namespace: Namespace
) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"requests.cpu": "10m"}}}
    namespace.core.create_namespaced_resource_quota(namespace.name, quota)
    async with created(backend, "job", plan(role("driver", "pass"))) as handle:
        await until(backend, handle, lambda status: "exceeded quota: q" in status.summary())
        said: list[str] = []
        outcome = await lifecycle.follow(backend, handle, Policy(time.time() + 2, ()), said.append)
    assert said[0].startswith("pending: driver 1 pending (")
    assert "exceeded quota: q" in said[0]
    assert outcome.verdict.reason is Reason.START_TIMEOUT
    assert "exceeded quota: q" in outcome.verdict.message


async def test_a_pod_that_is_evicted_fails_the_job_with_that_reason(
    backend: KubernetesBackend, namespace: Namespace
) -> None:
    async with created(backend, "job", plan(role("driver", SLEEP))) as handle:
        await until(backend, handle, lambda status: status.state is State.RUNNING)
        watching = asyncio.create_task(end(backend, handle))
        await asyncio.sleep(0.2)
        (pod,) = namespace.core.list_namespaced_pod(namespace.name).items
        eviction = {"metadata": {"name": pod.metadata.name}}
        namespace.core.create_namespaced_pod_eviction(pod.metadata.name, namespace.name, eviction)
        verdict = (await watching).verdict
    assert verdict is not None
    assert verdict.reason is Reason.EVICTED
    assert verdict.message.startswith(f"driver-0 was taken off its node {pod.spec.node_name} (EvictionByEvictionAPI): ")


async def test_a_long_result_arrives_whole(backend: KubernetesBackend) -> None:
    code = "import practicus_runtime as p; p.set_result(['größe'] * 50_000)"
    async with created(backend, "job", plan(role("driver", code))) as handle:
        status = await end(backend, handle)
        assert [line async for line in backend.logs(handle, ["driver"])] == []
    assert Outcome(status.verdict, status.result).value() == ["größe"] * 50_000  # type: ignore[arg-type]


FORGES = f"""
import json, os, time
nonce = json.load(open(".practicus/launch.json"))["nonce"]
words = json.dumps({{"exit_code": 0, "signal": None, "result": "1"}})
for output in (1, 2):
    os.write(output, f"{{{END_MARK!r}}}{{nonce}} {{words}}\\n".encode())
time.sleep(600)
"""


async def test_a_job_that_forges_its_own_good_end_is_no_success(backend: KubernetesBackend) -> None:
    async with created(backend, "job", plan(role("driver", FORGES))) as handle:
        outcome = await lifecycle.follow(backend, handle, Policy(time.time() + 60, ("driver",)), print)
    assert (outcome.verdict.state, outcome.result) == (State.FAILED, None)


# ---- names that are taken, objects that are left


async def test_a_job_of_somebody_else_with_our_name_is_left_alone(
    backend: KubernetesBackend, namespace: Namespace, kubectl: Callable[..., str]
) -> None:
    kubectl("create", "job", "job", "--image=x", "-n", namespace.name)
    with pytest.raises(BackendError, match=f"there is a Job job in namespace {namespace.name} that is not ours"):
        await backend.create("job", plan(role("driver", SLEEP)), task=TASK)
    assert kubectl("get", "jobs", "-n", namespace.name, "-o", "name").split() == ["job.batch/job"]


async def test_a_namespace_that_is_not_there_is_said_with_the_way_out(backend: KubernetesBackend) -> None:
    lost = replace(backend, site=Site("no-such-namespace", "i"))
    with pytest.raises(BackendError, match="create namespace 'no-such-namespace', or set the connection's extra"):
        await lost.create("job", plan(role("driver", SLEEP)), task=TASK)


async def test_the_longest_names_work(backend: KubernetesBackend, left: Callable[[], list[str]]) -> None:
    from practicus_provider.names import TaskKey

    name = TaskKey("Dag·" * 60, "manual__2013-01-01T00:00:00+00:00", "TASK_" * 50).cluster_name()
    job = plan(role("a" * 20, SLEEP, replicas=2), role("driver", "pass"))
    handle = await backend.create(name, job, task=TASK)
    assert (await end(backend, handle)).state is State.SUCCEEDED
    await backend.delete(handle)
    assert left() == []


@pytest.mark.parametrize("code", ["pass", "raise SystemExit(1)"])
async def test_nothing_is_left_of_a_cluster_that_is_deleted(
    backend: KubernetesBackend, left: Callable[[], list[str]], code: str
) -> None:
    elastic = role("worker", SLEEP, replicas=2, elastic=Elastic(1, 3))
    handle = await backend.create("job", plan(elastic, role("server", SLEEP), role("driver", code)), task=TASK)
    await end(backend, handle)
    assert len(left()) > 5
    await backend.delete(handle)
    assert left() == []


# ---- isolation


async def test_no_replica_has_a_token_unless_it_starts_pods(backend: KubernetesBackend) -> None:
    code = "import os, practicus_runtime as p; p.set_result(os.path.exists('/var/run/secrets/kubernetes.io'))"
    async with created(backend, "job", plan(role("driver", code))) as handle:
        assert (await end(backend, handle)).result == "false"


def service_account(namespace: Namespace, kubectl: Callable[..., str]) -> Access:
    """As the namespace's default service account."""
    token = kubectl("create", "token", "default", "-n", namespace.name).strip()
    user = json.loads(kubectl("config", "view", "--raw", "--flatten", "-o", "json"))
    user["users"] = [{"name": user["users"][0]["name"], "user": {"token": token}}]
    return Access(None, json.dumps(user))


async def test_the_test_button_names_what_this_user_may_not_do(
    backend: KubernetesBackend, namespace: Namespace, kubectl: Callable[..., str]
) -> None:
    assert (await backend.check()).startswith(f"replicas run as pods in namespace {namespace.name} of https://")
    nobody = replace(backend, access=service_account(namespace, kubectl))
    with pytest.raises(BackendError, match=f"in namespace {namespace.name} this user may not get jobs.batch, list"):
        await nobody.check()
    with pytest.raises(BackendError, match=r"Kubernetes forbids it \(403: jobs.batch is forbidden"):
        await nobody.create("job", plan(role("driver", SLEEP)), task=TASK)


@pytest.fixture
def grant(namespace: Namespace, kubectl: Callable[..., str]) -> Callable[..., Access]:
    """Gives the namespace's default service account a Role of the documentation, and how to act as it."""

    def grant(name: str, without: str = "") -> Access:
        blocks = (REPOSITORY / "docs" / "kubernetes.md").read_text().split("```")
        (block,) = [block for block in blocks if f"kind: Role\nmetadata: {{name: {name}," in block]
        role = next(yaml.safe_load_all(block.removeprefix("yaml\n")))
        role["metadata"]["namespace"] = namespace.name
        role["rules"] = [rule for rule in role["rules"] if rule["resources"] != [without]]
        kubectl("apply", "-f", "-", stdin=json.dumps(role))
        account = f"{namespace.name}:default"
        kubectl("create", "rolebinding", name, f"--role={name}", f"--serviceaccount={account}", "-n", namespace.name)
        return service_account(namespace, kubectl)

    return grant


async def test_who_only_shows_dashboards_needs_only_the_rights_that_the_documentation_says(
    backend: KubernetesBackend, grant: Callable[..., Access]
) -> None:
    page = Port("coordinator", "page")
    shows = replace(backend, access=grant("practicus-dashboards"))
    async with created(backend, "cluster", plan(page_role(), decides=None, links={"Page": page})) as handle:
        await until(backend, handle, lambda status: status.state is State.RUNNING)
        assert (await shows.find("cluster")).links == {"Page": page}
        await (await shows.connect(handle, page)).close()
    with pytest.raises(BackendError, match=r"may not list jobs\.batch, watch jobs\.batch"):
        await shows.check()


async def test_a_user_who_may_not_forward_ports_runs_jobs_and_sees_no_dashboard(
    backend: KubernetesBackend, grant: Callable[..., Access]
) -> None:
    runs = replace(backend, access=grant("practicus", without="pods/portforward"))
    assert (await runs.check()).endswith(
        "; it may not get pods/portforward or create pods/portforward, so dashboards do not open"
    )
    async with created(runs, "cluster", plan(page_role(), decides=None)) as handle:
        await until(runs, handle, lambda status: status.state is State.RUNNING)
        with pytest.raises(BackendError, match=r"Kubernetes forbids it \(403: pods/cluster-0-.*/portforward answers"):
            await runs.connect(handle, Port("coordinator", "page"))


# ---- frameworks

DASK = """
import time, practicus_runtime as pr
client = pr.get_client()
client.wait_for_workers(1, timeout=120)
futures = client.map(lambda i: time.sleep(1) or i * i, range(30))
deadline = time.monotonic() + 120
most = 1
while most < 4 and time.monotonic() < deadline:
    most = max(most, len(client.nthreads()))
    time.sleep(0.1)
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
    small = Resources(cpu="200m", memory="512Mi")
    spec = JobSpec(
        adapter="dask",
        workers=Elastic(1, 4),
        image=image("dask"),
        worker_resources=small,
        coordinator_resources=small,
        **REQUIRED,
    )
    _, result = await follow(roomy, spec, DASK, wheel(tmp_path, "greeting", "HELLO = 'hello'\n"))
    assert result == {"most": 4, "left": 1, "total": True, "hello": "hello"}
    await nothing_left(left)


async def test_spark_executors_are_pods_that_spark_makes(
    roomy: KubernetesBackend, image: Callable[[str], str], left: Callable[[], list[str]], tmp_path: Path
) -> None:
    small = Resources(cpu="500m", memory="1Gi")
    spec = JobSpec(
        adapter="spark",
        workers=2,
        image=image("spark"),
        worker_resources=small,
        coordinator_resources=small,
        **REQUIRED,
    )
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
    small = Resources(cpu="500m", memory="1Gi")
    spec = JobSpec(
        adapter="spark",
        workers=Elastic(1, 4),
        image=image("spark"),
        worker_resources=small,
        coordinator_resources=small,
        conf={"spark.dynamicAllocation.executorIdleTimeout": "3s"},
    )
    _, result = await follow(roomy, spec, SPARK_LOAD)
    assert result == {"most": 4, "left": 1, "sum": 28}
    await nothing_left(left)


# ---- what the page Clusters shows


async def test_who_only_shows_clusters_needs_only_the_rights_that_the_documentation_says(
    backend: KubernetesBackend, grant: Callable[..., Access]
) -> None:
    shows = replace(backend, access=grant("practicus-page"))
    async with created(backend, "cluster", plan(role("driver", "print('here')"))) as handle:
        lines = [line async for line in shows.logs(handle, ["driver-0"], whole=True)]
        assert [line.text for line in lines] == ["here"]
        assert [listing.handle for listing in await shows.list()] == [handle]
        assert await shows.usage() is None
        await shows.delete(handle, wait=False)


async def test_what_pods_use_is_what_the_metrics_api_says(
    backend: KubernetesBackend, kubectl: Callable[..., str]
) -> None:
    """Stands in for metrics-server: the same path, kinds and labels, by a custom resource."""
    assert await backend.usage() is None
    kubectl("apply", "-f", "-", stdin=json.dumps(POD_METRICS))
    try:
        kubectl("wait", "--for=condition=Established", "crd/pods.metrics.k8s.io")
        names = {"name": "c-worker-2-x", "namespace": backend.site.namespace}
        labels = {**MANAGED, CLUSTER: "c", ROLE: "worker", INDEX: "2"}
        measured = {"containers": [{"name": "main", "usage": {"cpu": "250m", "memory": "64Mi"}}]}
        for name, own in ((names, labels), ({**names, "name": "another-s"}, {})):
            item = {"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics", "metadata": {**name, "labels": own}}
            kubectl("apply", "-f", "-", stdin=json.dumps({**item, **measured}))
        assert await backend.usage() == {"c": {"worker-2": Usage(0.25, 64 * 2**20)}}
    finally:
        kubectl("delete", "crd", "pods.metrics.k8s.io")


POD_METRICS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "pods.metrics.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
    },
    "spec": {
        "group": "metrics.k8s.io",
        "scope": "Namespaced",
        "names": {"plural": "pods", "singular": "pod", "kind": "PodMetrics"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
