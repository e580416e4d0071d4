"""A cluster's root Job and pods, as Kubernetes 1.3x has them, and what is made of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.labels import CLUSTER, INDEX, MAIN, ROLE
from practicus_provider.backends.kubernetes.observe import Observation, observe
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.render import render
from practicus_provider.plan import Plan
from practicus_provider.spec import Elastic
from practicus_provider.status import Reason, ReplicaStatus, State, Status, Verdict
from tests.plans import TASK, plan, role, server

NAME = "c-job"
DAY = "2013-01-05T10:00:{:02}Z"
PENDING, RUNNING, SUCCEEDED, FAILED = State.PENDING, State.RUNNING, State.SUCCEEDED, State.FAILED
ALONE = plan(role("driver", ""))
SERVED = plan(server(), role("worker", "", replicas=2), role("driver", ""))
RANKS = plan(role("driver", "", replicas=3))
SERVING = plan(server(), role("worker", ""), decides=None)
ELASTIC = plan(server(), role("worker", "", replicas=1, elastic=Elastic(1, 3)), role("driver", ""))
SPAWNED = plan(role("driver", "", spawns="worker"), role("worker", "", replicas=0, elastic=Elastic(1, 3)))


def job(plan: Plan, *conditions: Manifest, lease: float | None = None, **annotations: str) -> Manifest:
    """The root, started."""
    root = render(NAME, plan, Site("jobs", "python:3"), TASK, lease=lease, parent=None).root
    root["metadata"]["uid"] = "u"
    root["metadata"]["annotations"] |= annotations
    root["spec"]["suspend"] = False
    root["status"] = {"startTime": DAY.format(0), "conditions": [resumed(), *conditions]}
    return root


def resumed() -> Manifest:
    return {"type": "Suspended", "status": "False", "reason": "JobResumed", "message": "Job resumed"}


def ends(reason: str, message: str = "") -> tuple[Manifest, Manifest]:
    """The conditions of a Job that failed; the first comes before its pods have ended."""
    return (
        {"type": "FailureTarget", "status": "True", "reason": reason, "message": message},
        {"type": "Failed", "status": "True", "reason": reason, "message": message},
    )


def pod(role: str, index: int = 0, state: Manifest | None = None, *, ready: bool = False, **more: Any) -> Manifest:
    """A pod whose container is in that state; none: it was not scheduled yet."""
    name = f"{NAME}-{role}-{index}-abcde"
    container = {"name": MAIN, "state": state, "ready": ready, "restartCount": 0, "started": ready}
    phase = "Running" if state and "waiting" not in state else "Pending"
    if state and "terminated" in state:
        phase = "Succeeded" if state["terminated"]["exitCode"] == 0 else "Failed"
    status = {"phase": phase, **({"containerStatuses": [container]} if state else {}), **more.pop("status", {})}
    labels = {CLUSTER: NAME, ROLE: role, INDEX: str(index)}
    return {
        "metadata": {"name": name, "labels": labels, **more},
        "spec": {"containers": [{"name": MAIN, "image": "python:3"}]},
        "status": status,
    }


def waiting(reason: str = "ContainerCreating", message: str = "") -> Manifest:
    return {"waiting": {"reason": reason, **({"message": message} if message else {})}}


def runs(since: int = 1) -> Manifest:
    return {"running": {"startedAt": DAY.format(since)}}


def ended(code: int, at: int = 9, *, reason: str = "", message: str = "", **words: Any) -> Manifest:
    """:param words: of our launcher; none: it had no time to say any."""
    said = json.dumps({"exit_code": None, "signal": None, "result": None, **words}) if words else message
    reason = reason or ("Completed" if code == 0 else "Error")
    times = {"startedAt": DAY.format(1), "finishedAt": DAY.format(at)}
    return {"terminated": {"exitCode": code, "reason": reason, **times, **({"message": said} if said else {})}}


LEAVING = {"deletionTimestamp": DAY.format(8), "deletionGracePeriodSeconds": 10}


def at(second: int) -> float:
    return datetime(2013, 1, 5, 10, 0, second, tzinfo=UTC).timestamp()


def pending(name: str, index: int = 0, detail: str = "", **more: Any) -> ReplicaStatus:
    return ReplicaStatus(name, index, PENDING, detail=detail, **more)


def running(name: str, index: int = 0, since: int = 1) -> ReplicaStatus:
    return ReplicaStatus(name, index, RUNNING, started_at=at(since))


def over(name: str, index: int = 0, code: int | None = 0, when: int = 9, signal: str | None = None) -> ReplicaStatus:
    state = SUCCEEDED if code == 0 else FAILED
    return ReplicaStatus(name, index, state, code, signal, at(1), at(when))


def completed(replica: str = "driver-0") -> Verdict:
    return Verdict(SUCCEEDED, Reason.COMPLETED, f"{replica} ended", exit_code=0)


def failed(replica: str = "driver-0", code: int = 1) -> Verdict:
    return Verdict(FAILED, Reason.ERROR, f"{replica} exited with code {code}", replica=replica, exit_code=code)


def status(plan: Plan, *pods: Manifest) -> Status:
    """Of a cluster that has not ended, and of which nothing has been lost."""
    found = observe(job(plan), pods)
    assert found == Observation(found.status)
    return found.status


AGAIN = "Nothing is wrong with the job: run it again, as preemption_retries= does, or retries=."
EVICTION = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "evicting"}
REFUSED = {
    "phase": "Failed",
    "reason": "UnexpectedAdmissionError",
    "message": "Pod was rejected: Allocate failed due to can't allocate unregistered device vendor.com/gpu",
}
"""What a kubelet says of a pod that it will not have."""
