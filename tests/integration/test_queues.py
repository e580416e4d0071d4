"""What decides when and where pods run: a queue that holds the root, somebody who suspends it, priorities."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from practicus_provider import lifecycle
from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.lifecycle import Outcome, Policy
from practicus_provider.spec import Elastic
from practicus_provider.status import Reason, State, Status, Verdict
from tests.kubernetes import Namespace, pods
from tests.plans import SLEEP, asking, created, end, plan, role, until

PRIORITY = "practicus-test-low"


@pytest.fixture
def backend(namespace: Namespace, image: Callable[[str], str]) -> KubernetesBackend:
    return pods(namespace, image("python"))


@pytest.fixture
def suspend(namespace: Namespace, kubectl: Callable[..., str]) -> Callable[[Handle, bool], None]:
    """What Kueue does to a root, and what a user may."""

    def patch(handle: Handle, suspend: bool) -> None:
        change = json.dumps({"spec": {"suspend": suspend}})
        kubectl("patch", "job", handle.name, "-n", namespace.name, "--type=merge", "-p", change)

    return patch


def waits(backend: KubernetesBackend, handle: Handle, why: str) -> Any:
    return until(backend, handle, lambda status: status.summary() == f"pending: worker 2 pending ({why})")


def runs(status: Status) -> bool:
    return status.state is State.RUNNING


async def test_a_job_in_a_queue_waits_for_it_and_survives_that_it_is_sent_back(
    backend: KubernetesBackend, suspend: Callable[[Handle, bool], None]
) -> None:
    job = plan(role("worker", SLEEP, replicas=2), decides="worker", queue_name="team-a")
    async with created(backend, "job", job) as handle:
        await waits(backend, handle, "queued in team-a")
        policy = Policy(start_deadline=time.time() + 1, streamed=("worker",), teardown=None)
        assert await lifecycle.follow(backend, handle, policy, print) == Outcome(
            Verdict(
                State.FAILED,
                Reason.START_TIMEOUT,
                "not all replicas that must run did in time; pending: worker 2 pending (queued in team-a)",
                "Raise start_timeout=, or look at the log of a replica that is pending.",
            )
        )
        suspend(handle, False)
        await until(backend, handle, runs)
        suspend(handle, True)
        await waits(backend, handle, "queued in team-a")
        assert await backend.create("job", job, task=(await backend.find("job")).task) == handle
        suspend(handle, False)
        await until(backend, handle, runs)


async def test_a_job_that_somebody_suspends_while_it_runs_says_so_and_ends_well_after_it(
    backend: KubernetesBackend, suspend: Callable[[Handle, bool], None]
) -> None:
    job = plan(role("worker", "import time; time.sleep(4)", replicas=2), decides="worker")
    async with created(backend, "job", job) as handle:
        await until(backend, handle, runs)
        suspend(handle, True)
        await waits(backend, handle, "suspended, not by us: suspend of Job job is true")
        suspend(handle, False)
        assert (await end(backend, handle)).state is State.SUCCEEDED


@pytest.fixture
def low(kubectl: Callable[..., str]) -> Iterator[str]:
    """A PriorityClass."""
    kubectl("create", "priorityclass", PRIORITY, "--value=-5")
    yield PRIORITY
    kubectl("delete", "priorityclass", PRIORITY)


async def test_pods_of_every_role_have_the_priority_that_the_job_asks_for(
    backend: KubernetesBackend, namespace: Namespace, low: str
) -> None:
    roles = (asking("worker", 2), role("worker", SLEEP, elastic=Elastic(1, 2)))
    async with created(backend, "job", plan(*roles, priority_class=low)) as handle:
        await until(backend, handle, lambda status: len(status.replicas) == 3 and runs(status))
        found = namespace.core.list_namespaced_pod(namespace.name).items
        assert [pod.spec.priority for pod in found] == [-5, -5, -5]


async def test_a_priority_that_there_is_none_of_is_said(backend: KubernetesBackend) -> None:
    async with created(backend, "job", plan(role("driver", SLEEP), priority_class="gone")) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert verdict.reason is Reason.CONFIG_ERROR
    assert "no PriorityClass with name gone was found" in verdict.message
