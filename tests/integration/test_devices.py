"""Jobs whose workers ask for devices that few nodes have: where they run, what they are given, what they wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.labels import ROLE
from practicus_provider.plan import Here, Plan
from practicus_provider.spec import JobSpec, Resources, WorkerGroup
from practicus_provider.status import Reason, State
from tests.cluster.cluster import Cluster
from tests.cluster.devices import GIVEN, device_plugin
from tests.kubernetes import Namespace, pods
from tests.plans import created, end, read, until

GPU = "practicus.test/gpu"
DEVICES = ("gpu-0", "gpu-1")
NODE = "node2"
"""The one that has any."""
TELL = f"""
import os
print(os.environ["RANK"], "of", os.environ["WORLD_SIZE"], os.environ.get("{GIVEN}", "none"))
"""


@pytest.fixture(scope="module")
def offer(cluster: Cluster, kubectl: Callable[..., str]) -> Iterator[Callable[..., None]]:
    """Has a node offer two devices, of which some may be unhealthy, and waits until the scheduler may know."""
    machine = cluster.machine(NODE)

    def offered(*unhealthy: str) -> None:
        machine.ensure(device_plugin(GPU, DEVICES, unhealthy))
        path = "{.status.allocatable.practicus\\.test/gpu}"
        number = len(DEVICES) - len(unhealthy)
        kubectl("wait", f"--for=jsonpath={path}={number}", f"node/{NODE}", "--timeout=30s")

    yield offered
    machine.end(device_plugin(GPU, DEVICES).name)


@pytest.fixture
def backend(namespace: Namespace, image: Callable[[str], str]) -> KubernetesBackend:
    return pods(namespace, image("python"))


def with_gpus(number: int) -> Resources:
    return Resources(memory="128Mi", extra={GPU: number})


def job(workers: Any, **spec: Any) -> Plan:
    program = (Here.PYTHON, (Here.APP, "/job.py"))
    return make_plan(JobSpec.of(adapter="torch", workers=workers, **spec), program, {"job.py": TELL.encode()})


async def test_devices_that_no_node_has_enough_of_are_waited_for_and_told_with_what_there_is(
    offer: Callable[..., None], backend: KubernetesBackend
) -> None:
    offer("gpu-1")
    async with created(backend, "job", job(1, worker_resources=with_gpus(2))) as handle:
        status = await until(backend, handle, lambda status: "Insufficient" in status.summary())
        words = f"Insufficient {GPU}. It asks for cpu 10m, memory 128Mi, {GPU} 2. The largest node has {GPU} 1.)"
        assert (status.state, status.summary().endswith(words)) == (State.PENDING, True), status.summary()
        offer()
        status = await end(backend, handle)
        (line,) = await read(backend, handle, "worker")
    assert status.state is State.SUCCEEDED
    assert set(line.text.split()[-1].split(",")) == {"gpu-0", "gpu-1"}


async def test_unlike_workers_run_where_their_devices_are_and_none_is_given_twice(
    offer: Callable[..., None], backend: KubernetesBackend, namespace: Namespace
) -> None:
    offer()
    elsewhere = {"kubernetes.io/hostname": "node1"}
    groups = (WorkerGroup(2, with_gpus(1)), WorkerGroup(2, Resources(memory="128Mi"), node_selector=elsewhere))
    async with created(backend, "job", job(groups)) as handle:
        status = await end(backend, handle)
        lines = sorted(await read(backend, handle, "worker", "worker2"), key=lambda line: (line.role, line.index))
        found = namespace.core.list_namespaced_pod(namespace.name).items
    assert status.state is State.SUCCEEDED
    placed = sorted((pod.metadata.labels[ROLE], pod.spec.node_name) for pod in found)
    assert placed == [("worker", NODE), ("worker", NODE), ("worker2", "node1"), ("worker2", "node1")]
    ranks, devices = zip(*(line.text.rsplit(" ", 1) for line in lines), strict=True)
    assert ranks == tuple(f"[rank {rank}] {rank} of 4" for rank in range(4))
    assert (set(devices[:2]), devices[2:]) == ({"gpu-0", "gpu-1"}, ("none", "none"))


async def test_a_worker_that_its_node_refuses_is_told_so(
    offer: Callable[..., None], backend: KubernetesBackend
) -> None:
    """As where a device has failed, and the scheduler does not know yet; here it is not asked."""
    offer()
    here = {"spec": {"nodeName": NODE}}
    async with created(backend, "job", job(1, worker_resources=with_gpus(3), pod_overrides=here)) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert (verdict.reason, verdict.replica) == (Reason.EVICTED, "worker-0")
    assert verdict.message.startswith(f"worker-0 was refused by its node {NODE} (UnexpectedAdmissionError): ")
    assert "Requested: 3, Available: 2" in verdict.message
