"""A job that loses its place starts anew from its checkpoint, without a try of the task's."""

from __future__ import annotations

import asyncio
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import TaskDeferred
from airflow.triggers.base import BaseTrigger, TaskSuccessEvent, TriggerEvent

from practicus_provider import lifecycle
from practicus_provider.backends.local import LocalBackend
from practicus_provider.errors import JobFailed
from practicus_provider.operators import base
from practicus_provider.operators.torch import PracticusTorchOperator
from practicus_provider.spec import Volume
from practicus_provider.status import Reason
from tests.kubernetes import MAIN, Namespace, claimed, pods
from tests.plans import PATIENCE

JOB = """
import os, signal, sys, time
import practicus_runtime as pr

me = pr.context()
path = os.path.join(me.checkpoint_dir, "done")
done = int(open(path).read()) if os.path.exists(path) else 0

def save(*_):
    with open(path, "w") as file:
        file.write(str(done))
    sys.exit(int(sys.argv[2]))

signal.signal(signal.SIGTERM, save)
print("attempt", me.attempt, flush=True)
if me.attempt <= int(sys.argv[1]):
    done += 5
    if sys.argv[2] != "0":
        save()
    print("waits for its eviction", flush=True)
    time.sleep(600)
pr.set_result([me.attempt, me.try_number, done])
"""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PracticusTorchOperator]:
    """Makes a task whose job loses its place in its first attempts: by eviction, or, where it ends with a code, so."""
    monkeypatch.setattr(base, "trigger_may_end_task", lambda operator: True)
    (tmp_path / "job.py").write_text(JOB)

    def job(extra: dict[str, Any], lost: int = 1, code: int = 0, **more: Any) -> PracticusTorchOperator:
        connection = {"conn_type": "practicus", "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_THERE", json.dumps(connection))
        with DAG("sales"):
            return PracticusTorchOperator(
                task_id="t",
                application=str(tmp_path / "job.py"),
                application_args=[str(lost), str(code)],
                volumes=[Volume(path="/data", claim="data")],
                practicus_conn_id="there",
                **more,
            )

    return job


class Task:
    """Runs an operator to its end as Airflow would: on a worker, in a triggerer while it is deferred, and so on.

    :ivar pushed: its XComs.
    :ivar deferrals: how often it was deferred.
    """

    def __init__(self, operator: PracticusTorchOperator) -> None:
        self.operator = operator
        self.pushed: list[tuple[str, Any]] = []
        self.deferrals = 0
        names = {"dag_id": "sales", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, "max_tries": 0}
        push = lambda key, value: self.pushed.append((key, value))  # noqa: E731
        self.context: Any = {"ti": SimpleNamespace(**names, task=SimpleNamespace(retries=0), xcom_push=push)}

    def run(self) -> Any:
        """The result; "ended" where the triggerer has ended the task."""
        step: Callable[[], Any] = functools.partial(self.operator.execute, self.context)
        while True:
            try:
                return step()
            except TaskDeferred as deferral:
                self.deferrals += 1
                event = asyncio.run(_event(deferral.trigger))
            if isinstance(event, TaskSuccessEvent):
                return "ended"
            assert type(event) is TriggerEvent
            payload = json.loads(json.dumps(event.payload))
            step = functools.partial(self.operator.execute_complete, self.context, event=payload)

    @property
    def clusters(self) -> list[str]:
        """The uids of those that it has had."""
        return [value["uid"] for key, value in self.pushed if key == "cluster"]


async def _event(trigger: BaseTrigger) -> TriggerEvent:
    async with asyncio.timeout(2 * PATIENCE):
        (event,) = [event async for event in trigger.run()]
    return event


@pytest.mark.parametrize(("deferrable", "result"), [(False, [3, 1, 10]), (True, "ended")])
def test_a_job_starts_anew_as_often_as_it_may_and_nothing_is_left(job, tmp_path, monkeypatch, deferrable, result):
    """Nobody takes a process of this machine away, so here an error counts as a preemption."""
    monkeypatch.setattr(lifecycle, "PREEMPTIONS", {Reason.ERROR})
    extra = {"backend": "local", "root": str(tmp_path / "root")}
    task = Task(job(extra, lost=2, code=3, preemption_retries=2, deferrable=deferrable))
    assert task.run() == result
    assert (len(set(task.clusters)), task.deferrals) == (3, 3 if deferrable else 0)
    assert asyncio.run(LocalBackend(tmp_path / "root").list()) == []
    with pytest.raises(JobFailed, match="exited with code 3"):
        Task(job(extra, lost=2, code=3, preemption_retries=1)).run()
    assert asyncio.run(LocalBackend(tmp_path / "root").list()) == []


async def test_an_evicted_job_goes_on_from_what_it_saved(
    namespace: Namespace,
    image: Callable[[str], str],
    kubectl: Callable[..., str],
    machines: object,
    tmp_path: Path,
    job: Callable[..., PracticusTorchOperator],
) -> None:
    extra = {"kubeconfig": namespace.kubeconfig, "namespace": namespace.name, "image": image("python")}
    extra["pod_overrides"] = {"spec": {"containers": [MAIN]}}
    (tmp_path / "data").mkdir()
    with claimed(namespace, kubectl, tmp_path / "data"):
        task = Task(job(extra, preemption_retries=1))
        running = asyncio.create_task(asyncio.to_thread(task.run))
        await asyncio.to_thread(_evict_when_it_waits, namespace)
        assert await running == [2, 1, 5]
    assert len(set(task.clusters)) == 2
    async with asyncio.timeout(PATIENCE):
        while await pods(namespace, image("python")).list():
            await asyncio.sleep(0.3)


def _evict_when_it_waits(namespace: Namespace) -> None:
    give_up = time.monotonic() + PATIENCE
    while time.monotonic() < give_up:
        for pod in namespace.core.list_namespaced_pod(namespace.name).items:
            if pod.status.phase == "Running":
                log = namespace.core.read_namespaced_pod_log(pod.metadata.name, namespace.name)
                if "waits for its eviction" in log:
                    eviction = {"metadata": {"name": pod.metadata.name}}
                    namespace.core.create_namespaced_pod_eviction(pod.metadata.name, namespace.name, eviction)
                    return
        time.sleep(0.3)
    raise AssertionError("no pod has waited")
