"""What the verdict tells of a cluster whose time was over."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from practicus_provider.overdue import out_of_time, with_last_lines
from practicus_provider.runtime.practicus_runtime import contract, waiting
from practicus_provider.status import WAYS_OUT, Reason, ReplicaStatus, State, Verdict

OVER = "the cluster's time was over after 60 s, its timeout"
DRIVER = ReplicaStatus("driver", 0, State.RUNNING, started_at=1.0)
WORKER = ReplicaStatus("worker", 0, State.RUNNING, started_at=1.0)
LATE = ReplicaStatus("worker", 1, State.PENDING, detail="Unschedulable: 0/3 nodes are available")


def verdict(*replicas: ReplicaStatus, decides: str = "driver") -> Verdict:
    return out_of_time(60, replicas, [decides])


def test_a_job_whose_replicas_all_run_is_shown_by_its_driver():
    found = verdict(WORKER, DRIVER)
    assert (found.reason, found.message, found.replica) == (Reason.DEADLINE_EXCEEDED, OVER, "driver-0")
    way_out = (
        "If its last lines show it at work, raise timeout=, or make the job faster. If not, look at what it waited for."
    )
    assert found.advice == way_out


@pytest.mark.parametrize(
    ("late", "how"),
    [
        ([LATE], "worker-1 had not started (Unschedulable: 0/3 nodes are available)"),
        ([replace(LATE, detail="")], "worker-1 had not started"),
        ([replace(LATE, detail="", started_at=2.0)], "worker-1 was started but not ready"),
        ([replace(LATE, index=2, detail=""), LATE], f"worker-1 had not started ({LATE.detail}), nor were worker-2"),
        (
            [LATE, *(replace(LATE, index=index) for index in range(2, 7))],
            f"worker-1 had not started ({LATE.detail}), nor were worker-2, worker-3, worker-4 and 2 more",
        ),
    ],
    ids=["why", "nobody knows why", "not ready", "whose reason is known", "many"],
)
def test_a_replica_that_was_not_ready_is_to_be_looked_at_first(late, how):
    found = verdict(WORKER, *late, DRIVER)
    assert found.message == f"{OVER}; {how}"
    assert (found.replica, found.suspect) == ("driver-0", "worker-1")
    assert found.advice.startswith("Look at worker-1 first")


def test_a_driver_that_has_not_started_is_no_suspect_beside_itself():
    found = verdict(WORKER, replace(DRIVER, state=State.PENDING, started_at=None))
    assert (found.message, found.replica, found.suspect) == (f"{OVER}; driver-0 had not started", "driver-0", None)


def test_ranks_that_have_ended_are_told_from_those_that_have_not():
    ranks = [replace(WORKER, index=index, state=state) for index, state in enumerate([State.SUCCEEDED, State.RUNNING])]
    found = verdict(*ranks, decides="worker")
    assert (found.message, found.replica) == (f"{OVER}; worker-0 had ended, but not worker-1", "worker-1")


def test_a_cluster_that_only_serves_has_nobody_to_show():
    found = out_of_time(60, [WORKER], [])
    assert (found.message, found.replica, found.advice) == (OVER, None, "Raise timeout=, or make the job faster.")


def test_the_last_lines_are_those_of_both_and_as_they_are():
    tails = {"driver-0": ["Traceback (most recent call last):", "ValueError: x", "", "going on"], "worker-1": ["up"]}
    found = with_last_lines(verdict(LATE, DRIVER), tails)
    assert found.log_tail == ("Traceback (most recent call last):", "ValueError: x", "going on")
    assert found.text().splitlines()[-2:] == ["Last lines of worker-1:", "    up"]
    assert Verdict.from_json(json.loads(json.dumps(found.to_json()))) == found


WAITS = "waiting for coordinator-0 (10.0.0.1:8786) since 50 s: "


@pytest.mark.parametrize("why", [contract.NO_DNS, contract.NO_NAME, contract.REFUSED])
@pytest.mark.parametrize("mark", ["", "[rank 1] "])
def test_whoever_waited_for_another_has_the_advice_for_what_was_in_the_way(why, mark):
    found = with_last_lines(verdict(WORKER, DRIVER), {"driver-0": ["start", f"{mark}{WAITS}{why}"]})
    assert found.message == f"{OVER}; driver-0 had waited 50 s for coordinator-0 (10.0.0.1:8786): {why}"
    assert found.advice == WAYS_OUT[why]


def test_a_wait_that_is_over_is_no_cause():
    lines = [f"{WAITS}{contract.REFUSED}", "reached coordinator-0 (10.0.0.1:8786) after 55 s", "at work"]
    assert with_last_lines(verdict(DRIVER), {"driver-0": lines}).message == OVER


def test_the_words_of_a_wait_are_those_that_the_runtime_says(capsys):
    now = 0.0
    wait = waiting.Wait("coordinator-0", "127.0.0.1", 1, clock=lambda: now)
    while not wait.why:
        wait.over()
    now = 50.0
    while not wait.said:
        wait.over()
    found = with_last_lines(verdict(DRIVER), {"driver-0": capsys.readouterr().out.splitlines()})
    assert found.message == f"{OVER}; driver-0 had waited 50 s for coordinator-0 (127.0.0.1:1): {contract.REFUSED}"


def test_a_verdict_that_an_earlier_version_has_stored_is_read():
    stored = verdict(DRIVER).to_json()
    del stored["suspect"], stored["suspect_tail"]
    assert Verdict.from_json(stored) == verdict(DRIVER)
