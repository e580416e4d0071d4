"""What a cluster does to pods: nodes that are drained or lost, pods that are preempted or vanish."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.labels import CLUSTER, ROLE
from practicus_provider.status import Reason, State, Verdict
from tests.cluster.cluster import Cluster
from tests.kubernetes import Namespace
from tests.plans import SLEEP, created, plan, role, until

pytestmark = pytest.mark.cluster

SLOT = "practicus.test/slot"
"""A resource of which a node has one, so that a test preempts its own pod and nobody else's."""
SERVED = plan(role("worker", SLEEP, replicas=2), role("driver", SLEEP))


@contextlib.asynccontextmanager
async def verdict_after(backend: KubernetesBackend, handle: Handle, within: float = 20) -> AsyncIterator[list[Verdict]]:
    """Watch a cluster that runs while something happens to it; holds its verdict afterwards."""
    await until(backend, handle, lambda status: status.state is State.RUNNING)
    found: list[Verdict] = []

    async def watch() -> None:
        async with contextlib.aclosing(backend.watch(handle)) as statuses:
            async for status in statuses:
                found.extend([status.verdict] if status.verdict else [])

    watching = asyncio.create_task(watch())
    try:
        yield found
        async with asyncio.timeout(within):
            await watching
    finally:
        watching.cancel()


def on(node: str, **spec: Any) -> dict[str, Any]:
    """Changes to pods that bind them to a node."""
    return {"spec": {"nodeSelector": {"kubernetes.io/hostname": node}, **spec}}


# ---- pods


@pytest.mark.parametrize("victim", ["worker", "driver"])
async def test_a_replica_whose_pod_is_removed_by_force_is_lost(
    backend: KubernetesBackend, namespace: Namespace, kubectl: Callable[..., str], victim: str
) -> None:
    async with created(backend, "job", SERVED) as handle, verdict_after(backend, handle) as found:
        pods = namespace.core.list_namespaced_pod(namespace.name, label_selector=f"{ROLE}={victim}").items
        last = max(pod.metadata.name for pod in pods)
        kubectl("delete", "pod", last, "-n", namespace.name, "--force", "--grace-period=0")
    (verdict,) = found
    assert (verdict.state, verdict.reason) == (State.FAILED, Reason.REPLICA_LOST)
    assert verdict.message.endswith(" is gone without a trace: its pod was removed by force, or with its node")
    assert victim in verdict.message


@pytest.fixture
def slot(kubectl: Callable[..., str]) -> Iterator[str]:
    """The node that has the slot."""
    node = kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    path = f"/status/capacity/{SLOT.replace('/', '~1')}"

    def change(**operation: str) -> None:
        kubectl(
            *("patch", "node", node, "--subresource=status", "--type=json"),
            *("-p", json.dumps([{"path": path, **operation}])),
        )

    change(op="add", value="1")
    kubectl("create", "priorityclass", "practicus-test-first", "--value=1000")
    yield node
    kubectl("delete", "priorityclass", "practicus-test-first")
    change(op="remove")


async def test_a_pod_that_is_preempted_is_told_so(
    backend: KubernetesBackend, namespace: Namespace, slot: str, image: Callable[[str], str]
) -> None:
    takes = {"requests": {SLOT: "1"}, "limits": {SLOT: "1"}}
    overrides = on(slot, containers=[{"name": "main", "resources": takes}])
    async with (
        created(backend, "job", plan(role("driver", SLEEP), pod_overrides=overrides)) as handle,
        verdict_after(backend, handle) as found,
    ):
        (pod,) = namespace.core.list_namespaced_pod(namespace.name).items
        spec = pod.spec.containers[0].security_context
        first = {
            "metadata": {"name": "first"},
            "spec": {
                "priorityClassName": "practicus-test-first",
                "terminationGracePeriodSeconds": 0,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "main",
                        "image": image("python"),
                        "command": ["sleep", "600"],
                        "resources": takes,
                        "securityContext": spec,
                    }
                ],
            },
        }
        namespace.core.create_namespaced_pod(namespace.name, first)
    (verdict,) = found
    assert (verdict.reason, verdict.replica) == (Reason.PREEMPTED, "driver-0")
    assert verdict.message.startswith("driver-0 was preempted: default-scheduler: preempting to accommodate")


# ---- nodes


async def test_a_node_that_is_drained_evicts_its_replicas(
    backend: KubernetesBackend, namespace: Namespace, machines: Cluster, kubectl: Callable[..., str]
) -> None:
    try:
        async with (
            created(backend, "job", plan(role("driver", SLEEP), pod_overrides=on("node2"))) as handle,
            verdict_after(backend, handle) as found,
        ):
            only = ("--delete-emptydir-data", f"--pod-selector={CLUSTER}={handle.name}")
            await asyncio.to_thread(kubectl, "drain", "node2", *only, "--timeout=30s")
    finally:
        kubectl("uncordon", "node2")
    (verdict,) = found
    assert (verdict.reason, verdict.replica) == (Reason.EVICTED, "driver-0")
    assert verdict.message.startswith("driver-0 was taken off its node node2 (EvictionByEvictionAPI): ")


async def test_a_node_that_is_lost_ends_the_jobs_that_need_it_and_their_retries_run_elsewhere(
    backend: KubernetesBackend, machines: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["practicus_provider.backends.kubernetes.pod_template"], "NODE_LOST", 2)
    other = plan(role("driver", SLEEP), pod_overrides=on("node1"))
    async with created(backend, "job", plan(role("driver", SLEEP), pod_overrides=on("node2"))) as first:
        async with created(backend, "other", other) as bystander:
            async with verdict_after(backend, first, 60) as found:
                machines.machine("node2").kill()
            await until(backend, bystander, lambda status: status.state is State.RUNNING)
        (verdict,) = found
        words = "driver-0 was lost with node2, which does not answer"
        assert (verdict.reason, verdict.replica, verdict.message) == (Reason.NODE_LOST, "driver-0", words)
        async with created(backend, "job", other) as second:
            assert second.uid != first.uid
            await until(backend, second, lambda status: status.state is State.RUNNING)
