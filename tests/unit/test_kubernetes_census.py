"""What is read of a cluster as it changes is what one look at all of it says."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.census import Census
from practicus_provider.backends.kubernetes.labels import CLUSTER, COMPLETE, FACTS, TOLD
from practicus_provider.backends.kubernetes.observe import Observation, observe, observed
from practicus_provider.runtime.practicus_runtime.contract import End, LastWords
from tests.kubernetes_objects import (
    DAY,
    ELASTIC,
    EVICTION,
    LEAVING,
    NAME,
    RANKS,
    REFUSED,
    SERVED,
    SERVING,
    SPAWNED,
    ended,
    ends,
    job,
    pod,
    runs,
    waiting,
)

STATES: tuple[Manifest | None, ...] = (
    None,
    waiting(),
    waiting("ErrImagePull", "i/o timeout"),
    waiting("ErrImagePull", "manifest unknown"),
    waiting("CreateContainerError", "context deadline exceeded"),
    runs(1),
    runs(2),
    ended(0, 8),
    ended(0, 9, exit_code=0, result="1"),
    ended(0, 9, exit_code=0, stopped=True),
    ended(1, 7),
    ended(137, 9),
    ended(4, 9, exit_code=4, rank=1),
)
UNSCHEDULED = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/1: Insufficient cpu.",
}
STATUSES: tuple[Manifest, ...] = ({}, {"conditions": [UNSCHEDULED]}, {"conditions": [EVICTION]}, REFUSED)
ROLES = ("coordinator", "worker", "driver", "stranger")


@st.composite
def pods(draw: st.DrawFn) -> Manifest:
    """One of few pods, in any state."""
    role, index = draw(st.sampled_from(ROLES)), draw(st.integers(0, 3))
    state, status = draw(st.sampled_from(STATES)), draw(st.sampled_from(STATUSES))
    found = pod(role, index, copy.deepcopy(state), ready=draw(st.booleans()), status=copy.deepcopy(status))
    meta = found["metadata"]
    meta["name"] += draw(st.sampled_from(("", "f")))  # a further one of the same index
    meta["uid"] = meta["name"]
    if draw(st.booleans()):
        meta["creationTimestamp"] = DAY.format(draw(st.integers(0, 2)))
    if draw(st.integers(0, 4)) == 0:
        meta |= LEAVING
    if draw(st.integers(0, 9)) == 0:
        meta["labels"][CLUSTER] = "another"
    if draw(st.booleans()):
        meta["ownerReferences"] = [{"uid": draw(st.sampled_from(("u", "v")))}]
    return found


@st.composite
def roots(draw: st.DrawFn, plan: Any) -> Manifest:
    """The cluster's root, at any time."""
    conditions = draw(
        st.sampled_from(
            (
                (),
                ends("BackoffLimitExceeded"),
                ends("DeadlineExceeded")[:1],
                ({"type": "Complete", "status": "True"},),
                ({"type": "Suspended", "status": "True"},),
            )
        )
    )
    root = job(plan, *conditions, lease=draw(st.sampled_from((None, 5.0))))
    if draw(st.booleans()):
        root["metadata"]["annotations"][COMPLETE] = "true"
    if draw(st.integers(0, 3)) == 0:
        root["spec"]["suspend"] = True
    if draw(st.booleans()):
        root["metadata"]["annotations"][TOLD] = '{"x": {"exit_code": 0}}'
    if draw(st.integers(0, 9)) == 0:
        facts = root["metadata"]["annotations"][FACTS]
        root["metadata"]["annotations"][FACTS] = facts.replace('"replicas": 2', '"replicas": 3')
    root["status"]["startTime"] = draw(st.sampled_from((None, DAY.format(0), DAY.format(2))))
    return root


def told(observation: Observation) -> dict[str, Any]:
    """All of it, also what does not count as different; what was heard is in no order."""
    return {**vars(observation), "heard": set(observation.heard)}


@settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data(), plan=st.sampled_from((SERVED, RANKS, ELASTIC, SPAWNED, SERVING)))
def test_what_was_read_as_it_changed_says_what_one_look_at_all_of_it_does(data, plan):
    words = {f"{NAME}-driver-{index}-abcde": LastWords(End(0)) for index in data.draw(st.sets(st.integers(0, 2)))}
    root = data.draw(roots(plan))
    census = Census(root)
    there: dict[str, tuple[Manifest, str | None]] = {}
    for change in data.draw(st.lists(st.sampled_from(("pod", "pod", "pod", "gone", "root", "nodes")), max_size=12)):
        match change:
            case "pod":
                found, trouble = data.draw(pods()), data.draw(st.sampled_from((None, "no volume")))
                there[found["metadata"]["name"]] = found, trouble
                census.put(found, trouble)
            case "gone" if there:
                name = data.draw(st.sampled_from(sorted(there)))
                del there[name]
                census.drop(name)
            case "root":
                root = data.draw(roots(plan))
                census.set_root(root)
            case "nodes":
                census.largest = data.draw(st.sampled_from(({"cpu": "8"}, {"cpu": "4"})))
                for name in list(census.cramped):
                    census.put(*there[name])
        events = [
            {"involvedObject": {"kind": "Pod", "uid": name}, "message": trouble}
            for name, (_, trouble) in there.items()
            if trouble
        ]
        standing = data.draw(st.sets(st.sampled_from([NAME, *sorted(there)])))
        heard, now = dict.fromkeys(there, 100.0), data.draw(st.sampled_from((100.0, 101.0, 200.0)))
        shuffled = data.draw(st.permutations([manifest for manifest, _ in there.values()]))
        whole = observe(root, shuffled, events, words, [root], census.largest, standing, heard, now)
        assert told(observed(census, (), words, [root], standing, heard, now)) == told(whole)
        owners = [
            owner["uid"]
            for found, _ in there.values()
            if found["metadata"]["labels"][CLUSTER] == NAME
            for owner in found["metadata"].get("ownerReferences", ())
        ]
        assert census.owns(root) == ("u" in owners)
