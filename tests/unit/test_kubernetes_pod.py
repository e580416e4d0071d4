"""What one pod says: why it waits, and where it tells little."""

from __future__ import annotations

import pytest

from practicus_provider.backends.kubernetes.observe import Observation, Pod, observe
from practicus_provider.status import ReplicaStatus, Status
from tests.kubernetes_objects import (
    ALONE,
    DAY,
    FAILED,
    LEAVING,
    PENDING,
    at,
    ended,
    job,
    pending,
    pod,
    runs,
    status,
    waiting,
)

# ---- what it waits for


def test_trying_to_pull_an_image_and_waiting_for_the_next_try_read_the_same():
    words = 'failed to pull "i": connection refused'
    tries = pod("driver", 0, waiting("ErrImagePull", words))
    rests = pod("driver", 0, waiting("ImagePullBackOff", f'Back-off pulling image "i": ErrImagePull: {words}'))
    expected = Status(PENDING, (pending("driver", detail=f"ErrImagePull: {words}"),))
    assert status(ALONE, tries) == status(ALONE, rests) == expected


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ("2 Insufficient cpu.", " It asks for cpu 500, memory 2Gi."),
        ("2 node(s) didn't match Pod's node affinity/selector.", " It asks for a node with disk=ssd."),
        ('persistentvolumeclaim "data" not found.', ""),
    ],
    ids=["resources", "labels", "neither"],
)
def test_a_pod_that_fits_no_node_says_what_of_it_does_not(words, asked):
    more = " preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod."
    words = f"0/2 nodes are available: {words}"
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words + more}
    found = pod("driver", status={"conditions": [scheduled]})
    found["spec"]["containers"][0]["resources"] = {"requests": {"memory": "2Gi", "cpu": "500"}}
    found["spec"]["nodeSelector"] = {"disk": "ssd"}
    assert status(ALONE, found) == Status(PENDING, (pending("driver", detail=f"Unschedulable: {words}{asked}"),))


@pytest.mark.parametrize(
    ("largest", "words"),
    [
        ({"cpu": "8", "memory": "30.9Gi", "vendor.com/gpu": "4"}, " The largest node has cpu 8, vendor.com/gpu 4."),
        ({"cpu": "8", "vendor.com/gpu": "0"}, " The largest node has cpu 8. No node has any vendor.com/gpu."),
        ({"cpu": "8"}, " The largest node has cpu 8. No node has any vendor.com/gpu."),
        ({}, ""),
    ],
    ids=["some", "none that is healthy", "none", "unknown"],
)
def test_of_what_no_node_has_enough_it_is_said_how_much_the_largest_one_has(largest, words):
    why = "0/2 nodes are available: 1 Insufficient cpu, 1 Insufficient vendor.com/gpu, 2 Insufficient cpu."
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why}
    found = pod("driver", status={"conditions": [scheduled]})
    found["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "500"}}
    seen = observe(job(ALONE), [found], largest=largest)
    detail = f"Unschedulable: {why} It asks for cpu 500.{words}"
    assert seen == Observation(Status(PENDING, (pending("driver", detail=detail),)))
    assert seen.lacks_room


def test_why_a_container_is_not_created_is_told_by_an_event_of_its_pod():
    found = pod("driver", 0, waiting(), uid="p")
    about = {"kind": "Pod", "name": found["metadata"]["name"], "uid": "p"}
    event = {"involvedObject": about, "message": 'secret "s" not found'}
    seen = observe(job(ALONE), [found], [event])
    assert seen == Observation(Status(PENDING, (pending("driver", detail='secret "s" not found'),)))


# ---- pods that tell little


def test_a_pod_that_ended_before_its_container_told_how_has_failed():
    found = observe(job(ALONE), [pod("driver", status={"phase": "Failed"})]).status
    assert (found.state, found.replicas) == (FAILED, (ReplicaStatus("driver", 0, FAILED),))


def test_a_pod_whose_container_was_not_started_has_no_log():
    assert not Pod(pod("driver")).started
    assert not Pod(pod("driver", 0, waiting())).started
    assert Pod(pod("driver", 0, runs())).started
    assert Pod(pod("driver", 0, ended(0))).started


@pytest.mark.parametrize(
    ("second", "unready", "state", "lost"),
    [
        (30, "False", runs(), True),
        (14, "False", runs(), False),
        (30, "True", runs(), False),
        (30, "False", ended(1), False),
    ],
    ids=["a lost node", "a slow kubelet", "a kubelet that answers", "ended"],
)
def test_a_pod_is_lost_if_it_is_overdue_and_its_node_does_not_answer(second, unready, state, lost):
    found = pod("driver", 0, state, **{**LEAVING, "deletionTimestamp": DAY.format(10)})
    found["status"]["conditions"] = [{"type": "Ready", "status": unready}]
    assert Pod(found).lost(at(second)) is lost
