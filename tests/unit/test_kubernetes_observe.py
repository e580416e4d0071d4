"""What is made of a cluster's objects."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import CLUSTER, COMPLETE, INDEX, QUEUE, RELEASED, ROLE, TOLD
from practicus_provider.backends.kubernetes.observe import Observation, Pod, observe
from practicus_provider.judge import APART
from practicus_provider.plan import Plan
from practicus_provider.result import refused
from practicus_provider.runtime.practicus_runtime.contract import End, LastWords
from practicus_provider.status import Reason, State, Status, Verdict
from tests.kubernetes_objects import (
    AGAIN,
    ALONE,
    DAY,
    ELASTIC,
    EVICTION,
    FAILED,
    LEAVING,
    NAME,
    PENDING,
    RANKS,
    REFUSED,
    RUNNING,
    SERVED,
    SERVING,
    SPAWNED,
    SUCCEEDED,
    at,
    completed,
    ended,
    ends,
    failed,
    job,
    over,
    pending,
    pod,
    running,
    runs,
    status,
    waiting,
)
from tests.plans import plan, role

# ---- until all run


@pytest.mark.parametrize(
    ("pods", "replicas"),
    [
        ([], [pending("driver")]),
        ([pod("driver")], [pending("driver")]),
        ([pod("driver", 0, waiting())], [pending("driver")]),
        (
            [pod("driver", 0, waiting("ImagePullBackOff", "i/o timeout"))],
            [pending("driver", detail="ImagePullBackOff: i/o timeout")],
        ),
        (
            [
                pod(
                    "driver",
                    status={
                        "conditions": [
                            {
                                "type": "PodScheduled",
                                "status": "False",
                                "reason": "Unschedulable",
                                "message": "0/3 nodes are available: 3 Insufficient cpu.",
                            }
                        ]
                    },
                )
            ],
            [pending("driver", detail="Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.")],
        ),
    ],
    ids=["no pod", "not scheduled", "creating", "pulling", "unschedulable"],
)
def test_a_job_whose_container_does_not_run_yet_is_pending(pods, replicas):
    assert status(ALONE, *pods) == Status(PENDING, tuple(replicas))


def test_a_job_whose_container_runs_is_running():
    assert status(ALONE, pod("driver", 0, runs())) == Status(RUNNING, (running("driver"),))


def test_a_cluster_is_pending_until_its_last_replica_runs_and_shows_those_that_have_no_pod():
    pods = [pod("worker", 1, runs(2)), pod("coordinator", 0, runs(), ready=True), pod("driver", 0, runs())]
    replicas = (running("coordinator"), pending("worker", 0), running("worker", 1, 2), running("driver"))
    assert status(SERVED, *pods) == Status(PENDING, replicas)
    whole = (running("coordinator"), running("worker", 0), running("worker", 1, 2), running("driver"))
    assert status(SERVED, *pods, pod("worker", 0, runs())) == Status(RUNNING, whole)


def test_a_replica_with_a_port_that_makes_it_ready_runs_once_its_probe_says_so():
    rest = [pod("driver", 0, runs()), *(pod("worker", index, runs()) for index in range(2))]
    others = (running("worker", 0), running("worker", 1), running("driver"))
    started = pending("coordinator", started_at=at(1))
    assert status(SERVED, pod("coordinator", 0, runs()), *rest) == Status(PENDING, (started, *others))
    found = status(SERVED, pod("coordinator", 0, runs(), ready=True), *rest)
    assert found == Status(RUNNING, (running("coordinator"), *others))


def test_a_replica_that_ended_well_before_another_started_does_not_hold_up_the_start():
    found = status(RANKS, pod("driver", 0, ended(0)), pod("driver", 1, runs()), pod("driver", 2, runs()))
    assert found == Status(RUNNING, (over("driver"), running("driver", 1), running("driver", 2)))


def test_pods_of_other_clusters_are_not_looked_at():
    stranger = pod("driver", 0, ended(1))
    stranger["metadata"]["labels"][CLUSTER] = "c-other"
    assert status(ALONE, stranger) == Status(PENDING, (pending("driver"),))


@pytest.mark.parametrize("role", ["ghost", None])
def test_a_pod_of_no_role_of_the_cluster_s_is_not_looked_at(role):
    stranger = pod("driver", 0, ended(1))
    stranger["metadata"]["labels"][ROLE] = role or ""
    if role is None:
        del stranger["metadata"]["labels"][ROLE]
    assert status(ALONE, stranger) == Status(PENDING, (pending("driver"),))


# ---- success


@pytest.mark.parametrize("result", [None, '{"answer": 42}', '"größe"'])
def test_a_job_that_ends_well_has_the_result_of_its_last_words(result):
    root, driver = job(ALONE), pod("driver", 0, ended(0, exit_code=0, result=result))
    assert observe(root, [driver]) == Observation(Status(SUCCEEDED, (over("driver"),), completed(), result=result))


def test_a_result_that_was_too_long_for_the_last_words_is_in_the_pods_log():
    driver = pod("driver", 0, ended(0, exit_code=0, result_lines=3))
    expected = Status(SUCCEEDED, (over("driver"),), completed())
    assert observe(job(ALONE), [driver]) == Observation(expected, result_in=(Pod(driver), 3))


@pytest.mark.parametrize("lines", [0, -1, 10**9, 2.5, True, "3", [], {"a": "x" * 100}])
def test_a_number_of_lines_that_no_result_has_is_not_asked_for(lines):
    driver = pod("driver", 0, ended(0, exit_code=0, result_lines=lines))
    number = f"lines of its log whose number is of type {type(lines).__name__}"
    what = f"{lines} lines of its log" if type(lines) is int else number
    why = f"is said to have {what}; from 1 to 129 fit"
    assert observe(job(ALONE), [driver]) == Observation(Status(FAILED, (over("driver"),), refused(completed(), why)))


@pytest.mark.parametrize("message", ["", "not JSON", "[]", '"text"', "null"])
def test_a_container_without_words_of_ours_ended_as_kubernetes_says(message):
    driver = pod("driver", 0, ended(0, message=message))
    assert observe(job(ALONE), [driver]) == Observation(Status(SUCCEEDED, (over("driver"),), completed()))


def test_of_several_ranks_all_must_end_well_and_the_result_is_the_first_ones():
    pods = [pod("driver", i, ended(0, 9 - i, exit_code=0, result=str(i))) for i in range(3)]
    two = status(RANKS, *pods[:2], pod("driver", 2, runs()))
    assert two == Status(RUNNING, (over("driver", 0, when=9), over("driver", 1, when=8), running("driver", 2)))
    replicas = tuple(over("driver", i, when=9 - i) for i in range(3))
    assert observe(job(RANKS), pods[::-1]) == Observation(Status(SUCCEEDED, replicas, completed(), result="0"))


DONE = LastWords(End(0), "[1]")


def test_a_job_whose_pods_say_that_they_ended_well_still_runs_until_the_server_says_so_too():
    first, second = pod("driver", 0, ended(0)), pod("driver", 1, runs())
    told = {second["metadata"]["name"]: DONE}
    two = plan(role("driver", "", replicas=2))
    found = observe(job(two), [first, second], told=told)
    assert found == Observation(Status(RUNNING, (over("driver"), running("driver", 1))), done=(Pod(second),))


FAILED_WORDS = DONE._replace(end=End(3))
KILLED_WORDS = DONE._replace(end=End(signal=9))


@pytest.mark.parametrize("words", [FAILED_WORDS, KILLED_WORDS, LastWords(End(0), result_lines=9), LastWords()])
def test_a_pod_that_failed_or_whose_result_is_in_its_log_is_still_needed(words):
    driver = pod("driver", 0, runs())
    found = observe(job(ALONE), [driver], told={driver["metadata"]["name"]: words})
    assert found == Observation(Status(RUNNING, (running("driver"),)))


def test_not_all_ranks_have_said_their_end():
    pods = [pod("driver", index, runs()) for index in range(3)]
    found = observe(job(RANKS), pods, told={pods[0]["metadata"]["name"]: DONE})
    assert found.done == ()


def test_a_job_that_completed_without_our_seeing_its_pod_end_has_the_result_that_the_pod_told():
    complete = {"type": "Complete", "status": "True"}
    found = observe(job(ALONE, complete), [], told={"pod": DONE})
    assert (found.status.state, found.status.result) == (SUCCEEDED, "[1]")
    assert found.status.verdict == Verdict(SUCCEEDED, Reason.COMPLETED, "driver ended", exit_code=0)


def test_what_a_pod_told_is_kept_for_whoever_watches_next():
    told = json.dumps({"driver": {"exit_code": 0, "result": "7"}})
    root = job(ALONE, {"type": "Complete", "status": "True"}, **{TOLD: told})
    verdict = Verdict(SUCCEEDED, Reason.COMPLETED, "driver ended", exit_code=0)
    assert observe(root, []).status == Status(SUCCEEDED, (pending("driver"),), verdict, result="7")


def test_a_job_that_completed_but_whose_result_nobody_read_has_failed():
    found = observe(job(ALONE, {"type": "Complete", "status": "True"}), [])
    message = "the job completed, but its pods were removed before its result was read"
    assert found.status.verdict == Verdict(FAILED, Reason.CLUSTER_LOST, message)


def test_a_job_that_completed_waits_for_the_news_of_its_pod():
    complete = {"type": "Complete", "status": "True"}
    assert observe(job(ALONE, complete), [pod("driver", 0, runs())]).status.verdict is None


def test_a_job_that_ended_well_stays_so_whatever_becomes_of_what_served_it():
    pods = [
        pod("coordinator", 0, ended(143), **LEAVING),
        pod("worker", 0, ended(1)),
        pod("worker", 1, runs(), **LEAVING),
        pod("driver", 0, ended(0)),
    ]
    found = observe(job(SERVED, *ends("DeadlineExceeded")), pods)
    assert (found.status.state, found.status.verdict) == (SUCCEEDED, completed())


# ---- failure


def test_a_job_that_fails_says_its_exit_code_and_which_pod_has_its_last_lines():
    driver = pod("driver", 0, ended(3, exit_code=3))
    expected = Status(FAILED, (over("driver", code=3),), failed(code=3))
    assert observe(job(ALONE, *ends("BackoffLimitExceeded")), [driver]) == Observation(expected, failed=Pod(driver))


def test_of_several_ranks_the_first_that_failed_is_named():
    pods = [pod("driver", 0, ended(143, 8)), pod("driver", 1, ended(4, 7, exit_code=4)), pod("driver", 2, runs())]
    found = observe(job(RANKS), pods)
    replicas = (over("driver", 0, None, 8, "SIGTERM"), over("driver", 1, 4, 7), running("driver", 2))
    assert found == Observation(Status(RUNNING, replicas), ending=failed("driver-1", 4), failed=Pod(pods[1]))
    ended_all = (*replicas[:2], over("driver", 2, None, 9, "SIGTERM"))
    found = observe(job(RANKS), [*pods[:2], pod("driver", 2, ended(143))])
    assert found == Observation(Status(FAILED, ended_all, failed("driver-1", 4)), failed=Pod(pods[1]))
    found = observe(job(RANKS, *ends("BackoffLimitExceeded")), pods)
    assert found == Observation(Status(FAILED, replicas, failed("driver-1", 4)), failed=Pod(pods[1]))


def test_what_is_said_of_a_failure_holds_once_nothing_else_was_heard_for_long_enough():
    first, later = (pod("driver", n, ended(4, 7 - n, exit_code=4)) for n in range(2))
    third = pod("driver", 2, runs())
    found = observe(job(RANKS), [first, third], now=100.0)
    assert (found.status.verdict, found.ending, found.due) == (None, failed("driver-0", 4), 100.0 + APART)
    heard = dict.fromkeys(found.heard, 100.0)
    found = observe(job(RANKS), [first, later, third], heard=heard, now=101.0)
    assert (found.status.verdict, found.ending, found.due) == (None, failed("driver-1", 4), 100.0 + APART)
    found = observe(job(RANKS), [first, later, third], heard=heard, now=100.0 + APART)
    assert (found.status.verdict, found.ending, found.failed) == (failed("driver-1", 4), None, Pod(later))


def failed_rank(rank: int, when: float, signal: int | None = None, *, finished: int = 9) -> Manifest:
    """How the container of a replica ended, one rank of which failed at that second."""
    words = {"exit_code": None if signal else 1, "signal": signal, "at": at(0) + when, "rank": rank, "result": None}
    return ended(128 + signal if signal else 1, finished, message=json.dumps(words))


def first_of(*pods: Manifest) -> str:
    """What the verdict calls the first rank that failed."""
    verdict = observe(job(RANKS), [*pods, pod("driver", 2, runs())]).ending
    assert verdict is not None
    return verdict.message


def test_of_ranks_that_fail_in_one_second_the_first_is_told_by_its_words():
    pods = [pod("driver", 0, failed_rank(0, 9.7)), pod("driver", 1, failed_rank(3, 9.2))]
    assert first_of(*pods) == first_of(*pods[::-1]) == "rank 3 (driver-1) exited with code 1"


def test_a_rank_of_another_replica_is_told_with_that_one():
    words = {"exit_code": 1, "signal": None, "at": at(9), "rank": 3, "replica": "worker-2", "result": None}
    pods = [pod("driver", 0, ended(1, message=json.dumps(words))), pod("driver", 1, runs())]
    assert first_of(*pods) == "rank 3 (worker-2) exited with code 1"


def test_the_first_rank_is_told_also_if_its_pod_was_deleted_before_it_ended():
    """It ends the others of its replica first, and meanwhile the Job controller may have seen another pod's end."""
    told = {"deletionTimestamp": DAY.format(19), "deletionGracePeriodSeconds": 10}  # at second 9
    first = pod("driver", 1, failed_rank(1, 9.2, finished=10), **told)
    assert first_of(pod("driver", 0, failed_rank(0, 9.7)), first) == "rank 1 (driver-1) exited with code 1"


def test_a_rank_that_somebody_deletes_is_the_cause_of_those_that_fail_before_it_has_ended():
    told = {"deletionTimestamp": DAY.format(19), "deletionGracePeriodSeconds": 10}  # at second 9
    deleted = pod("driver", 1, failed_rank(1, 16.0, 15, finished=16), **told)
    assert first_of(pod("driver", 0, failed_rank(0, 15.0, finished=15)), deleted) == (
        "rank 1 (driver-1) was killed by SIGTERM"
    )


def test_a_rank_that_the_job_controller_deletes_for_another_ones_failure_is_not_its_cause():
    told = {"deletionTimestamp": DAY.format(20), "deletionGracePeriodSeconds": 10}  # at second 10
    for end in (failed_rank(1, 18.0, 9, finished=18), ended(137, 20)):
        assert first_of(pod("driver", 0, failed_rank(0, 9.2)), pod("driver", 1, end, **told)) == (
            "rank 0 (driver-0) exited with code 1"
        )


def test_a_replica_that_was_killed_before_it_could_say_anything_is_the_cause_of_what_failed_then():
    killed = pod("driver", 1, ended(137, 10, reason="OOMKilled"))
    assert first_of(pod("driver", 0, failed_rank(0, 9.7)), killed) == "driver-1 was OOM-killed at 2Gi"


def test_a_rank_that_was_killed_is_the_cause_whatever_the_nodes_clocks_say():
    killed = pod("driver", 1, failed_rank(1, 10.0, 9, finished=10))
    assert first_of(pod("driver", 0, failed_rank(0, 9.7)), killed) == ("rank 1 (driver-1) was killed by SIGKILL")


def test_of_ranks_that_end_in_one_second_the_one_that_nobody_deleted_is_named():
    """The Job controller deletes the others, which then end by SIGTERM."""
    pods = [pod("driver", 0, ended(143), **LEAVING), pod("driver", 1, ended(4, exit_code=4)), pod("driver", 2, runs())]
    assert observe(job(RANKS), pods).ending == failed("driver-1", 4)


# ---- the root's end


TIMED_OUT = Verdict(
    FAILED,
    Reason.DEADLINE_EXCEEDED,
    "the cluster's time was over after 300 s, its timeout",
    "Raise timeout=, or make the job faster.",
)
LEFT = replace(
    TIMED_OUT,
    advice="If its last lines show it at work, raise timeout=, or make the job faster. "
    "If not, look at what it waited for.",
    replica="driver-0",
)
ABANDONED = Verdict(
    State.CANCELLED,
    Reason.ABANDONED,
    "nobody has watched the cluster for as long as its lease allows: its task is over",
)


@pytest.mark.parametrize(
    ("how", "verdict"),
    [
        ({}, TIMED_OUT),
        ({"lease": 600}, TIMED_OUT),
        ({"lease": 60}, ABANDONED),
        ({"lease": 60, RELEASED: "true"}, Verdict(State.CANCELLED, Reason.DELETED, "the cluster was deleted")),
    ],
    ids=["timeout", "timeout before the lease", "lease", "released"],
)
@pytest.mark.parametrize(
    ("pods", "replica"),
    [
        ([], pending("driver")),
        ([pod("driver", 0, runs(), **LEAVING)], running("driver")),
        ([pod("driver", 0, ended(143), **LEAVING)], over("driver", code=None, signal="SIGTERM")),
    ],
    ids=["gone", "leaving", "ended by it"],
)
@pytest.mark.parametrize("conditions", [ends("DeadlineExceeded"), ends("DeadlineExceeded")[:1]], ids=["ended", "soon"])
def test_a_root_that_met_its_deadline_says_whose_it_was(how, verdict, pods, replica, conditions):
    found = observe(job(ALONE, *conditions, **how), pods)
    late = {}
    if pods and verdict is TIMED_OUT:  # there is a log to read
        verdict, late = LEFT, {"driver-0": pods[0]}
    assert {name: pod.manifest for name, pod in found.late.items()} == late
    assert replace(found, late={}) == Observation(Status(verdict.state, (replica,), verdict))


def test_a_root_that_met_its_deadline_names_the_replica_that_was_not_ready_and_has_both_logs():
    pods = [
        pod("coordinator", 0, runs(), **LEAVING),
        pod("worker", 0, runs()),
        pod("worker", 1, runs()),
        pod("driver", 0, runs()),
    ]
    found = observe(job(SERVED, *ends("DeadlineExceeded")), pods)
    assert {name: pod.manifest for name, pod in found.late.items()} == {"driver-0": pods[3], "coordinator-0": pods[0]}
    assert found.status.verdict.message.endswith("; coordinator-0 was started but not ready")


def test_a_root_that_met_its_deadline_says_why_a_replica_has_never_started():
    pods = [pod("worker", 1, waiting("ImagePullBackOff", "i/o timeout")), pod("driver", 0, runs())]
    verdict = observe(job(SERVED, *ends("DeadlineExceeded")), pods).status.verdict
    assert verdict.message.endswith("; worker-1 had not started (ImagePullBackOff: i/o timeout)")
    assert (verdict.replica, verdict.suspect) == ("driver-0", "worker-1")


def gone(who: str, replica: str | None = None) -> Verdict:
    message = f"{who} is gone without a trace: its pod was removed by force, or with its node"
    return Verdict(FAILED, Reason.REPLICA_LOST, message, AGAIN, replica=replica)


GAVE_UP = ends("BackoffLimitExceeded", "Job has reached the specified backoff limit")


@pytest.mark.parametrize("conditions", [GAVE_UP, GAVE_UP[:1]], ids=["ended", "soon"])
def test_a_root_that_failed_without_a_pod_that_tells_why_has_lost_it(conditions):
    found = observe(job(ALONE, *conditions), [])
    assert found == Observation(Status(FAILED, (pending("driver"),), gone("driver-0", "driver-0")))


def test_a_root_that_failed_waits_for_the_news_of_its_pod():
    assert observe(job(ALONE, *GAVE_UP), [pod("driver", 0, runs())]).status == Status(RUNNING, (running("driver"),))


@pytest.mark.parametrize(
    ("left", "verdict"),
    [([0], gone("worker-1", "worker-1")), ([], gone("a replica of worker")), ([0, 1], None)],
    ids=["one is gone", "all are gone by now", "all are there yet"],
)
def test_a_replica_of_another_job_that_is_gone_without_a_trace_is_a_verdict_that_waits(left, verdict):
    workers = {"metadata": {"labels": {CLUSTER: NAME, ROLE: "worker"}}, "status": {"conditions": list(GAVE_UP)}}
    pods = [pod("coordinator", 0, runs(), ready=True), pod("driver", 0, runs())]
    pods += [pod("worker", index, runs(), **LEAVING) for index in left]
    found = observe(job(SERVED), pods, jobs=[job(SERVED), workers])
    assert (found.ending, found.status.verdict) == (verdict, None)


def test_a_condition_that_is_not_met_is_none():
    condition = {"type": "Failed", "status": "False", "reason": "DeadlineExceeded"}
    assert observe(job(ALONE, condition), []) == Observation(Status(PENDING, (pending("driver"),)))


def test_a_root_that_failed_where_nobody_decides_says_why_its_own_pod_ended():
    lost = pod("coordinator", 0, ended(137, reason="OOMKilled"))
    found = observe(job(SERVING, *ends("BackoffLimitExceeded")), [lost, pod("worker", 0, runs())])
    verdict = found.status.verdict or found.ending
    assert verdict is not None
    assert (verdict.reason, found.failed) == (Reason.OOM_KILLED, Pod(lost))


# ---- replicas that serve


@pytest.mark.parametrize(
    ("container", "code", "what"),
    [
        (ended(0, exit_code=0), 0, "exited with code 0"),
        (ended(5, exit_code=5), 5, "exited with code 5"),
    ],
)
def test_the_end_of_a_replica_that_serves_is_a_verdict_that_waits_for_the_deciding_roles(container, code, what):
    lost = pod("worker", 1, container)
    pods = [pod("coordinator", 0, runs(), ready=True), pod("worker", 0, runs()), lost, pod("driver", 0, runs())]
    replicas = (running("coordinator"), running("worker", 0), over("worker", 1, code), running("driver"))
    message = f"worker-1 {what} while the job was running"
    verdict = Verdict(FAILED, Reason.REPLICA_LOST, message, replica="worker-1", exit_code=code)
    assert observe(job(SERVED), pods) == Observation(Status(RUNNING, replicas), verdict, Pod(lost))


def test_of_replicas_that_served_the_one_that_ended_first_is_named_and_none_that_was_ended_after_it():
    first, second = pod("worker", 1, ended(1, 5, exit_code=1)), pod("worker", 0, ended(143, 4, signal=15), **LEAVING)
    found = observe(job(SERVED), [pod("coordinator", 0, runs()), second, first, pod("driver", 0, runs())])
    assert found.failed == Pod(first)
    assert found.ending is not None
    assert found.ending.message == "worker-1 exited with code 1 while the job was running"


def test_a_replica_that_is_gone_is_named_and_none_that_was_ended_after_it():
    workers = {"metadata": {"labels": {CLUSTER: NAME, ROLE: "worker"}}, "status": {"conditions": list(GAVE_UP)}}
    pods = [pod("coordinator", 0, runs()), pod("worker", 0, ended(143, signal=15), **LEAVING), pod("driver", 0, runs())]
    found = observe(job(SERVED), pods, jobs=[workers])
    assert (found.ending, found.failed) == (gone("worker-1", "worker-1"), None)


def test_a_replica_that_serves_and_is_being_deleted_runs_until_it_has_ended():
    pods = [
        pod("coordinator", 0, runs(), ready=True),
        *(pod("worker", 0, runs(), **LEAVING), pod("worker", 1, runs()), pod("driver", 0, runs())),
    ]
    whole = (running("coordinator"), running("worker", 0), running("worker", 1), running("driver"))
    assert status(SERVED, *pods) == Status(RUNNING, whole)


def test_a_cluster_in_which_nobody_decides_runs_until_one_of_its_replicas_ends():
    serving = [pod("coordinator", 0, runs(), ready=True), pod("worker", 0, runs())]
    assert status(SERVING, *serving) == Status(RUNNING, (running("coordinator"), running("worker")))
    lost = pod("worker", 0, ended(1, exit_code=1))
    found = observe(job(SERVING), [serving[0], lost])
    assert found.status == Status(RUNNING, (running("coordinator"), over("worker", code=1)))
    assert (found.ending and found.ending.reason, found.failed) == (Reason.REPLICA_LOST, Pod(lost))


# ---- a root that somebody suspends


def held(plan: Plan, *, queue: str | None = None) -> Manifest:
    """A root that was let go, or handed to a queue, and is suspended."""
    root = job(plan, **{COMPLETE: "true"})
    root["spec"]["suspend"] = True
    root["metadata"]["labels"] |= {QUEUE: queue} if queue else {}
    return root


def test_a_root_that_its_queue_holds_is_pending_and_says_in_which():
    found = observe(held(RANKS, queue="team-a"), [])
    assert found == Observation(Status(PENDING, tuple(pending("driver", n, "queued in team-a") for n in range(3))))
    assert found.status.summary() == "pending: driver 3 pending (queued in team-a)"


def test_a_root_that_somebody_else_suspends_says_so_and_what_serves_it_runs_on():
    pods = [pod("coordinator", 0, runs(), ready=True), *(pod("worker", n, runs()) for n in range(2))]
    assert observe(held(SERVED), pods).status.summary() == (
        "pending: coordinator 1 running; worker 2 running; "
        "driver 1 pending (suspended, not by us: suspend of Job c-job is true)"
    )


def test_a_root_that_its_creator_has_not_let_go_is_no_ones_suspension():
    root = held(ALONE)
    del root["metadata"]["annotations"][COMPLETE]
    assert observe(root, []) == Observation(Status(PENDING, (pending("driver"),)))


@pytest.mark.parametrize("state", [runs(), ended(143, signal=15, stopped=True)])
def test_pods_that_go_because_the_root_is_suspended_are_no_failure(state):
    found = observe(held(ALONE, queue="q"), [pod("driver", 0, state, **LEAVING)])
    assert found == Observation(Status(PENDING, (pending("driver", detail="queued in q"),)))


def test_a_root_that_is_resumed_waits_for_new_pods_while_the_old_ones_go():
    root = job(ALONE, **{COMPLETE: "true"})
    old = pod("driver", 0, ended(143, signal=15, stopped=True), **LEAVING, creationTimestamp=DAY.format(1))
    root["status"]["startTime"] = DAY.format(9)
    assert observe(root, [old]) == Observation(Status(PENDING, (pending("driver"),)))
    new = pod("driver", 0, runs(10), creationTimestamp=DAY.format(9))
    assert observe(root, [old, new]).status == Status(RUNNING, (running("driver", since=10),))


def test_a_pod_that_the_job_controller_made_just_before_it_noted_the_start_is_of_this_run():
    root = job(ALONE, **{COMPLETE: "true"})
    root["status"]["startTime"] = DAY.format(2)
    leaving = {"deletionTimestamp": DAY.format(13), "deletionGracePeriodSeconds": 10}
    made = pod("driver", 0, runs(1), **leaving, creationTimestamp=DAY.format(1))
    assert observe(root, [made]).status == Status(RUNNING, (running("driver", since=1),))


def test_a_root_whose_controller_has_not_resumed_it_yet_waits_likewise():
    root = job(ALONE, {"type": "Suspended", "status": "True"}, **{COMPLETE: "true"})
    old = pod("driver", 0, ended(143, signal=15, stopped=True), **LEAVING, creationTimestamp=DAY.format(1))
    assert observe(root, [old]) == Observation(Status(PENDING, (pending("driver"),)))


# ---- elastic roles


BASE = [pod("coordinator", 0, runs(), ready=True), pod("driver", 0, runs())]


def elastic(*workers: Manifest) -> Status:
    return status(ELASTIC, *BASE, *workers)


def test_an_elastic_cluster_runs_with_its_first_worker_and_shows_those_that_there_are():
    assert elastic() == Status(PENDING, (running("coordinator"), running("driver")))
    assert elastic(pod("worker", 0)) == Status(PENDING, (running("coordinator"), pending("worker"), running("driver")))
    two = elastic(pod("worker", 4), pod("worker", 3, runs()))
    workers = (running("worker", 3), pending("worker", 4))
    assert two == Status(RUNNING, (running("coordinator"), *workers, running("driver")))


@pytest.mark.parametrize(
    "gone",
    [
        pod("worker", 0, ended(0)),
        pod("worker", 0, ended(1)),
        pod("worker", 0, ended(137, reason="OOMKilled")),
        pod("worker", 0, runs(), **LEAVING),
        pod("worker", 0, **LEAVING),
    ],
    ids=["ended", "failed", "out of memory", "leaving", "never ran"],
)
def test_an_elastic_replica_that_leaves_is_no_longer_shown_and_no_loss(gone):
    whole = (running("coordinator"), running("worker", 1), running("driver"))
    assert elastic(gone, pod("worker", 1, runs())) == Status(RUNNING, whole)


def test_a_cluster_whose_replicas_the_framework_makes_runs_without_any():
    assert status(SPAWNED, pod("driver", 0, runs())) == Status(RUNNING, (running("driver"),))


def test_a_pod_that_spark_named_is_shown_by_the_number_in_its_name():
    executor = pod("worker", 0, runs())
    executor["metadata"]["name"] = "c-job-worker-exec-12"
    del executor["metadata"]["labels"][INDEX]
    found = status(SPAWNED, pod("driver", 0, runs()), executor)
    assert found == Status(RUNNING, (running("driver"), running("worker", 12)))


def test_elastic_replicas_that_fail_again_and_again_end_the_job():
    found = observe(job(ELASTIC), [*BASE, *(pod("worker", index, ended(1, exit_code=1)) for index in range(10))])
    verdict = found.ending or found.status.verdict
    assert verdict is not None
    assert verdict.reason is Reason.REPLICA_LOST


def test_elastic_replicas_that_their_nodes_evict_do_not_count_as_failed():
    evicted = {"phase": "Failed", "conditions": [EVICTION | {"reason": "TerminationByKubelet"}]}
    pods = (pod("worker", index, ended(1, exit_code=137), status=evicted) for index in range(10))
    found = observe(job(ELASTIC), [*BASE, *pods])
    assert (found.ending, found.status.verdict) == (None, None)


def test_elastic_replicas_that_their_nodes_refuse_again_and_again_end_the_job():
    for number, reason in ((9, None), (10, Reason.EVICTED)):
        found = observe(job(ELASTIC), [*BASE, *(pod("worker", index, status=REFUSED) for index in range(number))])
        assert (found.ending and found.ending.reason) == reason


# ---- further parts


PARTS = plan(role("driver", "", replicas=2), replace(role("driver2", ""), part_of="driver"))


def further(*conditions: Manifest, lease: float | None = None) -> Manifest:
    """The Job of the further part."""
    labels = {CLUSTER: NAME, ROLE: "driver2"}
    return {**job(PARTS, *conditions, lease=lease), "metadata": {"name": "n-driver2", "labels": labels}}


def test_where_a_role_has_further_parts_all_of_them_must_end_well():
    complete = {"type": "Complete", "status": "True"}
    pods = [pod("driver", index, ended(0, exit_code=0, result=str(index))) for index in range(2)]
    found = observe(job(PARTS, complete), [*pods, pod("driver2", 0, runs())])
    assert (found.status.state, found.status.verdict, found.ending) == (RUNNING, None, None)
    found = observe(job(PARTS, complete), [*pods, pod("driver2", 0, ended(0, 12, exit_code=0, result="2"))])
    assert (found.status.verdict, found.status.result) == (completed("driver2-0"), "0")
    told = {f"{NAME}-{name}": LastWords(End(0), name) for name in ("0-x", "1-x", "driver2-0-x")}
    root, other = job(PARTS, complete), further(complete)
    assert observe(root, [], told=told).status.verdict is None
    found = observe(root, [], told=told, jobs=[root, other])
    assert (found.status.state, found.status.result) == (SUCCEEDED, "0-x")
    found = observe(job(PARTS, complete), [*pods, pod("driver2", 0, ended(3, 12, exit_code=3))])
    assert found.status.verdict == failed("driver2-0", 3)


@pytest.mark.parametrize(("lease", "verdict"), [(60, ABANDONED), (None, TIMED_OUT)])
def test_a_part_that_met_its_deadline_after_the_roots_end_says_whose_it_was(lease, verdict):
    root = job(PARTS, {"type": "Complete", "status": "True"}, lease=lease)
    part = further(*ends("DeadlineExceeded"), lease=lease)
    assert observe(root, [], jobs=[root, part]).status.verdict == verdict


def test_jobs_of_other_clusters_are_not_looked_at():
    stranger = further(*ends("DeadlineExceeded"))
    stranger["metadata"]["labels"][CLUSTER] = "c-other"
    assert observe(job(PARTS), [], jobs=[stranger]).status.verdict is None
