"""The trigger that does the whole rest of a deferred task."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.triggers.base import BaseTrigger, TaskFailedEvent, TaskSuccessEvent, TriggerEvent

from practicus_provider import compat, lifecycle, metrics
from practicus_provider.backends.base import Handle
from practicus_provider.hooks.practicus import PracticusHook
from practicus_provider.lifecycle import Outcome, Policy
from practicus_provider.pricing import COST_KEY
from practicus_provider.status import Reason, State
from practicus_provider.tasklog import OUT_OF_GROUPS, into

RESUMES_AFTER = 10.0
"""Seconds for which a task has to be deferred before it resumes. Airflow's scheduler takes the end of the process that
deferred it, where it hears of that late, for the end of the one that it runs in by then, and fails it or tries it again
(``SchedulerJobRunner.process_executor_events``; https://github.com/apache/airflow/issues/72716)."""
CANCELLED_WITHIN = 5.0
"""Seconds after a cluster's deletion in which a triggerer should have heard that the task was cleared, and so cancelled
its trigger: the next try deletes the cluster, and what the old one's trigger sees is no error of anybody's."""
OUTCOME_KEY = "outcome"
"""Of the XCom in which a trigger keeps an outcome."""

_kills: set[asyncio.Task[None]] = set()
"""Nothing else refers to them while they run."""


class PracticusJobTrigger(BaseTrigger):
    """Follows a cluster: streams its log, forms the verdict, tears it down, and ends the task.

    :param practicus_conn_id: connection to where it runs.
    :param cluster: the handle as JSON.
    :param policy: :class:`~practicus_provider.lifecycle.Policy` as JSON.
    :param ends_task: whether the event ends the task; else the task resumes on a worker with the outcome.
    :param push_result: whether the job's result becomes the XCom of a task that ends here.
    :param namespace: of its pods on Kubernetes; None: the connection's.
    """

    def __init__(
        self,
        practicus_conn_id: str,
        cluster: dict[str, str],
        policy: dict[str, Any],
        ends_task: bool = False,
        push_result: bool = True,
        namespace: str | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.practicus_conn_id = practicus_conn_id
        self.cluster = cluster
        self.policy = policy
        self.ends_task = ends_task
        self.push_result = push_result
        self.namespace = namespace

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Airflow's contract."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {
            "practicus_conn_id": self.practicus_conn_id,
            "cluster": self.cluster,
            "policy": self.policy,
            "ends_task": self.ends_task,
            "push_result": self.push_result,
            "namespace": self.namespace,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: the outcome."""
        began = time.monotonic()
        # The worker has begun a group for what follows its deferral, and Airflow merges both logs by time.
        self.log.info(OUT_OF_GROUPS)
        backend = await PracticusHook(self.practicus_conn_id, self.namespace).aget_conn()
        policy = Policy.from_json(self.policy)
        try:
            outcome = await lifecycle.follow(backend, Handle(**self.cluster), policy, into(self.log), self)
        except asyncio.CancelledError:
            if not compat.triggers_are_killed() and self.policy["teardown"] is not None:
                await asyncio.wait((self._killing(),), timeout=compat.STOPS_WITHIN)
            raise
        metrics.ended(outcome, policy, backend)
        if outcome.verdict.reason is Reason.DELETED:
            await asyncio.sleep(CANCELLED_WITHIN)
        ends_task = self.ends_task and outcome.next_attempt is None and await self._push(self._xcoms(outcome))
        if ends_task and outcome.verdict.state is not State.SUCCEEDED:  # else Airflow logs it on a worker
            self.log.error(outcome.verdict.text())
        if not ends_task:
            await asyncio.sleep(began + RESUMES_AFTER - time.monotonic())
        yield event_of(outcome, ends_task=ends_task)

    async def keep(self, outcome: Outcome) -> None:
        """As an XCom: a triggerer may die after the cluster is gone and before Airflow has the event."""
        wanted = self.push_result or not self.ends_task
        told = outcome if wanted else replace(outcome, result=None)
        await self._push({OUTCOME_KEY: {"cluster": self.cluster, "outcome": told.to_json()}})

    async def kept(self) -> Outcome | None:
        """What an earlier triggerer has kept of this cluster."""
        if self.task_instance is None:
            return None
        try:
            found = await compat.get_xcom(OUTCOME_KEY, **self._task)
        except AirflowRuntimeError as error:
            self.log.warning("whether the outcome was known already cannot be read: %s", error)
            return None
        return Outcome.from_json(found["outcome"]) if found and found["cluster"] == self.cluster else None

    async def on_kill(self) -> None:
        """The user marked or cleared the deferred task: its cluster goes, unless it is another task's.

        The triggerer cancels this again at each of its next heartbeats, until it has ended (Airflow 3.3,
        ``TriggerRunnerSupervisor.cancelling_triggers``). So this is a task of its own, which goes on.
        """
        if self.policy["teardown"] is not None:
            await asyncio.shield(self._killing())

    def _killing(self) -> asyncio.Task[None]:
        killing = asyncio.create_task(self._kill())
        _kills.add(killing)
        killing.add_done_callback(_kills.discard)
        return killing

    async def _kill(self) -> None:
        why = await self._why_killed()
        if why is None:
            return
        handle, policy = Handle(**self.cluster), Policy.from_json(self.policy)
        try:
            backend = await PracticusHook(self.practicus_conn_id, self.namespace).aget_conn()
            outcome = await lifecycle.kill(backend, handle, policy, why, into(self.log))
        except Exception as error:  # who waited for this may be gone, and the error with it
            words = str(error) or repr(error)
            self.log.error("%s, but its cluster %s could not be removed: %s", why, handle.name, words)
            return
        metrics.ended(outcome, policy, backend)
        await self._push({COST_KEY: outcome.cost} if outcome.cost else {})

    async def _why_killed(self) -> str | None:
        """What became of the task, as a sentence; None: it waits, so another triggerer follows its cluster, or will.

        An Airflow without ``on_kill`` cancels triggers as a triggerer stops, too: there the task's state alone tells.
        """
        if compat.triggers_are_killed():
            return "its task was marked or cleared"
        try:
            state = await compat.task_state(**self._task)
        except Exception as error:  # it may be shutting down, in one of many ways
            self.log.warning("whether the task waits on cannot be read, so its cluster stays: %r", error)
            return None
        if state == compat.DEFERRED:
            self.log.info("the task waits on: its cluster stays, for the next triggerer")
            return None
        return f"its task waits for it no longer, and is {state or 'cleared'} now"

    def _xcoms(self, outcome: Outcome) -> dict[str, Any]:
        """Key -> value of what a task that ends here leaves."""
        succeeded = self.push_result and outcome.verdict.state is State.SUCCEEDED
        xcoms = {"return_value": outcome.value() if succeeded else None, COST_KEY: outcome.cost}
        return {key: value for key, value in xcoms.items() if value is not None}

    async def _push(self, xcoms: Mapping[str, Any]) -> bool:
        """They become the task's XComs; False where a worker has to see to it.

        Airflow 3.3 would store an event's own ``xcoms`` encoded twice (``airflow.models.xcom``, ``XComModel.set``), and
        without the XCom backend that is configured. Its triggerer stores none of a DAG or task whose id is not ASCII.
        """
        if self.task_instance is None:
            return True
        try:
            for key, value in xcoms.items():
                await compat.set_xcom(key, value, **self._task)
        except Exception as error:  # whatever it is, how the job ended is known
            self.log.warning("the triggerer could not store %s: %s", " and ".join(xcoms), error)
            return False
        return True

    @property
    def _task(self) -> dict[str, Any]:
        """The task instance, as XComs name it."""
        ti = self.task_instance
        assert ti is not None
        map_index = -1 if ti.map_index is None else ti.map_index
        return {"dag_id": ti.dag_id, "task_id": ti.task_id, "run_id": ti.run_id, "map_index": map_index}


def event_of(outcome: Outcome, *, ends_task: bool) -> TriggerEvent:
    """The event that ends the task, or that has it resume with the outcome."""
    if not ends_task:
        return TriggerEvent(outcome.to_json())  # type: ignore[no-untyped-call]
    return TaskSuccessEvent() if outcome.verdict.state is State.SUCCEEDED else TaskFailedEvent()
