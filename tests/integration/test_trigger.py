from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest
from airflow.models.trigger import Trigger
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import (
    ErrorResponse,
    GetTaskStates,
    GetXCom,
    SetXCom,
    TaskStatesResult,
    XComResult,
)
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent, TriggerEvent
from structlog.testing import capture_logs

from practicus_provider import compat
from practicus_provider.backends.base import Handle
from practicus_provider.backends.local import LocalBackend
from practicus_provider.errors import ConnectionConfigError, JobFailed
from practicus_provider.lifecycle import Outcome, Policy
from practicus_provider.operators.base import ClusterOperator
from practicus_provider.operators.cluster import PracticusCreateClusterOperator, PracticusSubmitJobOperator
from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.plan import Plan
from practicus_provider.pricing import Tariff
from practicus_provider.sensors.job import PracticusJobSensor
from practicus_provider.status import Reason, State, Verdict
from practicus_provider.triggers import job as job_trigger
from practicus_provider.triggers.job import PracticusJobTrigger
from tests.airflow_names import TaskDeferralError, TaskDeferralTimeout, TaskDeferred
from tests.plans import PATIENCE, SLEEP, TASK, created, end, plan, role, until

SUCCEED = "import practicus_runtime as p; print('at work'); p.set_result({'rows': 3})"
QUIET = "print('at work')"
FAIL = "print('WARN at work'); raise SystemExit(3)"
GOOD = Verdict(State.SUCCEEDED, Reason.COMPLETED, "driver-0 ended", exit_code=0)
BAD = Verdict(
    State.FAILED,
    Reason.ERROR,
    "driver-0 exited with code 3",
    replica="driver-0",
    exit_code=3,
    log_tail=("WARN at work",),
)
JOB = "local:///job.py"


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalBackend]:
    """Where the connection ``there`` leads; empty again afterwards, whatever fails."""
    extra = {"backend": "local", "root": str(tmp_path / "root")}
    monkeypatch.setenv("AIRFLOW_CONN_THERE", json.dumps({"conn_type": "practicus", "extra": extra}))
    backend = LocalBackend(tmp_path / "root")
    yield backend
    for listing in asyncio.run(backend.list()):
        asyncio.run(backend.delete(listing.handle))


@pytest.fixture(autouse=True)
def no_scheduler(monkeypatch: pytest.MonkeyPatch) -> None:
    """None that would take one end of a process for another, or that clears a task."""
    monkeypatch.setattr(job_trigger, "RESUMES_AFTER", 0.0)
    monkeypatch.setattr(job_trigger, "CANCELLED_WITHIN", 0.0)


@pytest.fixture(autouse=True)
def stored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The XComs that Airflow is asked to store, but for the outcome that a triggerer keeps for the next one."""
    sent: list[Any] = []
    outcomes: dict[str, Any] = {}

    class Triggerer:
        async def asend(self, message: Any) -> XComResult | None:
            match message:
                case SetXCom(key="outcome"):
                    outcomes[message.task_id] = message.value
                case SetXCom():
                    sent.append(message)
                case GetXCom(key="outcome"):
                    return XComResult(key=message.key, value=outcomes.get(message.task_id))
                case GetTaskStates():
                    return await states(message)
            return None

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Triggerer(), raising=False)
    return sent


async def states(asked: GetTaskStates) -> TaskStatesResult:
    """Airflow's answer: whoever asks has a task that was marked."""
    return TaskStatesResult(task_states={"r": {"t": "failed", "t_3": "deferred"}})


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task does so on, where an Airflow is asked that has no ``on_kill``."""

    async def states(asked: GetTaskStates) -> TaskStatesResult:
        return TaskStatesResult(task_states={"r": {"t": "deferred"}})

    monkeypatch.setitem(globals(), "states", states)


def trigger(handle: Handle, *, map_index: int | None = -1, **more: Any) -> PracticusJobTrigger:
    policy = Policy(time.time() + PATIENCE, ("driver",))
    made = PracticusJobTrigger("there", handle.to_json(), policy.to_json(), **more)
    made.task_instance = SimpleNamespace(dag_id="sales", task_id="t", run_id="r", map_index=map_index)
    return made


def xcom(value: Any, map_index: int = -1) -> SetXCom:
    return SetXCom(key="return_value", value=value, dag_id="sales", run_id="r", task_id="t", map_index=map_index)


async def events(trigger: PracticusJobTrigger) -> list[TriggerEvent]:
    async with asyncio.timeout(PATIENCE):
        return [event async for event in trigger.run()]


async def outcome(trigger: PracticusJobTrigger) -> Outcome:
    """What the task resumes with."""
    [event] = await events(trigger)
    assert type(event) is TriggerEvent
    return Outcome.from_json(json.loads(json.dumps(event.payload)))


async def alive(backend: LocalBackend) -> list[tuple[Handle, State]]:
    return [(listing.handle, listing.state) for listing in await backend.list()]


@contextlib.asynccontextmanager
async def running(backend: LocalBackend, code: str = SLEEP) -> AsyncIterator[Handle]:
    """A job whose driver has started."""
    async with created(backend, "job", plan(role("driver", code))) as handle:
        await until(backend, handle, lambda status: status.state is State.RUNNING)
        yield handle


# ---- one event: the outcome


@pytest.mark.parametrize(
    ("code", "expected"),
    [(SUCCEED, Outcome(GOOD, '{"rows": 3}')), (QUIET, Outcome(GOOD)), (FAIL, Outcome(BAD))],
    ids=["result", "no result", "failure"],
)
async def test_a_task_that_resumes_is_given_the_outcome_and_nothing_is_stored_before(backend, stored, code, expected):
    handle = await backend.create("job", plan(role("driver", code)), task=TASK)
    assert await outcome(trigger(handle)) == expected
    assert (stored, await alive(backend)) == ([], [])


@pytest.mark.parametrize("map_index", [-1, 3])
async def test_a_task_that_ends_here_has_the_result_as_its_xcom(backend, stored, map_index):
    handle = await backend.create("job", plan(role("driver", SUCCEED)), task=TASK)
    assert await events(trigger(handle, ends_task=True, map_index=map_index)) == [TaskSuccessEvent()]
    assert (stored, await alive(backend)) == ([xcom({"rows": 3}, map_index)], [])


@pytest.mark.parametrize(("code", "keys"), [(SUCCEED, ["return_value", "cost"]), (FAIL, ["cost"])], ids=["good", "bad"])
async def test_a_task_that_ends_here_has_its_cost_as_an_xcom_however_it_ended(backend, stored, code, keys):
    policy = Policy(time.time() + PATIENCE, (), tariff=Tariff("USD", {"driver": 3600.0}, {"driver": 100.0}))
    async with created(backend, "job", plan(role("driver", code))) as handle:
        following = trigger(handle, ends_task=True)
        following.policy = policy.to_json()
        await events(following)
    assert [message.key for message in stored] == keys
    cost = stored[-1].value
    assert (cost["currency"], list(cost["seconds"])) == ("USD", ["driver"])
    assert cost["total"] == pytest.approx(cost["seconds"]["driver"], abs=0.001)
    assert cost["total"] > 100


@pytest.mark.parametrize(("ends_task", "seconds"), [(False, 3.0), (True, 10 * PATIENCE)])
async def test_where_a_task_may_not_resume_at_once_it_waits_and_one_that_ends_here_does_not(
    backend, stored, monkeypatch, ends_task, seconds
):
    monkeypatch.setattr(job_trigger, "RESUMES_AFTER", seconds)
    handle = await backend.create("job", plan(role("driver", QUIET)), task=TASK)
    began = time.monotonic()
    await events(trigger(handle, ends_task=ends_task))
    assert ends_task or time.monotonic() - began >= seconds


async def test_no_cluster_is_left_once_the_event_is_there(backend):
    handle = await backend.create("job", plan(role("driver", SUCCEED)), task=TASK)
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(trigger(handle).run()) as run:
        await anext(run)  # ``dag.test()`` asks for no more
        assert await alive(backend) == []


async def test_a_result_that_the_triggerer_cannot_store_is_a_workers_to_store(backend, monkeypatch):
    class Triggerer:
        async def asend(self, message: Any) -> None:
            raise AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR))

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Triggerer(), raising=False)
    handle = await backend.create("job", plan(role("driver", SUCCEED)), task=TASK)
    assert await outcome(trigger(handle, ends_task=True)) == Outcome(GOOD, '{"rows": 3}')
    assert await alive(backend) == []


async def test_a_task_instance_without_a_map_index_is_not_mapped(backend, stored):
    handle = await backend.create("job", plan(role("driver", SUCCEED)), task=TASK)
    await events(trigger(handle, ends_task=True, map_index=None))
    assert stored == [xcom({"rows": 3})]


@pytest.mark.parametrize(
    ("code", "more", "event"),
    [
        (SUCCEED, {"push_result": False}, TaskSuccessEvent()),
        (QUIET, {}, TaskSuccessEvent()),
        (FAIL, {}, TaskFailedEvent()),
    ],
    ids=["not wanted", "no result", "failure"],
)
async def test_where_there_is_no_result_to_keep_a_task_that_ends_here_has_no_xcom(backend, stored, code, more, event):
    handle = await backend.create("job", plan(role("driver", code)), task=TASK)
    assert await events(trigger(handle, ends_task=True, **more)) == [event]
    assert (stored, await alive(backend)) == ([], [])


async def test_a_trigger_without_a_task_instance_stores_nothing(backend, stored):
    handle = await backend.create("job", plan(role("driver", SUCCEED)), task=TASK)
    alone = trigger(handle, ends_task=True)
    alone.task_instance = None
    assert await events(alone) == [TaskSuccessEvent()]
    assert stored == []


@pytest.mark.parametrize("ends_task", [True, False])
@pytest.mark.parametrize("code", [SUCCEED, FAIL], ids=["good", "bad"])
async def test_a_triggerer_that_died_before_its_event_was_stored_is_followed_by_one_that_tells_the_same(
    backend, stored, code, ends_task
):
    handle = await backend.create("job", plan(role("driver", code)), task=TASK)
    first = await events(trigger(handle, ends_task=ends_task))
    assert await alive(backend) == []
    [again] = await events(trigger(handle, ends_task=ends_task))
    assert again == first[0] if ends_task else again.payload == first[0].payload | {"seconds": ANY}


async def test_what_was_kept_of_a_cluster_before_is_not_this_ones(backend, stored):
    handle = await backend.create("job", plan(role("driver", SUCCEED)), task=TASK)
    await events(trigger(handle))
    found = await outcome(trigger(Handle(handle.name, "another")))
    assert found.verdict.reason is Reason.DELETED


async def test_a_cluster_that_somebody_else_deletes_is_a_failure(backend):
    async with running(backend) as handle:
        following = asyncio.create_task(outcome(trigger(handle)))
        await backend.delete(handle)
    found = (await following).verdict
    assert (found.state, found.reason) == (State.CANCELLED, Reason.DELETED)


async def test_a_task_that_was_cleared_has_no_error_in_its_old_log_as_its_next_try_deletes_the_cluster(
    backend, monkeypatch
):
    monkeypatch.setattr(job_trigger, "CANCELLED_WITHIN", PATIENCE)
    seen = asyncio.Event()
    monkeypatch.setattr(job_trigger.metrics, "ended", lambda *_: seen.set())
    async with running(backend) as handle:
        with capture_logs() as log:
            following = asyncio.create_task(events(trigger(handle, ends_task=True)))
            await backend.delete(handle)
            await seen.wait()
            following.cancel()
            await asyncio.wait((following,))
    assert following.cancelled()
    assert [entry["event"] for entry in log if entry["log_level"] == "error"] == []


@pytest.mark.parametrize(("ends_task", "kind"), [(True, TaskFailedEvent), (False, TriggerEvent)])
async def test_a_cluster_that_is_gone_before_the_trigger_runs_is_a_failure(backend, stored, ends_task, kind):
    [event] = await events(trigger(Handle("c-1", "gone"), ends_task=ends_task))
    assert (type(event), stored) == (kind, [])


async def test_a_trigger_whose_connection_is_gone_fails_with_the_way_out(backend, monkeypatch):
    monkeypatch.delenv("AIRFLOW_CONN_THERE")
    with pytest.raises(ConnectionConfigError, match=r"^there is no connection 'there'\. Add it: "):
        await events(trigger(Handle("c-1", "u")))


@pytest.mark.parametrize("ends_task", [True, False])
async def test_the_log_holds_each_status_the_jobs_lines_the_end_and_where_that_is_the_tasks_the_verdict(
    backend, ends_task
):
    handle = await backend.create("job", plan(role("driver", FAIL)), task=TASK)
    await end(backend, handle)
    with capture_logs() as log:
        await events(trigger(handle, ends_task=ends_task))
    said = [(entry["log_level"], entry["event"]) for entry in log]
    assert sorted(said[1:3]) == [("info", "failed: driver 1 failed"), ("warning", "WARN at work")]
    assert [said[0], *said[3:]] == [
        ("info", "::endgroup::"),
        ("info", "cluster job is removed"),
        *[("error", "Error: driver-0 exited with code 3\nLast lines of driver-0:\n    WARN at work")] * ends_task,
    ]


async def test_a_trigger_does_as_the_policy_says(backend):
    async with created(backend, "job", plan(role("driver", QUIET))) as handle:
        kept = trigger(handle)
        kept.policy |= {"teardown": None, "streamed": []}
        with capture_logs() as log:
            await outcome(kept)
        assert await alive(backend) == [(handle, State.SUCCEEDED)]
    assert "at work" not in [entry["event"] for entry in log]


# ---- another triggerer takes over


async def cancelled(trigger: PracticusJobTrigger, log: list[Any], after: str) -> None:
    """Run it until it has said that, then end it as a triggerer does that is shut down."""
    following = asyncio.create_task(events(trigger))
    async with asyncio.timeout(PATIENCE):
        while after not in [entry["event"] for entry in log]:
            await asyncio.sleep(0.01)
    following.cancel()
    with pytest.raises(asyncio.CancelledError):
        await following


@pytest.mark.usefixtures("waits")
async def test_a_trigger_that_is_cancelled_leaves_the_cluster_alone(backend, stored):
    async with running(backend, "print('at work', flush=True); " + SLEEP) as handle:
        with capture_logs() as log:
            await cancelled(trigger(handle, ends_task=True), log, "at work")
        assert await alive(backend) == [(handle, State.RUNNING)]
    assert stored == []


@pytest.mark.usefixtures("waits")
async def test_the_next_trigger_goes_on_where_the_cancelled_one_was(backend, tmp_path):
    code = (
        "import pathlib, sys, time\nprint('first', flush=True)\n"
        "while not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)\nprint('second')\n" + SUCCEED
    )
    handle = await backend.create("job", plan(role("driver", code, str(tmp_path / "go"))), task=TASK)
    with capture_logs() as log:
        await cancelled(trigger(handle), log, "first")
        (tmp_path / "go").touch()
        assert await outcome(trigger(handle)) == Outcome(GOOD, '{"rows": 3}')
    lines = [entry["event"] for entry in log if entry["event"] in ("first", "second", "at work")]
    assert lines == ["first", "second", "at work"]


async def test_a_trigger_that_comes_out_of_the_database_follows_the_same_cluster(backend, stored):
    handle = await backend.create("job", plan(role("driver", SUCCEED)), task=TASK)
    row = Trigger.from_object(trigger(handle, ends_task=True))
    read = PracticusJobTrigger(**row.kwargs)
    read.task_instance = trigger(handle).task_instance
    assert row.classpath == "practicus_provider.triggers.job.PracticusJobTrigger"
    assert await events(read) == [TaskSuccessEvent()]
    assert stored == [xcom({"rows": 3})]


# ---- the user kills the deferred task


async def test_a_killed_tasks_cluster_goes(backend):
    async with running(backend) as handle:
        await trigger(handle).on_kill()
        assert await alive(backend) == []


def sensors_trigger(handle: Handle) -> PracticusJobTrigger:
    with DAG("d"):
        sensor = PracticusJobSensor(task_id="s", job=handle.to_json(), practicus_conn_id="there", deferrable=True)
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute({})
    return deferred.value.trigger


async def test_what_is_killed_leaves_its_verdict_and_its_cost(backend, stored, monkeypatch):
    monkeypatch.setattr(compat, "triggers_are_killed", lambda: True)
    policy = Policy(time.time() + PATIENCE, (), tariff=Tariff("USD", {"driver": 3600.0}, {"driver": 100.0}))
    async with running(backend) as handle:
        killed = trigger(handle)
        killed.policy = policy.to_json()
        with capture_logs() as log:
            await killed.on_kill()
    said = [entry["event"] for entry in log]
    verdict = "Deleted: its task was marked or cleared, so its cluster job is removed"
    assert [said[0], said[2:]] == [verdict, ["cluster job is removed"]]
    assert said[1].startswith("cost: 10")
    [cost] = stored
    assert (cost.key, cost.value["total"] > 100) == ("cost", True)


KILLED = {
    "marked": ({"r": {"t": "failed"}}, False),
    "cleared": ({"r": {"t": None}}, False),
    "run anew": ({"r": {"t": "running"}}, False),
    "another's": ({"r": {"other": "deferred"}}, False),
    "no such run": ({}, False),
    "waits": ({"r": {"t": "deferred"}}, True),
}


@pytest.mark.parametrize(("told", "stays"), KILLED.values(), ids=KILLED)
async def test_an_airflow_that_merely_cancels_is_asked_whether_the_task_waits_on(backend, monkeypatch, told, stays):
    async def states(asked: GetTaskStates) -> TaskStatesResult:
        assert (asked.dag_id, asked.task_ids, asked.run_ids, asked.map_index) == ("sales", ["t"], ["r"], -1)
        return TaskStatesResult(task_states=told)

    monkeypatch.setitem(globals(), "states", states)
    monkeypatch.setattr(compat, "triggers_are_killed", lambda: False)
    async with running(backend, "print('at work', flush=True); " + SLEEP) as handle:
        with capture_logs() as log:
            await cancelled(trigger(handle), log, "at work")
        assert await alive(backend) == ([(handle, State.RUNNING)] if stays else [])


async def test_it_is_asked_for_a_mapped_task_by_its_index(backend, monkeypatch):
    monkeypatch.setattr(compat, "triggers_are_killed", lambda: False)
    async with running(backend, "print('at work', flush=True); " + SLEEP) as handle:
        with capture_logs() as log:
            await cancelled(trigger(handle, map_index=3), log, "at work")
        assert await alive(backend) == [(handle, State.RUNNING)]


@pytest.mark.parametrize(
    "failure",
    [
        AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR)),
        EOFError(),
        TimeoutError(),
        RuntimeError("Response read out of order!"),
    ],
)
async def test_where_it_does_not_answer_the_cluster_stays(backend, monkeypatch, failure):
    async def states(asked: GetTaskStates) -> TaskStatesResult:
        raise failure

    monkeypatch.setitem(globals(), "states", states)
    monkeypatch.setattr(compat, "triggers_are_killed", lambda: False)
    async with running(backend, "print('at work', flush=True); " + SLEEP) as handle:
        with capture_logs() as log:
            await cancelled(trigger(handle), log, "at work")
        assert await alive(backend) == [(handle, State.RUNNING)]


async def test_a_trigger_ends_before_an_airflow_that_is_slow_to_answer_and_the_cluster_goes_then(backend, monkeypatch):
    answered = asyncio.Event()

    async def states(asked: GetTaskStates) -> TaskStatesResult:
        await answered.wait()
        return TaskStatesResult(task_states={"r": {"t": "failed"}})

    monkeypatch.setitem(globals(), "states", states)
    monkeypatch.setattr(compat, "triggers_are_killed", lambda: False)
    monkeypatch.setattr(compat, "STOPS_WITHIN", 0.1)
    async with running(backend, "print('at work', flush=True); " + SLEEP) as handle:
        with capture_logs() as log:
            await cancelled(trigger(handle), log, "at work")
        assert await alive(backend) == [(handle, State.RUNNING)]
        answered.set()
        async with asyncio.timeout(PATIENCE):
            while await alive(backend):
                await asyncio.sleep(0.05)


async def test_a_sensor_that_is_killed_leaves_the_job_that_it_waited_for(backend):
    async with running(backend) as handle:
        await sensors_trigger(handle).on_kill()
        assert await alive(backend) == [(handle, State.RUNNING)]


async def test_a_sensor_leaves_a_jobs_lease_as_it_was(backend):
    async with running(backend) as handle:
        assert Policy.from_json(sensors_trigger(handle).policy).lease == "keep"


async def test_a_killed_tasks_trigger_that_still_runs_ends_as_cancelled(backend):
    async with running(backend) as handle:
        killed = trigger(handle)
        following = asyncio.create_task(outcome(killed))
        await killed.on_kill()
    assert (await following).verdict.state is State.CANCELLED


async def test_the_cluster_goes_though_the_triggerer_cancels_the_kill_while_it_goes_on(backend):
    async with running(backend) as handle:
        killing = asyncio.create_task(trigger(handle).on_kill())
        await asyncio.sleep(0)
        killing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await killing
        async with asyncio.timeout(PATIENCE):
            while await alive(backend):
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("cancels", [True, False])
async def test_a_cluster_that_could_not_be_removed_is_told_though_nobody_waits_for_the_kill(
    backend, monkeypatch, cancels
):
    monkeypatch.setattr(compat, "triggers_are_killed", lambda: True)
    monkeypatch.setenv("AIRFLOW_CONN_THERE", json.dumps({"conn_type": "practicus", "extra": {"backend": "nowhere"}}))
    with capture_logs() as log:
        killing = asyncio.create_task(trigger(Handle("c-1", "uid")).on_kill())
        await asyncio.sleep(0)
        if cancels:
            killing.cancel()
        await asyncio.wait((killing,))
        async with asyncio.timeout(PATIENCE):
            while not log:
                await asyncio.sleep(0.01)
    [told] = [entry["event"] for entry in log]
    start = "its task was marked or cleared, but its cluster c-1 could not be removed: "
    assert (killing.cancelled(), told[: len(start)]) == (cancels, start)


async def test_killing_a_task_whose_cluster_is_gone_is_fine(backend):
    await trigger(Handle("c-1", "gone")).on_kill()
    assert await alive(backend) == []


async def test_killing_a_task_leaves_the_cluster_that_has_taken_the_name_since(backend):
    async with running(backend) as handle:
        await trigger(Handle(handle.name, "before")).on_kill()
        assert await alive(backend) == [(handle, State.RUNNING)]


# ---- a task whose trigger failed, or took too long


def cluster(backend: LocalBackend, plan: Plan) -> Handle:
    return asyncio.run(backend.create("job", plan, task=TASK))


def context(handle: Handle | None) -> dict[str, Any]:
    """That of a task which has left this handle as its XCom."""

    def xcom_pull(task_ids: str, key: str, map_indexes: int) -> Any:
        assert (task_ids, key, map_indexes) == ("t", "cluster", 2)
        return handle.to_json() if handle else None

    names = {"dag_id": "sales", "run_id": "r", "task_id": "t", "map_index": 2}
    return {"ti": SimpleNamespace(**names, xcom_pull=xcom_pull)}


def dask() -> ClusterOperator:
    return PracticusDaskOperator(task_id="t", application=JOB, practicus_conn_id="there")


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        ({"error": "Trigger timeout"}, TaskDeferralTimeout),
        ({"error": "Trigger failure", "traceback": ["Traceback", "ValueError: x"]}, TaskDeferralError),
        (None, TaskDeferralError),
    ],
    ids=["timeout", "failure", "unknown"],
)
@pytest.mark.parametrize(
    "operator",
    [
        dask(),
        PracticusCreateClusterOperator(task_id="t", adapter="dask", practicus_conn_id="there"),
        PracticusSubmitJobOperator(task_id="t", cluster="c", application=JOB, practicus_conn_id="there"),
    ],
    ids=["run", "create", "submit"],
)
def test_a_task_whose_trigger_did_not_end_well_takes_its_cluster_with_it(backend, operator, failure, error):
    handle = cluster(backend, plan(role("driver", SLEEP)))
    with pytest.raises(error):
        operator.resume_execution("__fail__", failure, context(handle))
    assert asyncio.run(alive(backend)) == []


def test_a_task_that_fails_as_it_resumes_takes_its_cluster_with_it(backend):
    handle = cluster(backend, plan(role("driver", SLEEP)))
    with pytest.raises(KeyError, match="verdict"):
        dask().resume_execution("execute_complete", {"event": {}}, context(handle))
    assert asyncio.run(alive(backend)) == []


def test_a_task_whose_trigger_failed_before_there_was_a_cluster_fails_likewise(backend):
    with pytest.raises(TaskDeferralError):
        dask().resume_execution("__fail__", {"error": "Trigger failure"}, context(None))


@pytest.mark.parametrize("result", [GOOD, BAD], ids=["success", "failure"])
def test_a_task_that_resumes_with_an_outcome_leaves_the_cluster_as_teardown_left_it(backend, result):
    handle = cluster(backend, plan(role("driver", SLEEP)))
    with contextlib.nullcontext() if result is GOOD else pytest.raises(JobFailed, match="exited with code 3"):
        dask().resume_execution("execute_complete", {"event": Outcome(result).to_json()}, context(handle))
    assert [left for left, _ in asyncio.run(alive(backend))] == [handle]
