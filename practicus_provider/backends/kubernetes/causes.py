"""Why a replica cannot start, was taken away, or ended: pod -> verdict. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from practicus_provider.backends.kubernetes.facts import Facts
from practicus_provider.backends.kubernetes.pod import PULL_FAILED, Pod
from practicus_provider.backends.kubernetes.standing import STANDS
from practicus_provider.status import Reason, ReplicaStatus, State, Verdict, explain_exit

BACK_OFF = "ImagePullBackOff"
"""What the kubelet says between two pulls; before Kubernetes 1.31 without why."""
WRONG_IMAGE = ("ErrImageNeverPull", "InvalidImageName")
"""Reasons for which no further pull will do better, whatever is said of them."""
PULLS = (PULL_FAILED, BACK_OFF, *WRONG_IMAGE, "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed")
CREATIONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError")
"""Reasons of the kubelet's why a container waits (``pkg/kubelet/images/types.go``, ``pkg/kubelet/container``)."""
NO_IMAGE = re.compile(
    r"(?<!no such host: )\bnot found\b|manifest unknown|name unknown|repository does not exist"
    r"|\bunauthorized\b|authentication required|\b401\b|\b403\b|\bforbidden\b|no basic auth|insufficient_scope"
    r"|authorization failed|(?<!connect: permission )\bdenied\b"
    r"|invalid reference|couldn't parse image|no match for platform",
    re.IGNORECASE,
)
"""What registries say, and the container runtime of what they said, where there is no such image, or none for us."""
WRONG_CONTAINER = re.compile(
    r'^(secret|configmap)s? "[^"]*" not found|couldn\'t find key|non-existent (secret|config) key'
    r"|runAsNonRoot|runAsUser|non-root|no command specified|unable to find (user|group)|no matching entries in"
    r"|\binvalid (user|name|mount|reference)",
    re.IGNORECASE,
)
"""What the kubelet says of a container that is wrong; all else may be a matter of time: a cache, a socket, a disk."""
AGAIN = "Nothing is wrong with the job: run it again, as preemption_retries= does, or retries=."


def in_the_way(pod: Pod) -> str | None:
    """The words for what keeps it from having its containers, empty where they are told at each try alone; None:
    nothing does."""
    reason, words = pod.waiting
    if reason not in (*PULLS, *CREATIONS):
        return None
    return "" if reason == BACK_OFF else words


def hopeless(pod: Pod, name: str, *, stands: bool = False) -> Verdict | None:
    """A replica that will never start, whatever happens elsewhere.

    :param stands: whether it has been told the same for :data:`~.standing.STANDS`.
    """
    reason, words = pod.waiting
    words += f" (for {STANDS:g} s now)" if stands else ""
    if reason in PULLS and (stands or reason in WRONG_IMAGE or NO_IMAGE.search(words)):
        message = f"{name} has no image {pod.waiting_image} to run: {words}"
        advice = "Check image= and that the nodes may pull it."
        return Verdict(State.FAILED, Reason.IMAGE_PULL_FAILED, message, advice, replica=name)
    if reason in CREATIONS and (stands or WRONG_CONTAINER.search(words)):
        message = f"{name} cannot start: {words}"
        advice = "Check secrets= and image=: a named secret and its key must be in the namespace."
        if "runAsNonRoot" in words:
            advice = f"Give run_as_uid= the number of a user that image {pod.waiting_image} can run as, such as "
            advice += "1000; root, which is 0, is refused. Or give the image a numeric USER."
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


def lacking(pod: Pod, facts: Facts) -> dict[str, str]:
    """Module of the framework -> what to do if the pod's image has none of that name."""
    framework = facts.framework
    if not framework:
        return {}
    made = f" {framework.dockerfile} makes one." if framework.dockerfile else ""
    return {
        module: f"Image {pod.image} has no Python module {module!r}, which adapter {facts.adapter!r} needs: "
        f"give image= one that has it.{made}"
        for module in framework.modules
    }


def explain(pod: Pod, replica: ReplicaStatus, facts: Facts, *, decides: bool) -> Verdict:
    """Why an ended replica has.

    :param decides: whether its role decides the job's outcome.
    """
    if verdict := taken_away(pod, replica.name):
        return verdict
    if failed := pod.failed_init:
        state = failed["state"]["terminated"]
        message = f"{replica.name} cannot start: its init container {failed['name']} exited with {state['exitCode']}"
        advice = "Look at what pod_overrides= adds, here or in the connection."
        return Verdict(State.FAILED, Reason.INIT_FAILED, message, advice, replica=replica.name)
    if pod.overdrawn:
        message = f"{replica.name} was ended, as it wrote more than it may: {pod.overdrawn}"
        return Verdict(State.FAILED, Reason.ERROR, message, _more_room(pod.overdrawn), replica=replica.name)
    if decides and (beside := pod.failed_sidecar):
        code = beside["state"]["terminated"]["exitCode"]
        message = f"{replica.name} ended well, but container {beside['name']} beside it exited with {code}: so its pod "
        message += "has failed, and Kubernetes has ended the others"
        advice = "Make it a native sidecar, in initContainers with restartPolicy: Always: its exit code does not count."
        return Verdict(State.FAILED, Reason.ERROR, message, advice, replica=replica.name)
    reason = (pod.ended or {}).get("reason") or pod.manifest["status"].get("reason") or ""
    if reason in ("StartError", "ContainerCannotRun"):
        message = f"{replica.name} cannot start in image {pod.image}: {(pod.ended or {}).get('message', '').strip()}"
        advice = "An image needs python3 (3.8 or newer) on its PATH, and what the job imports."
        return Verdict(State.FAILED, Reason.CONFIG_ERROR, message, advice, replica=replica.name)
    if pod.out_of_memory:
        resources = facts.roles[pod.role].resources
        argument = resources.argument if resources else None
        return Verdict(
            State.FAILED,
            Reason.OOM_KILLED,
            f"{replica.name} was OOM-killed at {resources.memory if resources else 'its limit'}",
            f"Raise {_what_gives_memory(facts, argument)}, or give each replica less to hold.",
            replica=replica.name,
            signal="SIGKILL",
            argument=argument,
        )
    verdict = explain_exit(replica, tail=(), decides=decides)
    if pod.leaving and (replica.signal or pod.stopped):
        return replace(verdict, advice="Its pod was deleted: by somebody, or with its namespace.")
    return verdict


def _what_gives_memory(facts: Facts, argument: str | None) -> str:
    """To a replica. An older version of ours has not written by which argument."""
    if argument is None:
        return f"the memory that adapter {facts.adapter!r} gives it"
    if any(role.part_of for role in facts.roles.values()):
        argument = "its WorkerGroup's resources"
    return f"{argument}=Resources(memory=...)"


def _more_room(words: str) -> str:
    """What to raise, by the kubelet's words for what was too small."""
    if 'volume "shm"' in words:
        return "Raise Resources(shm=...)."
    if 'volume "volume-' in words:
        return "Raise the volume's empty_dir=, or give it storage by claim=."
    if "EmptyDir" in words:
        return "Raise the volume's sizeLimit, which pod_overrides= has set, here or in the connection."
    return (
        "Raise its limit of ephemeral-storage, by pod_overrides= or in the namespace's LimitRange. What it prints "
        "counts, too; what it writes to a volume of volumes= does not."
    )
