"""Waits for a job that another task submitted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseSensorOperator
from airflow.sdk.bases.sensor import PokeReturnValue

from practicus_provider.hooks.practicus import PracticusHook
from practicus_provider.operators.base import default_deferrable, trigger_may_end_task
from practicus_provider.operators.cluster import as_handle
from practicus_provider.tasklog import NoFramesOfOurs

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.definitions.xcom_arg import XComArg

    from practicus_provider.backends.base import Backend, Handle
    from practicus_provider.status import Status


class PracticusJobSensor(BaseSensorOperator):
    """Waits until a job has ended; its XCom is the job's result. Fails with the job's verdict. Removes nothing.

    :param job: output of a :class:`~practicus_provider.operators.cluster.PracticusSubmitJobOperator` that did not wait,
        or the XCom ``cluster`` of any other operator of ours. (templated)
    :param practicus_conn_id: the connection that says where it runs.
    :param namespace: of its pods on Kubernetes; None: the connection's. (templated)
    :param deferrable: wait in the triggerer, without a worker and without poking.
    """

    template_fields: Sequence[str] = ("job", "namespace")
    ui_color = "#e8f4ea"

    def __init__(
        self,
        *,
        job: Mapping[str, str] | XComArg | str,
        practicus_conn_id: str = PracticusHook.default_conn_name,
        namespace: str | None = None,
        deferrable: bool | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.practicus_conn_id = practicus_conn_id
        self.namespace = namespace
        self.deferrable = default_deferrable() if deferrable is None else deferrable

    @NoFramesOfOurs()
    def execute(self, context: Context) -> Any:
        """Poke, or defer."""
        if not self.deferrable:
            return super().execute(context)
        from practicus_provider.lifecycle import Policy
        from practicus_provider.triggers.job import PracticusJobTrigger

        policy = Policy(start_deadline=time.time() + self.timeout, streamed=(), teardown=None, lease="keep")
        trigger = PracticusJobTrigger(
            practicus_conn_id=self.practicus_conn_id,
            namespace=self.namespace,
            cluster=as_handle("job", self.job).to_json(),
            policy=policy.to_json(),
            ends_task=trigger_may_end_task(self) and not (self.soft_fail or self.never_fail),
            push_result=bool(self.do_xcom_push),
        )
        self.defer(trigger=trigger, method_name="execute_complete", timeout=timedelta(seconds=self.timeout))

    @NoFramesOfOurs()
    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> Any:
        """Resumed by the trigger's event, where that could not end the task itself."""
        from practicus_provider.lifecycle import Outcome

        return Outcome.from_json(event).value()

    def poke(self, context: Context) -> PokeReturnValue:
        """One look."""
        from practicus_provider.lifecycle import Outcome
        from practicus_provider.result import taken

        backend = PracticusHook(self.practicus_conn_id, self.namespace).get_conn()
        status = asyncio.run(_look(backend, as_handle("job", self.job)))
        if status.verdict is None:
            self.log.info("%s", status.summary())
            return PokeReturnValue(False)
        return PokeReturnValue(True, Outcome(*taken(status.verdict, status.result)).value())


async def _look(backend: Backend, handle: Handle) -> Status:
    return await anext(backend.watch(handle))
