"""Why a replica cannot start, was taken away or ended, as the verdict tells it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.observe import Pod, observe
from practicus_provider.status import Reason, Status, Verdict
from tests.kubernetes_objects import (
    AGAIN,
    ALONE,
    EVICTION,
    FAILED,
    LEAVING,
    PENDING,
    RANKS,
    REFUSED,
    SERVED,
    ended,
    ends,
    failed,
    job,
    over,
    pending,
    pod,
    runs,
    status,
    waiting,
)

# ---- it cannot start


def test_a_container_that_cannot_be_made_at_all_is_a_fault_of_its_image():
    words = 'exec: "python3": executable file not found in $PATH'
    found = observe(job(ALONE), [pod("driver", 0, ended(128, reason="StartError", message=f"{words}\n"))]).status
    assert found.verdict == Verdict(
        FAILED,
        Reason.CONFIG_ERROR,
        f"driver-0 cannot start in image python:3: {words}",
        "An image needs python3 (3.8 or newer) on its PATH, and what the job imports.",
        replica="driver-0",
    )


@pytest.mark.parametrize(
    ("reason", "words", "expected"),
    [
        ("ErrImagePull", "not found", Reason.IMAGE_PULL_FAILED),
        ("InvalidImageName", 'Failed to apply default image tag "A B"', Reason.IMAGE_PULL_FAILED),
        ("ErrImageNeverPull", "Container image is not present with pull policy of Never", Reason.IMAGE_PULL_FAILED),
        ("CreateContainerConfigError", 'secret "store" not found', Reason.CONFIG_ERROR),
        ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", Reason.CONFIG_ERROR),
    ],
)
def test_a_container_that_will_never_start_ends_the_job_at_once_with_the_kubelets_words(reason, words, expected):
    verdict = observe(job(ALONE), [pod("driver", 0, waiting(reason, words))]).status.verdict
    assert verdict is not None
    assert (verdict.state, verdict.reason, verdict.replica) == (FAILED, expected, "driver-0")
    assert words in verdict.message
    assert verdict.advice


@pytest.mark.parametrize(
    "words", ["dial tcp: i/o timeout", "connection reset by peer", "unexpected EOF", "net/http: TLS handshake timeout"]
)
def test_an_image_that_could_not_be_pulled_just_now_is_waited_for(words):
    detail = f"ErrImagePull: {words}"
    found = status(ALONE, pod("driver", 0, waiting("ErrImagePull", words)))
    assert found == Status(PENDING, (pending("driver", detail=detail),))


@pytest.mark.parametrize(
    "words",
    [
        "toomanyrequests: You have reached your pull rate limit",
        "unexpected status code: 429 Too Many Requests",
        "unexpected status code: 500 Internal Server Error",
        "unexpected status code: 502 Bad Gateway",
        "unexpected status code: 503 Service Unavailable",
        "net/http: request canceled (Client.Timeout exceeded while awaiting headers)",
        "context deadline exceeded",
    ],
)
def test_a_registry_that_is_busy_is_waited_for(words):
    assert status(ALONE, pod("driver", 0, waiting("ErrImagePull", words))).state is PENDING


def test_an_init_container_that_failed_is_named_and_its_log_read():
    failed_one = pod("driver", 0, waiting("PodInitializing"))
    failed_one["status"] |= {"phase": "Failed", "initContainerStatuses": [{"name": "fetch", "state": ended(3)}]}
    found = observe(job(ALONE), [failed_one])
    message = "driver-0 cannot start: its init container fetch exited with 3"
    advice = "Look at what pod_overrides= adds, here or in the connection."
    assert found.status.verdict == Verdict(FAILED, Reason.INIT_FAILED, message, advice, replica="driver-0")
    assert found.failed is not None
    assert found.failed.log_container == "fetch"


def test_an_init_container_without_an_image_is_told_with_its_own():
    found = pod("driver", 0, waiting("PodInitializing"))
    found["spec"]["initContainers"] = [{"name": "fetch", "image": "curl:1"}]
    state = waiting("ErrImagePull", "curl:1: not found")
    found["status"]["initContainerStatuses"] = [{"name": "fetch", "state": state}]
    verdict = observe(job(ALONE), [found]).status.verdict
    assert verdict is not None
    assert verdict.message == "driver-0 has no image curl:1 to run: curl:1: not found"


# ---- it was taken away


def test_a_replica_that_is_taken_off_its_node_ends_the_job_with_the_clusters_words():
    taken = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
    }
    lost = pod("worker", 1, runs(), status={"conditions": [taken]}, **LEAVING)
    pods = [pod("coordinator", 0, runs(), ready=True), pod("worker", 0, runs()), lost, pod("driver", 0, runs())]
    verdict = observe(job(SERVED), pods).status.verdict
    assert verdict is not None
    assert (verdict.state, verdict.reason, verdict.replica) == (FAILED, Reason.EVICTED, "worker-1")
    assert "(DeletionByTaintManager): Taint manager: deleting due to NoExecute taint" in verdict.message


def disrupted(reason: str, words: str, *, ready: str = "True") -> Manifest:
    conditions = [
        {"type": "Ready", "status": ready},
        {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": words},
    ]
    found = pod("driver", 0, runs(), status={"conditions": conditions})
    found["spec"]["nodeName"] = "node2"
    return found


@pytest.mark.parametrize(
    ("found", "reason", "message"),
    [
        (
            disrupted("EvictionByEvictionAPI", "Eviction API: evicting"),
            Reason.EVICTED,
            "driver-0 was taken off its node node2 (EvictionByEvictionAPI): Eviction API: evicting",
        ),
        (
            disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"),
            Reason.EVICTED,
            "driver-0 was taken off its node node2 (DeletionByTaintManager): Taint manager: deleting due to NoExecute "
            "taint",
        ),
        (
            disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint", ready="False"),
            Reason.NODE_LOST,
            "driver-0 was lost with node2, which does not answer",
        ),
        (
            disrupted("DeletionByPodGC", "PodGC: node no longer exists"),
            Reason.NODE_LOST,
            "driver-0 was lost with node2: PodGC: node no longer exists",
        ),
        (
            disrupted("PreemptionByScheduler", "default-scheduler: preempting to accommodate a higher priority pod"),
            Reason.PREEMPTED,
            "driver-0 was preempted: default-scheduler: preempting to accommodate a higher priority pod",
        ),
    ],
    ids=lambda value: value if isinstance(value, Reason) else "",
)
def test_why_a_pod_is_taken_away_is_told(found, reason, message):
    verdict = observe(job(ALONE), [found]).status.verdict
    assert verdict is not None
    assert (verdict.reason, verdict.message, verdict.replica) == (reason, message, "driver-0")


def test_a_deciding_replica_that_is_evicted_is_told_as_evicted():
    status = {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}
    verdict = observe(job(ALONE), [pod("driver", 0, ended(137), status=status)]).status.verdict
    assert verdict is not None
    assert verdict.reason is Reason.EVICTED


def test_a_replica_that_saved_and_left_well_as_it_was_evicted_is_no_success():
    saved = pod("driver", 0, ended(0, exit_code=0, stopped=True), status={"conditions": [EVICTION]}, **LEAVING)
    complete = {"type": "Complete", "status": "True"}
    for root in (job(ALONE), job(ALONE, complete)):
        verdict = observe(root, [saved]).status.verdict
        assert verdict is not None
        assert verdict.reason is Reason.EVICTED
    told = {"c-job-driver-0-abcde": {"exit_code": 0, "signal": None, "result": None, "stopped": True}}
    assert observe(job(ALONE), [pod("driver", 0, runs())], told=told).done == ()


def test_of_ranks_the_one_that_was_evicted_is_named_though_the_others_failed_by_themselves():
    evicted = pod("driver", 1, ended(1, exit_code=1, stopped=True), status={"conditions": [EVICTION]})
    evicted["metadata"] |= LEAVING
    pods = [pod("driver", 0, ended(1, 8, exit_code=1)), evicted, pod("driver", 2, ended(1, exit_code=1))]
    verdict = observe(job(RANKS, *ends("BackoffLimitExceeded")), pods).status.verdict
    assert verdict is not None
    assert (verdict.reason, verdict.replica) == (Reason.EVICTED, "driver-1")


def test_a_replica_that_its_node_refuses_is_told_so():
    refused = pod("driver", status=REFUSED)
    refused["spec"]["nodeName"] = "node2"
    verdict = observe(job(ALONE), [refused]).status.verdict
    message = f"driver-0 was refused by its node node2 (UnexpectedAdmissionError): {REFUSED['message']}"
    assert verdict == Verdict(FAILED, Reason.EVICTED, message, AGAIN, replica="driver-0")


# ---- it ended


@pytest.mark.parametrize(
    ("container", "signal"),
    [
        (ended(139, signal=11), "SIGSEGV"),
        (ended(143), "SIGTERM"),
        (ended(137), "SIGKILL"),
        (ended(227, signal=99), "signal 99"),
    ],
    ids=["of the command", "of the launcher", "of the kernel", "without a name"],
)
def test_a_replica_that_a_signal_ended_is_reported_with_it(container, signal):
    found = observe(job(ALONE), [pod("driver", 0, container)]).status
    assert found.replicas == (over("driver", code=None, signal=signal),)
    assert found.verdict is not None
    assert (found.verdict.reason, found.verdict.message) == (Reason.KILLED, f"driver-0 was killed by {signal}")
    assert (found.verdict.signal, found.verdict.exit_code) == (signal, None)


def test_an_exit_code_over_128_that_the_command_chose_is_no_signal():
    found = observe(job(ALONE), [pod("driver", 0, ended(255, exit_code=255))]).status
    assert (found.replicas, found.verdict) == ((over("driver", code=255),), failed(code=255))


@pytest.mark.parametrize(
    ("plan", "name", "field"),
    [(ALONE, "driver", "coordinator_resources"), (SERVED, "worker", "worker_resources")],
)
def test_a_replica_that_ran_out_of_memory_is_told_with_what_it_had_and_the_way_out(plan, name, field):
    lost = pod(name, 0, ended(137, reason="OOMKilled"))
    others = [pod("coordinator", 0, runs(), ready=True), pod("worker", 1, runs()), pod("driver", 0, runs())]
    found = observe(job(plan), [lost, *(others if plan is SERVED else [])])
    verdict = Verdict(
        FAILED,
        Reason.OOM_KILLED,
        f"{name}-0 was OOM-killed at 2Gi",
        f"Raise {field}=Resources(memory=...), or give each replica less to hold.",
        replica=f"{name}-0",
        signal="SIGKILL",
    )
    assert (found.ending or found.status.verdict, found.failed) == (verdict, Pod(lost))


def test_a_replica_whose_pod_was_deleted_says_so():
    verdict = observe(job(ALONE), [pod("driver", 0, ended(143, signal=15), **LEAVING)]).status.verdict
    assert verdict is not None
    assert verdict.message == "driver-0 was killed by SIGTERM"
    assert verdict.advice == "Its pod was deleted: by somebody, or with its namespace."


def test_a_replica_that_left_well_as_somebody_deleted_it_is_no_success_either():
    verdict = observe(job(ALONE), [pod("driver", 0, ended(0, exit_code=0, stopped=True), **LEAVING)]).status.verdict
    assert verdict == replace(failed(code=0), advice="Its pod was deleted: by somebody, or with its namespace.")


def test_a_pod_that_ended_without_an_exit_code_is_not_said_to_have_one():
    verdict = observe(job(ALONE), [pod("driver", status={"phase": "Failed"})]).status.verdict
    assert verdict is not None
    assert "None" not in verdict.message
