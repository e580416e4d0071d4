from __future__ import annotations

import json
from dataclasses import replace

import pytest

from practicus_provider.runtime.practicus_runtime import contract
from practicus_provider.status import (
    Reason,
    ReplicaStatus,
    State,
    Status,
    Unreached,
    Verdict,
    explain_exit,
)
from practicus_provider.tail import CHAINED

TRACEBACK = [
    "Traceback (most recent call last):",
    '  File "job.py", line 1, in <module>',
    "    1 / 0",
    "ZeroDivisionError: division by zero",
]


def ended(exit_code: int | None = None, signal: str | None = None, role: str = "driver") -> ReplicaStatus:
    return ReplicaStatus(role, 0, State.FAILED, exit_code, signal)


def test_a_wrong_exit_code_is_an_error_of_the_replica_that_decides():
    assert explain_exit(ended(3), tail=["bye"], decides=True) == Verdict(
        State.FAILED,
        Reason.ERROR,
        "driver-0 exited with code 3",
        replica="driver-0",
        exit_code=3,
        log_tail=("bye",),
    )


@pytest.mark.parametrize("code", [0, 1])
def test_the_end_of_a_replica_that_serves_is_a_loss_whatever_its_exit_code(code):
    assert explain_exit(ended(code, role="coordinator"), tail=[], decides=False) == Verdict(
        State.FAILED,
        Reason.REPLICA_LOST,
        f"coordinator-0 exited with code {code} while the job was running",
        replica="coordinator-0",
        exit_code=code,
    )


def test_a_sigkill_comes_with_advice_about_memory():
    assert explain_exit(ended(signal="SIGKILL"), tail=[], decides=True) == Verdict(
        State.FAILED,
        Reason.KILLED,
        "driver-0 was killed by SIGKILL",
        "Nothing of ours sent it. Most often the kernel does when memory runs out: raise the replica's memory, or look "
        "at the kernel's log (dmesg).",
        replica="driver-0",
        signal="SIGKILL",
    )


def test_of_ranks_that_hang_the_one_that_fell_silent_first_is_named_and_for_how_long():
    hung = replace(ended(124, role="worker"), rank=2, silent=612.4)
    assert explain_exit(hung, tail=["[rank 2] in recv", "[rank 3] in talk"], decides=True) == Verdict(
        State.FAILED,
        Reason.PROGRESS_DEADLINE_EXCEEDED,
        "rank 2 (worker-0) fell silent 612.4 s ago, before all others; no rank has logged or reported progress within "
        "progress_timeout",
        "The first worker's log has the stacks of all ranks: look for the one that is not where the others wait. If "
        "they were at work, raise progress_timeout=, or call practicus_runtime.progress().",
        replica="worker-0",
        exit_code=124,
        log_tail=("in recv",),
        rank=2,
    )


@pytest.mark.parametrize(
    ("why", "advice"),
    [
        (contract.NO_DNS, ("DNS on ports 53 and 5353", "NetworkPolicy", "egress=", "dnsPolicy")),
        (contract.NO_NAME, ("DNS", "NetworkPolicy", "egress=", "dnsPolicy")),
        (contract.REFUSED, ("its log", "start_timeout=")),
        (contract.TIMED_OUT, ("NetworkPolicy", "firewall", "egress=", "DNS")),
        ("No route to host", ("NetworkPolicy", "firewall", "egress=", "DNS")),
    ],
)
@pytest.mark.parametrize(("decides", "then"), [(True, ""), (False, " while the job was running")])
def test_who_waited_in_vain_says_for_whom_and_why_with_a_way_out_that_fits(why, advice, decides, then):
    waited = replace(ended(69, role="worker"), unreached=Unreached("rank 0 (job-0.job)", why, 300))
    verdict = explain_exit(waited, tail=["gave up"], decides=decides)
    assert all(word in verdict.advice for word in advice)
    assert verdict == Verdict(
        State.FAILED,
        Reason.UNREACHABLE,
        f"worker-0 waited 300 s for rank 0 (job-0.job) in vain: {why}{then}",
        verdict.advice,
        replica="worker-0",
        exit_code=69,
        log_tail=("gave up",),
    )


def test_another_signal_is_named_without_a_guess():
    assert explain_exit(ended(signal="SIGSEGV", role="worker"), tail=[], decides=False) == Verdict(
        State.FAILED,
        Reason.KILLED,
        "worker-0 was killed by SIGSEGV while the job was running",
        replica="worker-0",
        signal="SIGSEGV",
    )


def test_a_port_that_is_taken_is_told_from_other_errors():
    tail = [*TRACEBACK[:3], "OSError: [Errno 98] Address already in use"]
    assert explain_exit(ended(1), tail=tail, decides=True) == Verdict(
        State.FAILED,
        Reason.PORT_IN_USE,
        "driver-0 exited with code 1",
        "A port that it listens on is taken: free it, or leave its choice to us by not naming one.",
        replica="driver-0",
        exit_code=1,
        log_tail=tuple(tail),
    )


def test_a_port_that_was_taken_and_done_without_is_not_the_cause():
    tail = ["WARN Utils: Address already in use: Service 'SparkUI' could not bind on port 4040", *TRACEBACK]
    assert explain_exit(ended(1), tail=tail, decides=True).reason is Reason.ERROR


def test_a_port_that_is_taken_is_told_also_from_torchs_words():
    tail = ["torch.distributed.DistNetworkError: The server socket has failed to listen, code: -98, name: EADDRINUSE"]
    assert explain_exit(ended(1), tail=tail, decides=True).reason is Reason.PORT_IN_USE


LACKS = {"torch": "Take another image."}
IMPORT = ["Traceback (most recent call last):", '  File "job.py", line 1, in <module>', "    import it"]
OWN = "Where driver-0 ran there is no Python module {!r}: install it there, or give files=."
THEIRS = OWN.replace("driver-0 ran", "a worker ran what driver-0 had sent")


@pytest.mark.parametrize(
    ("last", "advice"),
    [
        ("ModuleNotFoundError: No module named 'torch'", LACKS["torch"]),
        ("/usr/bin/python3: No module named torch", LACKS["torch"]),
        ("ModuleNotFoundError: No module named 'torchvision'", OWN.format("torchvision")),
        ("ModuleNotFoundError: No module named 'torch.old'", OWN.format("torch.old")),
        ("ValueError: no torch", ""),
    ],
    ids=["its module", "run by -m", "the user's", "a part of it", "another error"],
)
def test_a_missing_module_of_the_framework_is_told_with_its_way_out_and_the_user_s_own_with_another(last, advice):
    assert explain_exit(ended(1), tail=[*IMPORT, last], decides=True, lacks=LACKS).advice == advice


@pytest.mark.parametrize(
    "through",
    [
        [
            *IMPORT,
            '  File "/site-packages/distributed/client.py", line 431, in result',
            '  File "job.py", line 3, in f',
        ],
        [*IMPORT, '  File "/site-packages/dask/base.py", line 769, in compute', '  File "job.py", line 3, in f'],
        [*IMPORT, "pyspark.errors.PythonException: ", f"  {CHAINED[2]}. ...:", *IMPORT],
    ],
    ids=["Dask's future", "Dask's collection", "Spark"],
)
def test_a_module_that_a_worker_has_not_is_told_to_be_missing_there(through):
    tail = [*through, "ModuleNotFoundError: No module named 'helpers'"]
    assert explain_exit(ended(1), tail=tail, decides=True).advice == THEIRS.format("helpers")


@pytest.mark.parametrize("said", CHAINED)
def test_a_missing_module_of_the_framework_is_told_behind_the_error_that_was_raised_for_it(said):
    tail = [*IMPORT, "ModuleNotFoundError: No module named 'torch'", "", f"{said} ...:", "", *TRACEBACK]
    verdict = explain_exit(ended(1), tail=tail, decides=True, lacks=LACKS)
    assert (verdict.advice, verdict.log_tail) == (LACKS["torch"], tuple(line for line in tail if line))


def test_a_missing_module_of_the_user_s_behind_another_error_may_have_been_done_without():
    tail = [*IMPORT, "ModuleNotFoundError: No module named 'ujson'", f"{CHAINED[1]} ...:", *TRACEBACK]
    assert explain_exit(ended(1), tail=tail, decides=True, lacks=LACKS).advice == ""


def test_a_module_that_the_script_has_done_without_is_not_the_cause():
    tail = [*IMPORT, "ModuleNotFoundError: No module named 'torch'", "going on without", *TRACEBACK]
    assert explain_exit(ended(1), tail=tail, decides=True, lacks=LACKS).advice == ""


def test_of_several_ranks_of_a_replica_the_one_that_failed_is_named_and_its_lines_alone_are_shown():
    noise = [f"[rank 2] {line}" for line in (*TRACEBACK[:3], "RuntimeError: Connection closed by peer")]
    tail = ["[rank 3] start", *(f"[rank 3] {line}" for line in TRACEBACK), *noise, "[rank 30] other"]
    failed = replace(ended(1, role="worker"), rank=3)
    verdict = explain_exit(failed, tail=tail, decides=True)
    assert verdict == Verdict(
        State.FAILED,
        Reason.ERROR,
        "rank 3 (worker-0) exited with code 1",
        replica="worker-0",
        exit_code=1,
        log_tail=tuple(TRACEBACK),
        rank=3,
    )
    assert "Last lines of rank 3 (worker-0):" in verdict.text()


def test_a_rank_of_another_replica_is_named_with_that_one():
    """As where a coordinator decides, and ends because a worker's rank has failed for good."""
    failed = replace(ended(1, role="coordinator"), rank=3, culprit="worker-2")
    verdict = explain_exit(failed, tail=["round 1", *(f"[rank 3] {line}" for line in TRACEBACK)], decides=True)
    assert (verdict.message, verdict.replica) == ("rank 3 (worker-2) exited with code 1", "worker-2")
    assert verdict.log_tail == tuple(TRACEBACK)
    assert "Last lines of rank 3 (worker-2):" in verdict.text()


@pytest.mark.parametrize("mark", ["", "[rank 3] "])
def test_a_traceback_that_torch_has_marked_is_shown_as_python_writes_it(mark):
    tail = [f"{mark}start", *(f"{mark}[rank3]: {line}" for line in TRACEBACK)]
    failed = replace(ended(1, role="worker"), rank=3)
    assert explain_exit(failed, tail=tail, decides=True).log_tail == tuple(TRACEBACK)


def test_lines_of_a_replica_of_one_rank_do_not_say_whose_they_are():
    failed = replace(ended(1, role="worker"), rank=3)
    assert explain_exit(failed, tail=["start", *TRACEBACK], decides=True).log_tail == tuple(TRACEBACK)


def test_only_the_last_traceback_is_shown_with_what_follows_it():
    tail = ["start", *TRACEBACK, "", "retry", *TRACEBACK, "bye   "]
    assert explain_exit(ended(1), tail=tail, decides=True).log_tail == (*TRACEBACK, "bye")


def test_a_long_traceback_is_kept_whole():
    frames = [f'  File "job.py", line {line}, in f' for line in range(60)]
    tail = ["noise", TRACEBACK[0], *frames, TRACEBACK[-1]]
    assert explain_exit(ended(1), tail=tail, decides=True).log_tail == tuple(tail[1:])


def test_without_a_traceback_the_last_lines_are_shown_and_blank_ones_are_not():
    tail = [f"line {number}\n" if number % 2 else "  " for number in range(100)]
    assert explain_exit(ended(1), tail=tail, decides=True).log_tail == tuple(
        f"line {number}" for number in range(61, 100, 2)
    )


FULL = Verdict(State.FAILED, Reason.ERROR, "driver-0 exited", "Mend it.", "driver-0", 1, "SIGKILL", ("a", "b"))
VERDICTS = [FULL, Verdict(State.SUCCEEDED, Reason.COMPLETED, "done")]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_is_equal_after_its_way_through_json(verdict):
    assert Verdict.from_json(json.loads(json.dumps(verdict.to_json()))) == verdict


@pytest.mark.parametrize(
    "status",
    [
        Status(State.UNKNOWN),
        Status(
            State.FAILED,
            (
                ReplicaStatus("driver", 0, State.FAILED, 1, None, 1.5, 2.5),
                ReplicaStatus("worker", 0, State.FAILED, 69, unreached=Unreached("driver-0", contract.REFUSED, 300)),
                ReplicaStatus("worker", 1, State.RUNNING),
            ),
            FULL,
            2.5,
            '{"a": 1}',
        ),
    ],
)
def test_a_status_is_equal_after_its_way_through_json(status):
    assert Status.from_json(json.loads(json.dumps(status.to_json()))) == status


def test_the_user_reads_the_reason_the_advice_and_the_last_lines():
    assert FULL.text() == "Error: driver-0 exited\nMend it.\nLast lines of driver-0:\n    a\n    b"


def test_a_success_is_one_line():
    assert VERDICTS[1].text() == "Completed: done"


@pytest.mark.parametrize("state", State)
def test_nothing_follows_success_failure_and_cancellation_only(state):
    assert state.final == (state in (State.SUCCEEDED, State.FAILED, State.CANCELLED))


def test_a_summary_counts_the_replicas_of_each_role_by_state():
    replicas = (
        ReplicaStatus("coordinator", 0, State.RUNNING),
        ReplicaStatus("worker", 0, State.RUNNING),
        ReplicaStatus("worker", 1, State.PENDING),
        ReplicaStatus("worker", 2, State.RUNNING),
    )
    assert Status(State.PENDING, replicas).summary() == "pending: coordinator 1 running; worker 2 running, 1 pending"


def test_a_summary_says_once_why_replicas_are_pending():
    replicas = [ReplicaStatus("worker", index, State.PENDING, detail="Unschedulable: no cpu") for index in range(2)]
    status = Status(State.PENDING, (*replicas, ReplicaStatus("driver", 0, State.PENDING, detail="no image")))
    assert status.summary() == "pending: worker 2 pending; driver 1 pending (Unschedulable: no cpu) (no image)"


def test_a_summary_says_some_of_very_many_reasons():
    replicas = tuple(ReplicaStatus("worker", index, State.PENDING, detail=f"no {index}") for index in range(1000))
    said = "(no 0) (no 1) (no 2) (no 3) (no 4) (995 further reasons)"
    assert Status(State.PENDING, replicas).summary() == f"pending: worker 1000 pending {said}"


def test_a_summary_without_replicas_is_the_state():
    assert Status(State.UNKNOWN).summary() == "unknown"


def test_the_lines_of_a_verdict_of_no_replica_are_the_supervisors():
    verdict = Verdict(State.FAILED, Reason.SUPERVISOR_LOST, "it was killed", log_tail=("MemoryError",))
    assert verdict.text() == "SupervisorLost: it was killed\nLast lines of the supervisor:\n    MemoryError"
