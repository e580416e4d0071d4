"""What a cluster's objects say: root Job and pods -> Status. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from practicus_provider.backends.base import CRASHES_PER_WORKER
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.render import CLUSTER, FACTS, INDEX, MAIN, RELEASED, ROLE
from practicus_provider.status import Reason, ReplicaStatus, State, Status, Verdict, explain_exit, signal_name

PULL_FAILURES = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
TRANSIENT = (
    *("timeout", "timed out", "deadline exceeded", "connection reset", "unexpected eof", "too many requests"),
    *("toomanyrequests", "internal server error", "bad gateway", "service unavailable"),
)
"""Signs in a registry's words that a further pull may do better."""
SIGNALLED = 128
"""A shell's and our launcher's exit code for a process that a signal ended, less the signal's number."""


@dataclass(frozen=True)
class Pod:
    """One pod, read."""

    manifest: Manifest

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.manifest["metadata"]["name"])

    @property
    def uid(self) -> str:
        """Unique for ever."""
        return str(self.manifest["metadata"]["uid"])

    @property
    def role(self) -> str:
        """Its role's name."""
        return str(self.manifest["metadata"]["labels"].get(ROLE, "worker"))

    @property
    def index(self) -> int:
        """Its index in its role; of a pod that the framework named, the number that its name ends with."""
        labels = self.manifest["metadata"]["labels"]
        return int(labels[INDEX]) if INDEX in labels else int(self.name.rpartition("-")[2])

    @property
    def leaving(self) -> bool:
        """Whether it is being deleted."""
        return "deletionTimestamp" in self.manifest["metadata"]

    @cached_property
    def container(self) -> Manifest:
        """Status of its container; empty before there is one."""
        statuses = self.manifest["status"].get("containerStatuses", ())
        return next((status for status in statuses if status["name"] == MAIN), statuses[0] if statuses else {})

    @property
    def started(self) -> bool:
        """Whether its container has run, so that there is a log."""
        return not {"running", "terminated"}.isdisjoint(self.container.get("state", {}))

    @cached_property
    def ended(self) -> Manifest | None:
        """How its container ended; None while it has not."""
        found: Manifest | None = self.container.get("state", {}).get("terminated")
        if found is None and self.manifest["status"].get("phase") in ("Failed", "Succeeded"):
            found = {"exitCode": 0 if self.manifest["status"]["phase"] == "Succeeded" else None}
        return found

    @cached_property
    def last_words(self) -> Mapping[str, Any]:
        """What our launcher left as the container's termination message; empty if it had no time to."""
        try:
            words = json.loads((self.ended or {}).get("message") or "{}")
        except ValueError:
            return {}
        return words if isinstance(words, dict) else {}

    @property
    def waiting(self) -> tuple[str, str]:
        """Why it does not run yet: a reason of the kubelet's or the scheduler's, and their words; empty if unknown."""
        waiting = self.container.get("state", {}).get("waiting", {})
        if waiting.get("message"):
            return waiting["reason"], waiting["message"]
        for condition in self.manifest["status"].get("conditions", ()):
            if condition["type"] == "PodScheduled" and condition["status"] == "False":
                return condition.get("reason", ""), condition.get("message", "")
        return "", ""

    @property
    def disrupted(self) -> tuple[str, str]:
        """Why the cluster takes it away (the condition ``DisruptionTarget``), and the words for it; else empty."""
        for condition in self.manifest["status"].get("conditions", ()):
            if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
                return condition.get("reason", ""), condition.get("message", "")
        if self.manifest["status"].get("reason") == "Evicted":
            return "Evicted", self.manifest["status"].get("message", "")
        return "", ""

    def replica(self, *, ready: bool) -> ReplicaStatus:
        """As the status of a cluster shows it.

        :param ready: whether it counts as running only once its startup probe says so.
        """
        state = self.container.get("state", {})
        if self.ended is None:
            running = "running" in state and (not ready or self.container.get("ready"))
            started = _seconds(state["running"].get("startedAt")) if "running" in state else None
            detail = "" if running else ": ".join(filter(None, self.waiting))
            state_now = State.RUNNING if running else State.PENDING
            return ReplicaStatus(self.role, self.index, state_now, started_at=started, detail=detail)
        code = self.last_words.get("exit_code", self.ended.get("exitCode"))
        signal = self.last_words.get("signal")
        if signal is None and "exit_code" not in self.last_words and code is not None and code > SIGNALLED:
            signal = signal_name(code - SIGNALLED)
        elif isinstance(signal, int):
            signal = signal_name(signal)
        return ReplicaStatus(
            self.role,
            self.index,
            State.SUCCEEDED if self.ended.get("exitCode") == 0 else State.FAILED,
            exit_code=None if signal else code,
            signal=signal,
            started_at=_seconds(self.ended.get("startedAt")),
            ended_at=_seconds(self.ended.get("finishedAt")),
        )


@dataclass(frozen=True)
class Observation:
    """One look at a cluster.

    :param ending: verdict of a serving replica that ended; it stands unless the deciding role ends first.
    :param failed: the pod whose end is the verdict's cause; its log has the last lines.
    :param result_in: the pod whose log holds a long result, and in how many lines.
    :param done: pods that have said all, and that they ended well, before the server knows; with them the job is done.
    """

    status: Status
    ending: Verdict | None = None
    failed: Pod | None = None
    result_in: tuple[Pod, int] | None = None
    done: tuple[Pod, ...] = ()


def facts_of(root: Manifest) -> dict[str, Any]:
    """What the root says of its plan."""
    facts: dict[str, Any] = json.loads(root["metadata"]["annotations"][FACTS])
    return facts


def observe(
    root: Manifest,
    pods: Iterable[Manifest],
    events: Sequence[Manifest] = (),
    told: Mapping[str, Mapping[str, Any]] | None = None,
) -> Observation:
    """The cluster's status.

    :param root: its root Job.
    :param pods: of the cluster alone.
    :param events: warnings about its Jobs.
    :param told: pod -> its last words, as far as they are known from its log.
    """
    facts = facts_of(root)
    roles: dict[str, Any] = facts["roles"]
    order = list(roles)
    all_pods = [Pod(pod) for pod in pods if pod["metadata"]["labels"].get(CLUSTER) == root["metadata"]["name"]]
    all_pods.sort(key=lambda pod: (order.index(pod.role) if pod.role in order else len(order), pod.index))
    shown = [pod for pod in all_pods if not (_elastic(roles, pod) and (pod.ended is not None or pod.leaving))]
    replicas = {pod.name: pod.replica(ready=roles.get(pod.role, {}).get("ready", False)) for pod in shown}
    warnings = [event.get("message", "") for event in events]
    complete = _complete(order, roles, replicas.values(), warnings[-1] if warnings else "")
    status = Status(_state(roles, replicas.values()), tuple(complete))
    decisive = [pod for pod in shown if pod.role == facts["decides"]]
    observation = _decided(status, facts, decisive, replicas, told or {})
    if observation.status.verdict is None and _condition(root, "Complete") and all(pod.ended for pod in decisive):
        observation = _completed(status, facts, told or {})
    if observation.status.verdict is None:
        verdict = _hopeless(shown, roles, replicas) or _refused(root, events) or _out_of_time(root, facts)
        if verdict is not None:
            return Observation(_ended(status, verdict))
    if observation.status.verdict is not None:
        return observation
    lost, ending = _lost(all_pods, facts, roles)
    if ending is None and (failure := _condition(root)) is None:
        return observation
    if failure := _condition(root):
        message = f"the cluster's Job failed: {failure.get('message') or failure.get('reason')}"
        ending = ending or Verdict(State.FAILED, Reason.REPLICA_LOST, message)
        return Observation(_ended(status, ending), failed=lost)
    return replace(observation, ending=ending, failed=lost)


def _decided(
    status: Status,
    facts: Mapping[str, Any],
    decisive: list[Pod],
    replicas: Mapping[str, ReplicaStatus],
    told: Mapping[str, Mapping[str, Any]],
) -> Observation:
    """By the role whose end is the job's."""
    failed = [pod for pod in decisive if replicas[pod.name].state is State.FAILED]
    if failed:
        first = min(failed, key=lambda pod: (pod.leaving, replicas[pod.name].ended_at or 0))
        return Observation(_ended(status, _explain(first, replicas[first.name], facts, decides=True)), failed=first)
    expected = facts["roles"].get(facts["decides"], {}).get("replicas", 0)
    good = [pod for pod in decisive if replicas[pod.name].state is State.SUCCEEDED]
    done = [pod for pod in decisive if pod.ended is None and _complete_words(told.get(pod.name, {}))]
    if not expected or len(good) + len(done) < expected:
        return Observation(status)
    if done:
        return Observation(status, done=tuple(done))
    last = max(good, key=lambda pod: replicas[pod.name].ended_at or 0)
    verdict = Verdict(State.SUCCEEDED, Reason.COMPLETED, f"{replicas[last.name].name} ended", exit_code=0)
    words = good[0].last_words
    lines = words.get("result_lines")
    return Observation(
        replace(_ended(status, verdict), result=words.get("result")), result_in=(good[0], lines) if lines else None
    )


def _complete_words(words: Mapping[str, Any]) -> bool:
    """Whether nothing more is to be had of the pod that said them: it ended well, and they hold its result."""
    return words.get("exit_code") == 0 and "result" in words


def _completed(status: Status, facts: Mapping[str, Any], told: Mapping[str, Mapping[str, Any]]) -> Observation:
    """The Job says that all went well, but pods are gone before we saw them end; what they told holds."""
    words = [told[pod] for pod in sorted(told) if _complete_words(told[pod])]
    if len(words) < facts["roles"].get(facts["decides"], {}).get("replicas", 0):
        message = "the job completed, but its pods were removed before its result was read"
        return Observation(_ended(status, Verdict(State.FAILED, Reason.CLUSTER_LOST, message)))
    verdict = Verdict(State.SUCCEEDED, Reason.COMPLETED, f"{facts['decides']} ended", exit_code=0)
    return Observation(replace(_ended(status, verdict), result=words[0]["result"]))


def _hopeless(pods: Iterable[Pod], roles: Mapping[str, Any], replicas: Mapping[str, ReplicaStatus]) -> Verdict | None:
    """A replica that will never start, whatever happens elsewhere, or that the cluster takes away."""
    for pod in pods:
        name = replicas[pod.name].name
        reason, words = pod.disrupted
        if reason and not _elastic(roles, pod):
            return _evicted(name, reason, words)
        reason, words = pod.waiting
        image = pod.manifest["spec"]["containers"][0]["image"]
        if reason in PULL_FAILURES and not any(sign in words.lower() for sign in TRANSIENT):
            message = f"{name} has no image {image} to run: {words}"
            advice = "Check image= and that the nodes may pull it."
            return Verdict(State.FAILED, Reason.IMAGE_PULL_FAILED, message, advice, replica=name)
        if reason in ("CreateContainerConfigError", "CreateContainerError"):
            message = f"{name} cannot start: {words}"
            advice = "Check secrets= and image=: a named secret and its key must be in the namespace."
            if "runAsNonRoot" in words:
                advice = f"Give image {image} a numeric USER that is not 0."
            return Verdict(State.FAILED, Reason.CONFIG_ERROR, message, advice, replica=name)
    return None


def _evicted(name: str, reason: str, words: str) -> Verdict:
    message = f"{name} was taken off its node ({reason}): {words}"
    advice = "Nothing is wrong with the job: run it again, as retries= does."
    return Verdict(State.FAILED, Reason.EVICTED, message, advice, replica=name)


def _refused(root: Manifest, events: Iterable[Manifest]) -> Verdict | None:
    """A pod that the API server will not have, so that there is none."""
    for event in events:
        words = event.get("message", "")
        if "exceeded quota" not in words and "forbidden" in words:
            advice = "Ask who runs the namespace: what refused it is named above."
            message = f"cluster {root['metadata']['name']} may not have its pods: {words}"
            return Verdict(State.FAILED, Reason.CONFIG_ERROR, message, advice)
    return None


def _condition(root: Manifest, *types: str) -> Manifest | None:
    """How the root Job failed (or what else is asked), if it did."""
    for condition in root.get("status", {}).get("conditions", ()):
        if condition["status"] == "True" and condition["type"] in (types or ("Failed", "FailureTarget")):
            found: Manifest = condition
            return found
    return None


def _out_of_time(root: Manifest, facts: Mapping[str, Any]) -> Verdict | None:
    """The root's deadline: the cluster's timeout, the end of its lease, or of what was left after its release."""
    if (_condition(root) or {}).get("reason") != "DeadlineExceeded":
        return None
    if RELEASED in root["metadata"]["annotations"]:
        return Verdict(State.CANCELLED, Reason.DELETED, "the cluster was deleted")
    if root["spec"]["activeDeadlineSeconds"] < facts["timeout"]:
        message = "nobody has watched the cluster for as long as its lease allows: its task is over"
        return Verdict(State.CANCELLED, Reason.ABANDONED, message)
    message = f"the cluster's time was over after {facts['timeout']:g} s, its timeout"
    return Verdict(State.FAILED, Reason.DEADLINE_EXCEEDED, message, "Raise timeout=, or make the job faster.")


def _lost(pods: Iterable[Pod], facts: Mapping[str, Any], roles: Mapping[str, Any]) -> tuple[Pod | None, Verdict | None]:
    """A replica that should serve and does not; of an elastic role, the last of too many that failed."""
    crashes: dict[str, int] = {}
    for pod in pods:
        if pod.role == facts["decides"] or pod.ended is None:
            continue
        replica = pod.replica(ready=False)
        if _elastic(roles, pod):
            crashes[pod.role] = crashes.get(pod.role, 0) + (replica.state is State.FAILED and not pod.leaving)
            if crashes[pod.role] <= CRASHES_PER_WORKER * roles[pod.role]["elastic"][1]:
                continue
        return pod, _explain(pod, replica, facts, decides=False)
    return None, None


def _explain(pod: Pod, replica: ReplicaStatus, facts: Mapping[str, Any], *, decides: bool) -> Verdict:
    reason, words = pod.disrupted
    if reason:
        return _evicted(replica.name, reason, words)
    reason = (pod.ended or {}).get("reason") or pod.manifest["status"].get("reason") or ""
    if reason in ("StartError", "ContainerCannotRun"):
        image = pod.manifest["spec"]["containers"][0]["image"]
        message = f"{replica.name} cannot start in image {image}: {(pod.ended or {}).get('message', '').strip()}"
        advice = "An image needs python3 (3.8 or newer) on its PATH, and what the job imports."
        return Verdict(State.FAILED, Reason.CONFIG_ERROR, message, advice, replica=replica.name)
    if reason == "OOMKilled":
        memory = facts["roles"].get(pod.role, {}).get("memory")
        field = "worker_resources" if pod.role == "worker" else "coordinator_resources"
        return Verdict(
            State.FAILED,
            Reason.OOM_KILLED,
            f"{replica.name} was OOM-killed at {memory}",
            f"Raise {field}=Resources(memory=...), or give each replica less to hold.",
            replica=replica.name,
            signal="SIGKILL",
        )
    return explain_exit(replica, tail=(), decides=decides)


def _state(roles: Mapping[str, Any], replicas: Iterable[ReplicaStatus]) -> State:
    running: dict[str, int] = {}
    for replica in replicas:
        if replica.state is not State.PENDING:
            running[replica.role] = running.get(replica.role, 0) + 1
    least = {name: min(1, role["replicas"]) if role["elastic"] else role["replicas"] for name, role in roles.items()}
    if all(running.get(name, 0) >= number for name, number in least.items()):
        return State.RUNNING
    return State.PENDING


def _complete(
    order: list[str], roles: Mapping[str, Any], replicas: Iterable[ReplicaStatus], why: str
) -> list[ReplicaStatus]:
    """With the replicas that must run and have no pod yet."""
    found = {(replica.role, replica.index): replica for replica in replicas}
    for name in order:
        for index in range(0 if roles[name]["elastic"] else roles[name]["replicas"]):
            found.setdefault((name, index), ReplicaStatus(name, index, State.PENDING, detail=why))
    return sorted(found.values(), key=lambda replica: (order.index(replica.role), replica.index))


def _ended(status: Status, verdict: Verdict) -> Status:
    return replace(status, state=verdict.state, verdict=verdict)


def _elastic(roles: Mapping[str, Any], pod: Pod) -> bool:
    return bool(roles.get(pod.role, {}).get("elastic"))


def _seconds(text: str | None) -> float | None:
    return datetime.fromisoformat(text).timestamp() if text else None
