"""Credentials that end while a job runs, as those of clouds do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from practicus_provider import lifecycle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.lifecycle import Outcome, Policy
from practicus_provider.status import State
from practicus_provider.triggers.job import PracticusJobTrigger
from tests.gate import Gate, gated
from tests.plans import PATIENCE, TASK, plan, role
from tests.said import Said

pytestmark = pytest.mark.cluster

LIFE = 4
"""Seconds that a token lives."""
WORK = """
import sys, time, practicus_runtime as p
for second in range(int(sys.argv[1])):
    print(second, flush=True)
    time.sleep(1)
p.set_result('done')
"""


@pytest.fixture
async def gate(kubernetes: Path, tmp_path: Path) -> AsyncIterator[Gate]:
    async with gated(str(kubernetes), tmp_path, LIFE) as gate:
        yield gate


@pytest.fixture
def backend(direct: KubernetesBackend, gate: Gate) -> KubernetesBackend:
    """The same place, through the gate."""
    return replace(direct, access=Access(inline=gate.kubeconfig))


def policy(lease: float | None = None) -> Policy:
    return Policy(time.time() + PATIENCE, ("driver",), lease=lease)


async def test_a_job_that_outlives_many_credentials_ends_well_deferred_and_not_and_nothing_is_left(
    backend: KubernetesBackend,
    direct: KubernetesBackend,
    gate: Gate,
    left: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    extra = {"kubeconfig_secret": gate.kubeconfig, "namespace": backend.site.namespace}
    monkeypatch.setenv("AIRFLOW_CONN_THERE", json.dumps({"conn_type": "practicus", "extra": extra}))
    job, said = plan(role("driver", WORK, str(4 * LIFE))), Said()
    followed, deferred = [await backend.create(name, job, task=TASK) for name in ("followed", "deferred")]
    trigger = PracticusJobTrigger("there", deferred.to_json(), policy().to_json())
    async with asyncio.timeout(2 * PATIENCE):
        outcome, event = await asyncio.gather(
            lifecycle.follow(backend, followed, policy(lease=0.0), said),  # as short a lease as there is
            anext(trigger.run()),
        )
        for each in (outcome, Outcome.from_json(event.payload)):
            assert (each.verdict.state, each.result) == (State.SUCCEEDED, '"done"'), each.verdict.text()
        assert [line for line in said if line.isdecimal()] == [str(second) for second in range(4 * LIFE)]
        assert len(gate.tokens) >= 3
        while await direct.list() or left():
            await asyncio.sleep(0.2)


async def test_a_success_stands_though_its_cluster_cannot_be_removed_as_the_plugin_is_gone(
    backend: KubernetesBackend, direct: KubernetesBackend, gate: Gate
) -> None:
    said = Said()
    handle = await backend.create("job", plan(role("driver", WORK, str(2 * LIFE))), task=TASK)
    following = asyncio.create_task(lifecycle.follow(backend, handle, policy(), said))
    async with asyncio.timeout(PATIENCE):
        while "1" not in said:
            await asyncio.sleep(0.05)
        gate.plugin.unlink()
        outcome = await following
    assert (outcome.verdict.state, outcome.result) == (State.SUCCEEDED, '"done"'), outcome.verdict.text()
    assert [line for line in said if line.isdecimal()] == [str(second) for second in range(2 * LIFE)]
    assert said[-1] == (
        "cluster job is left, and goes by itself some time after its end or its timeout: the kubeconfig's exec plugin "
        f"'{gate.plugin}' cannot be run: No such file or directory."
    )
    [kept] = await direct.list()
    assert kept.handle == handle
    await direct.delete(handle)
