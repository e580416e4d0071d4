"""What a job on Kubernetes ends with, or waits for, and why."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator

import pytest

from practicus_provider import lifecycle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.lifecycle import Outcome, Policy
from practicus_provider.plan import Here, Launch, Role
from practicus_provider.runtime.practicus_runtime.contract import END_MARK
from practicus_provider.spec import JobSpec, Resources
from practicus_provider.status import Reason, State
from tests.kubernetes import Namespace
from tests.plans import PATIENCE, SLEEP, created, end, plan, role, until, verdict_of
from tests.said import Said

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


async def test_a_replica_that_takes_too_much_memory_is_named_with_its_limit(backend: KubernetesBackend) -> None:
    spec = JobSpec.of(adapter="a user's own", worker_resources=Resources(cpu="100m", memory="64Mi"))
    hog = Role("mapper", Launch((Here.PYTHON, "-c", HOG)), resources=spec.worker_resources)
    verdict = await verdict_of(backend, plan(hog, role("driver", SLEEP)))
    assert (verdict.reason, verdict.replica) == (Reason.OOM_KILLED, "mapper-0")
    assert (verdict.message, verdict.argument) == ("mapper-0 was OOM-killed at 64Mi", "worker_resources")
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
    gone = plan(role("driver", SLEEP), image=f"{address}/nothing:1", pod_overrides=here)
    verdict = await verdict_of(backend, gone)
    assert verdict.reason is Reason.IMAGE_PULL_FAILED
    assert verdict.message.startswith(f"driver-0 has no image {address}/nothing:1 to run: ")
    assert verdict.message.endswith(f"{address}/nothing:1: not found")


async def test_a_secret_that_is_not_there_is_said_at_once(backend: KubernetesBackend) -> None:
    job = plan(role("driver", SLEEP), secrets={"TOKEN": "no-such-secret/token"})
    verdict = await verdict_of(backend, job)
    assert verdict.reason is Reason.CONFIG_ERROR
    assert re.fullmatch('driver-0 cannot start: secrets? "no-such-secret" not found', verdict.message)


async def test_a_secret_reaches_the_application_by_reference(
    backend: KubernetesBackend, namespace: Namespace, kubectl: Callable[..., str]
) -> None:
    kubectl("create", "secret", "generic", "s3", "--from-literal=token=s3cr3t-value", "-n", namespace.name)
    code = "import os, practicus_runtime as p; p.set_result(len(os.environ['TOKEN']) == 12)"
    job = plan(role("driver", code), secrets={"TOKEN": "s3/token"})
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
        said = Said()
        outcome = await lifecycle.follow(backend, handle, Policy(time.time() + 2, ()), said)
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
