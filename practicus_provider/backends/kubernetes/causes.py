"""Why a replica cannot start, was taken away, or ended: pod -> verdict. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from practicus_provider.backends.kubernetes.pod import PULL_FAILED, Pod
from practicus_provider.status import Reason, ReplicaStatus, State, Verdict, explain_exit

PULL_FAILURES = (PULL_FAILED, "ErrImageNeverPull", "InvalidImageName")
TRANSIENT = (
    *("timeout", "timed out", "deadline exceeded", "connection reset", "connection refused", "unexpected eof"),
    *("too many requests", "toomanyrequests", "internal server error", "bad gateway", "service unavailable"),
)
"""Signs in a registry's words that a further pull may do better."""
AGAIN = "Nothing is wrong with the job: run it again, as preemption_retries= does, or retries=."


def hopeless(pods: Iterable[Pod], replicas: Mapping[str, ReplicaStatus]) -> Verdict | None:
    """A replica that will never start, whatever happens elsewhere.

    :param replicas: by the pod's name.
    """
    for pod in pods:
        name = replicas[pod.name].name
        reason, words = pod.waiting
        if reason in PULL_FAILURES and not any(sign in words.lower() for sign in TRANSIENT):
            message = f"{name} has no image {pod.waiting_image} to run: {words}"
            advice = "Check image= and that the nodes may pull it."
            return Verdict(State.FAILED, Reason.IMAGE_PULL_FAILED, message, advice, replica=name)
        if reason in ("CreateContainerConfigError", "CreateContainerError"):
            message = f"{name} cannot start: {words}"
            advice = "Check secrets= and image=: a named secret and its key must be in the namespace."
            if "runAsNonRoot" in words:
                advice = f"Give image {pod.waiting_image} a numeric USER that is not 0."
            return Verdict(State.FAILED, Reason.CONFIG_ERROR, message, advice, replica=name)
    return None


def taken_away(pod: Pod, name: str) -> Verdict | None:
    """The cluster takes it off its node.

    Source of the reasons: *Pod disruption conditions* in Kubernetes' documentation.
    """
    reason, words = pod.disrupted
    match reason:
        case "":
            return None
        case "PreemptionByScheduler":
            message = f"{name} was preempted: {words}"
            advice = f"A pod of a higher priority took its place. {AGAIN} Or give pods a priorityClassName."
            return Verdict(State.FAILED, Reason.PREEMPTED, message, advice, replica=name)
        case "DeletionByPodGC":
            message = f"{name} was lost with {pod.node or 'its node'}: {words}"
            return Verdict(State.FAILED, Reason.NODE_LOST, message, AGAIN, replica=name)
        # The node's controller calls no pod ready on a node that does not answer, though its containers once said so.
        case "DeletionByTaintManager" if pod.condition("Ready").get("status") == "False":
            message = f"{name} was lost with {pod.node or 'its node'}, which does not answer"
            return Verdict(State.FAILED, Reason.NODE_LOST, message, AGAIN, replica=name)
    how = "refused by" if pod.refused else "taken off"
    message = f"{name} was {how} its node {pod.node} ({reason}): {words}".replace("node  (", "node (")
    return Verdict(State.FAILED, Reason.EVICTED, message, AGAIN, replica=name)


def vanished(role: str, expected: int, pods: Iterable[Pod]) -> Verdict | None:
    """A replica of a Job that gave up, of which there is no pod to tell why.

    :param pods: those of the role.
    """
    indexes = {pod.index for pod in pods}
    missing = [f"{role}-{index}" for index in range(expected) if index not in indexes]
    if not missing:
        return None  # the news of its pods is still to come
    who = missing[0] if len(missing) == 1 else f"a replica of {role}"
    message = f"{who} is gone without a trace: its pod was removed by force, or with its node"
    return Verdict(State.FAILED, Reason.REPLICA_LOST, message, AGAIN, replica=missing[0] if who in missing else None)


def lacking(pod: Pod, facts: Mapping[str, Any]) -> dict[str, str]:
    """Module of the framework -> what to do if the pod's image has none of that name.

    :param facts: of the plan, as the root has them; an older version of ours has written none of this.
    """
    framework = facts.get("framework")
    if not framework:
        return {}
    made = f" {framework['dockerfile']} makes one." if framework["dockerfile"] else ""
    return {
        module: f"Image {pod.image} has no Python module {module!r}, which adapter {facts['adapter']!r} needs: "
        f"give image= one that has it.{made}"
        for module in framework["modules"]
    }


def explain(pod: Pod, replica: ReplicaStatus, facts: Mapping[str, Any], *, decides: bool) -> Verdict:
    """Why an ended replica has.

    :param facts: of the plan, as the root has them.
    :param decides: whether its role decides the job's outcome.
    """
    if verdict := taken_away(pod, replica.name):
        return verdict
    if failed := pod.failed_init:
        state = failed["state"]["terminated"]
        message = f"{replica.name} cannot start: its init container {failed['name']} exited with {state['exitCode']}"
        advice = "Look at what pod_overrides= adds, here or in the connection."
        return Verdict(State.FAILED, Reason.INIT_FAILED, message, advice, replica=replica.name)
    reason = (pod.ended or {}).get("reason") or pod.manifest["status"].get("reason") or ""
    if reason in ("StartError", "ContainerCannotRun"):
        message = f"{replica.name} cannot start in image {pod.image}: {(pod.ended or {}).get('message', '').strip()}"
        advice = "An image needs python3 (3.8 or newer) on its PATH, and what the job imports."
        return Verdict(State.FAILED, Reason.CONFIG_ERROR, message, advice, replica=replica.name)
    if reason == "OOMKilled":
        memory = facts["roles"].get(pod.role, {}).get("memory")
        field = "worker_resources" if pod.role == "worker" else "coordinator_resources"
        if any("part_of" in role for role in facts["roles"].values()):
            field = "its WorkerGroup's resources"
        return Verdict(
            State.FAILED,
            Reason.OOM_KILLED,
            f"{replica.name} was OOM-killed at {memory}",
            f"Raise {field}=Resources(memory=...), or give each replica less to hold.",
            replica=replica.name,
            signal="SIGKILL",
        )
    verdict = explain_exit(replica, tail=(), decides=decides)
    if pod.leaving and (replica.signal or pod.stopped):
        return replace(verdict, advice="Its pod was deleted: by somebody, or with its namespace.")
    return verdict
