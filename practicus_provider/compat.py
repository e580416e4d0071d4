"""What Airflow lacks before 3.3 of what this package uses, in one place: each thing is looked for, not a version.

==========================  ======  =========================================================================
what                        since   without it
==========================  ======  =========================================================================
command line of a provider  3.2     there is no ``airflow practicus``
form of a connection        3.2     the connection's extras are written as JSON
state of a task             3.3     ``oom_memory_factor`` is refused
retry policies              3.3     ``VerdictRetryPolicy`` is refused
``BaseTrigger.on_kill``     3.3     a trigger that is cancelled looks whether its task still waits for it
retries by a trigger        3.3.1   a task with ``retries`` ends on a worker
named index of a task       3.2     a mapped task with ``map_index_template`` ends on a worker
spans by OpenTelemetry      3.2     phases of a job are no spans
resuming at once            3.2     a task is deferred for 10 s at least, if it ends on a worker
==========================  ======  =========================================================================

The rest has only moved.
"""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS
from packaging.version import Version

from practicus_provider.errors import SpecError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.configuration import conf
    from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
else:
    try:
        from airflow.sdk.configuration import conf
    except ImportError:  # 3.1
        from airflow.configuration import conf
    try:
        from airflow.sdk.definitions.retry_policy import RetryDecision, RetryPolicy
    except ImportError:
        RetryDecision = None

        class RetryPolicy:
            """Stands where Airflow has none, so that who names one is told."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                refuse("retry_policy", type(self).__name__)


__all__ = ["RetryDecision", "RetryPolicy", "conf"]

AIRFLOW = version("apache-airflow-core")
HAS_RETRY_POLICIES = RetryDecision is not None
HAS_TASK_STATE = "task_state_store" in KNOWN_CONTEXT_KEYS
DEFERRED = "deferred"
ANSWER_TIMEOUT = 600.0
"""Seconds in which Airflow has to say what became of a task. A triggerer's first answer takes some, on a busy machine
over a minute; nobody waits for it."""
STOPS_WITHIN = 5.0
"""Seconds for which a cancelled trigger waits for that. A triggerer that runs on goes on with it; one that stops, which
may not answer any more, ends."""

_requests: set[asyncio.Task[Any]] = set()
"""Nothing else refers to them while they run."""


def refuse(field: str, value: object, since: str = "3.3") -> NoReturn:
    """Refuse what this Airflow cannot do.

    :raises SpecError: always; it names the version that can.
    """
    raise SpecError(field, value, f"Airflow {AIRFLOW} cannot do that: leave it out, or use Airflow {since} or newer")


def backoff(operator: BaseOperator) -> float:
    """By how much the delay before a try is longer than the one before: Airflow 3.1 says True, and means 2."""
    multiplier = operator.retry_exponential_backoff
    return 2.0 if multiplier is True else float(multiplier or 1)


def stats() -> Any:
    """Where metrics go that Airflow has set up for tasks and triggers; it has ``timing`` and ``incr``."""
    try:
        from airflow.sdk.observability import stats
    except ImportError:  # 3.1
        from airflow.stats import Stats

        return Stats
    return stats if hasattr(stats, "timing") else stats.Stats  # 3.2 has the class


def tracer(name: str) -> Any:
    """What makes spans; None: this Airflow sets up none for whoever asks OpenTelemetry."""
    try:
        from airflow.sdk.observability import trace
    except ImportError:  # 3.1
        return None
    return trace.get_tracer(name)


def has_listeners() -> bool:
    """Whether somebody wants to be told of a task's end."""
    try:
        from airflow.sdk.listener import get_listener_manager
    except ImportError:  # 3.1
        from airflow.listeners.listener import get_listener_manager  # type: ignore[assignment]

    return bool(get_listener_manager().has_listeners)


def trigger_may_fail(operator: BaseOperator) -> bool:
    """Whether a task that a trigger ends as failed is tried again, as often as ``retries`` says.

    It is the doing of whoever stores the event, which a task cannot look at; so its version tells.
    """
    return not operator.retries or Version(AIRFLOW) >= Version("3.3.1")


def trigger_keeps_index(operator: BaseOperator) -> bool:
    """Whether a task that a trigger ends has the index that ``map_index_template`` names."""
    from airflow.sdk.execution_time import comms

    return operator.map_index_template is None or hasattr(comms, "SetRenderedMapIndex")


def triggers_are_killed() -> bool:
    """Whether the triggerer calls ``on_kill`` of a trigger whose task was marked or cleared."""
    from airflow.triggers.base import BaseTrigger

    return hasattr(BaseTrigger, "on_kill")


async def set_xcom(key: str, value: Any, **of_task: Any) -> None:
    """Store an XCom from a trigger.

    :param of_task: ``dag_id``, ``task_id``, ``run_id`` and ``map_index``.
    """
    from airflow.sdk.execution_time.comms import SetXCom
    from airflow.sdk.execution_time.xcom import XCom

    if hasattr(XCom, "aset"):
        await XCom.aset(key, value, **of_task)
    else:
        await _ask(SetXCom(key=key, value=XCom.serialize_value(value, key=key, **of_task), **of_task))


async def get_xcom(key: str, **of_task: Any) -> Any:
    """An XCom's value, or None, for a trigger."""
    from airflow.sdk.execution_time.comms import GetXCom
    from airflow.sdk.execution_time.xcom import XCom

    if hasattr(XCom, "aget_one"):
        return await XCom.aget_one(key=key, **of_task)
    found = await _ask(GetXCom(key=key, **of_task))
    return None if found.value is None else XCom.deserialize_value(found)


async def task_state(*, dag_id: str, task_id: str, run_id: str, map_index: int) -> str | None:
    """State of a task instance, for a trigger; None: it was cleared, or is no more.

    :raises TimeoutError: nobody answers.
    """
    from airflow.sdk.execution_time.comms import GetTaskStates

    wanted = GetTaskStates(dag_id=dag_id, task_ids=[task_id], run_ids=[run_id], map_index=map_index)
    async with asyncio.timeout(ANSWER_TIMEOUT):
        states = (await _ask(wanted)).task_states.get(run_id, {})
    state = states.get(task_id if map_index < 0 else f"{task_id}_{map_index}")
    return None if state is None else str(getattr(state, "value", state))


async def _ask(message: Any) -> Any:
    """The answer to a request of a trigger's. Who asks may be cancelled, the request is not: in Airflow 3.1 the next
    one would be given its answer."""
    from airflow.sdk.execution_time import task_runner

    asking = asyncio.ensure_future(task_runner.SUPERVISOR_COMMS.asend(message))
    _requests.add(asking)
    asking.add_done_callback(_requests.discard)
    return await asyncio.shield(asking)
