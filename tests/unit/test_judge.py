"""What the ends of a job's replicas come to, by the table that both backends are held to, and by what one of them knows
beside."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from practicus_provider.judge import APART, AT_ONCE, GOES_ON, NEARBY, RULES, Case, Decision, End, first_failure, judge
from practicus_provider.plan import Plan
from practicus_provider.status import Reason, ReplicaStatus, State, Verdict, explain_exit
from tests.judged import JUDGED, LEAVES, RANKS, SERVED, Judged, Told

DOOMED = Verdict(State.FAILED, Reason.EVICTED, "worker-0 was taken off its node")
LATE = Verdict(State.FAILED, Reason.DEADLINE_EXCEEDED, "the cluster's time was over")
GONE = Verdict(State.FAILED, Reason.REPLICA_LOST, "worker-0 is gone without a trace")


def end(told: Told, **more: object) -> End:
    role, _, index = told.replica.rpartition("-")
    state = State.SUCCEEDED if told.code == 0 else State.FAILED
    replica = ReplicaStatus(role, int(index), state, told.code, told.signal, ended_at=told.at)
    return replace(End(replica, told.at if told.heard is None else told.heard), **more)  # type: ignore[arg-type]


def case(plan: Plan, *ends: End, **more: object) -> Case:
    expected = sum(role.replicas for role in plan.roles if plan.decisive(role))
    ended = [one for one in ends if plan.decisive(plan.role(one.replica.role))]
    made = Case(plan.decides, plan.roles, ends, NEARBY, awaits=len(ended) < expected)
    return replace(made, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("judged", JUDGED.values(), ids=JUDGED)
def test_what_is_heard_of_a_job_comes_to_what_the_table_says(judged: Judged) -> None:
    plan = judged.plan
    decision = judge(case(plan, *map(end, judged.ends)))
    verdict = decision.verdict
    if verdict is None and decision.end is not None:
        decides = plan.decisive(plan.role(decision.end.replica.role))
        verdict = explain_exit(decision.end.replica, tail=(), decides=decides)
    cause = decision.end.replica.name if decision.end else None
    assert (decision.due, cause, verdict and verdict.reason) == (judged.due, judged.cause, judged.reason)


@pytest.mark.parametrize("judged", JUDGED.values(), ids=JUDGED)
def test_in_which_order_ends_are_heard_of_does_not_matter(judged: Judged) -> None:
    ends = [end(told) for told in judged.ends]
    there, back = judge(case(judged.plan, *ends)), judge(case(judged.plan, *ends[::-1]))
    assert there.due == back.due
    if judged.reason is not Reason.COMPLETED:
        assert there.end == back.end


def test_there_are_so_many_rules_and_each_has_a_sentence():
    assert len(RULES) == len({rule.__doc__ for rule in RULES if rule.__doc__}) == 6


FAILED, CRASHED = end(Told("worker-1", 7, at=5)), end(Told("worker-0", 3, at=5))
BOTH = tuple(end(Told(f"worker-{index}", 1, at=5 + index)) for index in range(3))


@pytest.mark.parametrize(
    ("found", "decision"),
    [
        (case(RANKS, doomed=DOOMED), Decision(AT_ONCE, verdict=DOOMED)),
        (case(RANKS, FAILED, doomed=DOOMED), Decision(AT_ONCE, verdict=DOOMED)),
        (case(RANKS, *BOTH, doomed=DOOMED), Decision(AT_ONCE, BOTH[0])),
        (case(RANKS, FAILED, late=LATE, doomed=DOOMED), Decision(AT_ONCE, verdict=DOOMED)),
        (case(RANKS, FAILED, late=LATE), Decision(AT_ONCE, verdict=LATE)),
        (case(RANKS, *BOTH, late=LATE), Decision(AT_ONCE, BOTH[0])),
        (case(RANKS, *(replace(one, told_at=4.0) for one in BOTH), late=LATE), Decision(AT_ONCE, verdict=LATE)),
        (case(RANKS, FAILED, awaits=False), Decision(AT_ONCE, FAILED)),
        (case(SERVED, CRASHED, apart=APART), Decision(5 + APART, CRASHED)),
        (case(SERVED, CRASHED, closing=True), Decision(AT_ONCE, CRASHED)),
        (case(SERVED, gone=GONE, gone_at=3.0, apart=APART), Decision(3 + APART, verdict=GONE)),
        (case(SERVED, gone=GONE, closing=True), Decision(AT_ONCE, verdict=GONE)),
        (case(SERVED, CRASHED, gone=GONE, gone_at=3.0), Decision(5 + NEARBY, CRASHED)),
        (case(SERVED, replace(CRASHED, told_at=4.0), gone=GONE, gone_at=3.0), Decision(3 + NEARBY, verdict=GONE)),
        (case(LEAVES, late=LATE), Decision(AT_ONCE, verdict=LATE)),
        (case(LEAVES), GOES_ON),
    ],
    ids=[
        "doomed",
        "doomed while a failure settles",
        "all had ended before one was doomed",
        "doomed as the time was over",
        "the time was over while a failure settled",
        "all had ended before the time was over",
        "all were ended as the time was over",
        "no other will be heard of",
        "two kubelets",
        "the backend ends all",
        "gone",
        "gone, and the backend ends all",
        "gone, and another crashed by itself",
        "gone, and another was ended for it",
        "late",
        "nothing",
    ],
)
def test_the_first_rule_that_has_an_answer_gives_it(found: Case, decision: Decision) -> None:
    assert judge(found) == decision


@pytest.mark.parametrize(
    "cause",
    [
        end(Told("worker-0", None, 20, "SIGKILL")),
        end(Told("worker-0", 1, 20), taken=True),
        end(Told("worker-0", 1, 20), taken=True, told_at=19.0),
        end(Told("worker-0", 1, 9)),
        end(Told("worker-0", 1, 9), told_at=5.0),
        end(Told("worker-0", None, 20, "SIGTERM"), told_at=8.0),
    ],
    ids=["killed", "taken", "taken and told", "earlier", "earlier, and told to go after it", "told to go before"],
)
def test_the_cause_is_the_one_that_nobody_s_failure_explains(cause: End) -> None:
    others = [end(Told("worker-1", 1, 10)), end(Told("worker-2", None, 11, "SIGKILL"), told_at=10.0, stamped=False)]
    assert first_failure([*others, cause]) == cause


def test_who_was_ended_because_something_beside_another_failed_is_no_cause():
    spoilt = end(Told("worker-1", 0, 10), spoilt=True)
    ended = end(Told("worker-0", 1, 12), told_at=11.0)
    assert first_failure([ended, spoilt]) == spoilt
    assert judge(case(RANKS, ended, spoilt, end(Told("worker-2", 0, 9)))) == Decision(AT_ONCE, spoilt)


def test_a_failure_that_is_no_fault_of_its_own_does_not_count_against_an_elastic_role():
    judged = JUDGED["an elastic role crashes once too often"]
    ends = [end(told, innocent=index == 0) for index, told in enumerate(judged.ends)]
    assert judge(case(judged.plan, *ends)).due == inf
