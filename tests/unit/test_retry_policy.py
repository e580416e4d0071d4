from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from practicus_provider.errors import BackendError, ConnectionConfigError, JobFailed, SpecError
from practicus_provider.lifecycle import Outcome
from practicus_provider.operators.job import MEMORY_FACTORS, PracticusRunJobOperator
from practicus_provider.operators.retry_policy import VerdictRetryPolicy
from practicus_provider.status import Reason, State, Verdict

policies = pytest.importorskip("airflow.sdk.definitions.retry_policy", reason="this Airflow has no retry policies")
RetryAction, RetryDecision = policies.RetryAction, policies.RetryDecision


def failed(reason: Reason, replica: str | None = "worker-3") -> JobFailed:
    return JobFailed(Verdict(State.FAILED, reason, "it failed", replica=replica))


def job(**more: Any) -> PracticusRunJobOperator:
    return PracticusRunJobOperator(task_id="t", adapter="dask", application="local:///job.py", **more)


def decided(error: BaseException, operator: PracticusRunJobOperator | None = None) -> RetryDecision:
    context: Any = {"ti": SimpleNamespace(task=operator or job())}
    return VerdictRetryPolicy().evaluate(error, 1, 3, context)


@pytest.mark.parametrize("reason", [Reason.ERROR, Reason.CONFIG_ERROR, Reason.IMAGE_PULL_FAILED, Reason.INIT_FAILED])
def test_what_the_user_has_to_mend_is_not_tried_again(reason):
    assert decided(failed(reason)) == RetryDecision.fail(f"{reason}: it is the same at the next try")


@pytest.mark.parametrize("error", [SpecError("workers", 0, "more"), ConnectionConfigError("none")])
def test_arguments_and_connections_that_are_wrong_are_not_tried_again(error):
    assert decided(error).action is RetryAction.FAIL


@pytest.mark.parametrize(
    "error",
    [
        *map(failed, (Reason.NODE_LOST, Reason.EVICTED, Reason.PREEMPTED, Reason.CLUSTER_LOST, Reason.REPLICA_LOST)),
        *map(failed, (Reason.START_TIMEOUT, Reason.DEADLINE_EXCEEDED, Reason.KILLED)),
        BackendError("out of reach"),
        ValueError(),
    ],
    ids=repr,
)
def test_what_may_go_well_the_next_time_is_tried_again_as_airflow_would(error):
    assert decided(error) == RetryDecision.default()


def test_who_was_out_of_memory_is_tried_again_only_with_more():
    assert decided(failed(Reason.OOM_KILLED)).action is RetryAction.FAIL
    assert decided(failed(Reason.OOM_KILLED), job(oom_memory_factor=2)) == RetryDecision.default()


@pytest.mark.parametrize(
    ("replica", "argument", "before", "after"),
    [
        ("worker-3", "worker_resources", None, {"worker_resources": 1.5}),
        ("mapper-0", "worker_resources", {"worker_resources": 1.5}, {"worker_resources": 2.25}),
        (
            *("workers-boss-0", "coordinator_resources"),
            *({"worker_resources": 1.5}, {"worker_resources": 1.5, "coordinator_resources": 1.5}),
        ),
    ],
)
def test_that_memory_was_too_little_is_kept_for_the_next_try(replica, argument, before, after):
    store = {MEMORY_FACTORS: before} if before else {}
    assert grown(replica, argument, store) == {MEMORY_FACTORS: after}


def grown(replica: str, argument: str | None, store: dict[str, Any]) -> dict[str, Any]:
    """What is kept for the next try once a replica has run out of the memory that an argument gave it."""
    states = SimpleNamespace(get=store.get, set=store.__setitem__)
    verdict = replace(failed(Reason.OOM_KILLED, replica).verdict, argument=argument)
    with pytest.raises(JobFailed):
        job(oom_memory_factor=1.5).finish(Outcome(verdict), {"task_state_store": states})
    return store


def test_memory_that_no_argument_gives_does_not_grow_and_that_is_said(capsys):
    assert grown("worker-0", None, {}) == {}
    assert "the next try has as much memory: adapter 'dask', and no argument of the operator" in capsys.readouterr().out


def test_a_trigger_ends_no_task_whose_memory_may_grow():
    class Own(PracticusRunJobOperator):
        def finish(self, outcome, context):
            return super().finish(outcome, context)

    own = Own(task_id="t", adapter="dask", application="local:///job.py")
    assert [task.finishes_as_any() for task in (job(), job(oom_memory_factor=2), own)] == [True, False, False]
