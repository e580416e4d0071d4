"""What every operator that waits for a cluster shares: launch, then follow here or in the triggerer, then finish.

A DAG file imports operators on every parse, so what only a running task needs is imported when it runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from abc import abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator, BaseOperatorLink

from practicus_provider import compat
from practicus_provider.compat import conf
from practicus_provider.errors import PracticusError, SpecError
from practicus_provider.hooks.practicus import PracticusHook
from practicus_provider.links import (
    PracticusClusterLink,
    PracticusDashboardLink,
    PracticusLogsLink,
    cluster_path,
    dashboard_path,
)
from practicus_provider.tasklog import NoFramesOfOurs, into

if TYPE_CHECKING:
    from airflow.sdk import Context

    from practicus_provider.backends.base import Backend, Handle, Listing
    from practicus_provider.lifecycle import Outcome, Policy
    from practicus_provider.names import TaskKey

LAST_TRY_LEASE = 5.0
"""Seconds that a cluster outlives its task's process where no further try could adopt it."""
RETRY_SLACK = 600.0
"""Seconds beyond the retry's delay that a cluster waits for the next try: queues, slow workers."""
CLUSTER_LINKS = (PracticusClusterLink(), PracticusLogsLink())
"""Buttons that each task with a cluster has."""


def default_deferrable() -> bool:
    """Airflow's ``[operators] default_deferrable``."""
    deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False)
    return deferrable


def task_key(context: Context) -> TaskKey:
    """What names the task instance, whatever its try."""
    from practicus_provider.names import TaskKey

    ti = context["ti"]
    return TaskKey(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index)


def task_facts(context: Context) -> dict[str, Any]:
    """What ``practicus_runtime.context()`` tells the application, and which cluster is this run's of the task."""
    key, when, ti = task_key(context), context.get("logical_date"), context["ti"]
    return {
        "dag_id": key.dag_id,
        "task_id": key.task_id,
        "run_id": key.run_id,
        "map_index": key.map_index,
        "try_number": ti.try_number,
        # Clearing adds to max_tries (airflow.models.taskinstance, clear_task_instances).
        "first_try": (ti.max_tries or 0) - (ti.task.retries or 0) + 1,
        "logical_date": when.isoformat() if when else None,
    }


class ClusterOperator(BaseOperator):
    """Launches a cluster (or a job on one) and follows it to the end.

    :param practicus_conn_id: the connection that says where it runs.
    :param namespace: of the pods on Kubernetes; None: the connection's. (templated)
    :param deferrable: wait in the triggerer, without a worker.
    """

    operator_extra_links: Collection[BaseOperatorLink] = (PracticusDashboardLink(), *CLUSTER_LINKS)
    ui_color = "#e8f4ea"

    def __init__(
        self,
        *,
        practicus_conn_id: str = PracticusHook.default_conn_name,
        namespace: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.practicus_conn_id = practicus_conn_id
        self.namespace = namespace
        self.deferrable = default_deferrable() if deferrable is None else deferrable
        self._running: tuple[Backend, Handle] | None = None
        self._attempt = 1
        self._outcome: Outcome | None = None
        self._spent: Mapping[str, float] = {}  # role -> replica-seconds of earlier attempts
        self.known_links: dict[str, str] | None = {}  # as :meth:`links` gives them; None: another process pushed them

    @property
    def hook(self) -> PracticusHook:
        """Where it runs."""
        return PracticusHook(self.practicus_conn_id, self.namespace)

    @abstractmethod
    async def launch(self, backend: Backend, context: Context) -> tuple[Handle, Policy]:
        """Create or adopt what this task follows."""

    def preview(self, backend: Backend, context: Context) -> Any:
        """What :meth:`launch` would have the backend create.

        :raises SpecError: that depends on what another task has made.
        """
        raise SpecError("task_id", self.task_id, "its cluster is another task's: look at that one")

    def links(self, cluster: Listing, dag_id: str) -> dict[str, str]:
        """Key of a button on the task's page -> where it leads; those that lead nowhere are not in it."""
        where = (dag_id, self.practicus_conn_id, cluster.handle.name)
        found = {
            PracticusClusterLink.key: cluster_path(*where, namespace=self.namespace),
            PracticusLogsLink.key: cluster_path(*where, namespace=self.namespace, logs=True),
        }
        if cluster.links:
            found[PracticusDashboardLink.key] = dashboard_path(*where, namespace=self.namespace)
        return found

    def finish(self, outcome: Outcome, context: Context) -> Any:
        """The task's XCom.

        :raises JobFailed: the outcome is not a success.
        """
        return outcome.value()

    def finishes_as_any(self) -> bool:
        """Whether :meth:`finish` does nothing of the operator's own, so that the trigger can do without it."""
        return type(self).finish is ClusterOperator.finish

    @NoFramesOfOurs()
    def execute(self, context: Context) -> Any:
        """Launch, then follow: here, or in the triggerer."""
        return self._run(context)

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Resumed by the trigger's event, where that could not end the task itself."""
        from practicus_provider.lifecycle import Outcome

        outcome = Outcome.from_json(event)
        return self._end(outcome, context) if outcome.next_attempt is None else self._run(context, outcome)

    @NoFramesOfOurs()
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """As Airflow's, but where the trigger failed or ran out of time, the cluster goes before the task fails."""
        self.known_links = None
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except PracticusError:
            raise
        except Exception:
            try:
                self._delete_by_name(context)
            except PracticusError as error:
                self.log.error("its cluster may be left: %s", error)
            raise

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """OpenLineage's provider calls this after the task's end, also after a failure."""
        from practicus_provider.lineage import lineage_of

        return None if self._outcome is None else lineage_of(self._outcome, getattr(self, "adapter", None))

    def on_kill(self) -> None:
        """The task is killed here: its cluster goes. Airflow calls this from a signal handler, amid our event loop."""
        if self._running is None:
            return
        backend, handle = self._running
        thread = threading.Thread(target=lambda: asyncio.run(backend.delete(handle)))
        thread.start()
        thread.join()

    def lease(self, context: Context) -> float | None:
        """Seconds that the cluster may outlive this process: until the next try could have adopted it."""
        if self.deferrable:
            return None
        ti = context["ti"]
        if ti.try_number > (ti.max_tries or 0):
            return LAST_TRY_LEASE
        delay, growth = self.retry_delay.total_seconds(), compat.backoff(self)
        if growth == 1:
            return delay + RETRY_SLACK
        # Airflow's own bound: airflow.models.taskinstance, next_retry_datetime
        longest = seconds(self.max_retry_delay or conf.getint("core", "max_task_retry_delay", fallback=24 * 3600))
        with contextlib.suppress(OverflowError):
            # Airflow rounds up, and adds up to as much again
            longest = min(2 * max(1, math.ceil(delay * growth ** (ti.try_number - 1))), longest)
        return longest + RETRY_SLACK

    def _end(self, outcome: Outcome, context: Context) -> Any:
        from practicus_provider.pricing import COST_KEY

        self._outcome = outcome
        if outcome.cost:
            context["ti"].xcom_push(key=COST_KEY, value=dict(outcome.cost))
        return self.finish(outcome, context)

    def _run(self, context: Context, outcome: Outcome | None = None) -> Any:
        """Launch and follow; anew where the job was preempted, whose cluster is gone then, or on its way.

        :param outcome: of the attempt that was preempted.
        """
        from practicus_provider import lifecycle, metrics

        backend = self.hook.get_conn()
        while True:
            if outcome is not None:
                self._attempt = outcome.next_attempt or 1
                self._spent = outcome.cost["seconds"] if outcome.cost else {}
            handle, policy = asyncio.run(self._launch(backend, context))
            if self.deferrable:
                self._defer(handle, policy, context)
            outcome = asyncio.run(lifecycle.follow(backend, handle, policy, into(self.log)))
            metrics.ended(outcome, policy, backend)
            if outcome.next_attempt is None:
                return self._end(outcome, context)

    async def _launch(self, backend: Backend, context: Context) -> tuple[Handle, Policy]:
        from practicus_provider import metrics
        from practicus_provider.errors import NotFound

        began = time.monotonic()
        handle, policy = await self.launch(backend, context)
        metrics.submitted(time.monotonic() - began, policy, backend)
        self._running = (backend, handle)
        context["ti"].xcom_push(key="cluster", value=handle.to_json())
        with contextlib.suppress(NotFound):
            found = await backend.find(handle.name)
            policy = replace(policy, attempt=found.task.get("attempt", 1))  # of one that is adopted it may be another
            if backend.pricing:
                policy = replace(policy, tariff=backend.pricing.tariff(found.resources, self._spent))
            self.known_links = self.links(found, context["ti"].dag_id)
            for key, url in self.known_links.items():
                context["ti"].xcom_push(key=key, value=url)
            if found.links:
                self.log.info("%s: by a button on the task's page", ", ".join(found.links))
        which = f", attempt {policy.attempt} of {policy.attempts}" if policy.attempts > 1 else ""
        self.log.info("cluster %s (%s)%s", handle.name, handle.uid, which)
        return handle, policy

    def _defer(self, handle: Handle, policy: Policy, context: Context) -> None:
        from practicus_provider.triggers.job import PracticusJobTrigger

        trigger = PracticusJobTrigger(
            practicus_conn_id=self.practicus_conn_id,
            namespace=self.namespace,
            cluster=handle.to_json(),
            policy=policy.to_json(),
            ends_task=self.finishes_as_any() and trigger_may_end_task(self),
            push_result=bool(self.do_xcom_push),
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=self.execution_timeout)

    def _delete_by_name(self, context: Context) -> None:
        from practicus_provider.backends.base import Handle

        backend = self.hook.get_conn()
        cluster = context["ti"].xcom_pull(task_ids=self.task_id, key="cluster", map_indexes=task_key(context).map_index)
        if cluster:
            asyncio.run(backend.delete(Handle(**cluster)))


def seconds(value: float | timedelta) -> float:
    """A duration given as seconds or as a timedelta, in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def trigger_may_end_task(operator: BaseOperator) -> bool:
    """Whether nothing is lost if the triggerer ends the task.

    Airflow 3.3's ``handle_event_submit`` for a ``BaseTaskEndEvent`` registers no asset events, records no length for
    mapped consumers, splits no multiple outputs, marks no DAG result, calls no task listeners, consults no retry
    policy, sends no mail and runs no ``post_execute``. It leaves callbacks to the DAG processor, which calls none for a
    success, and those for a failure without the exception (``airflow.dag_processing.processor``,
    ``_execute_task_callbacks``). Callbacks for a start or a skip are left out here: the task has started before it is
    deferred, and a job's end is no skip.
    ``dag.test()`` takes no such event at all (``airflow.sdk.definitions.dag``, ``_run_task``).
    """
    from airflow.sdk.execution_time import task_runner
    from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms

    return not (
        operator.outlets
        or getattr(operator, "retry_policy", None)
        or operator.multiple_outputs
        or getattr(operator, "returns_dag_result", False)
        or operator.on_success_callback
        or operator.on_failure_callback
        or operator.on_retry_callback
        or (operator.email and (operator.email_on_failure or operator.email_on_retry))
        or _has_post_execute(operator)
        or not compat.trigger_may_fail(operator)
        or not compat.trigger_keeps_index(operator)
        or next(operator.iter_mapped_dependants(), None) is not None
        or compat.has_listeners()
        or isinstance(getattr(task_runner, "SUPERVISOR_COMMS", None), InProcessSupervisorComms)
    )


def _has_post_execute(operator: BaseOperator) -> bool:
    """Whether there is something to run after the task: an argument, an override, or what was set on it."""
    own = getattr(operator.post_execute, "__func__", None)  # as Airflow asks: task_runner, _execute_task
    return operator._post_execute_hook is not None or own is not BaseOperator.post_execute
