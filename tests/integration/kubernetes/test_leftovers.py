"""Names that are taken, and what a cluster leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.errors import BackendError
from practicus_provider.spec import Elastic
from practicus_provider.status import State
from tests.kubernetes import Namespace
from tests.plans import SLEEP, TASK, end, plan, role


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
