"""What a cluster's objects say: root Job and pods -> Status. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from practicus_provider.backends.base import CRASHES_PER_WORKER
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.causes import explain, hopeless, in_the_way, taken_away, vanished
from practicus_provider.backends.kubernetes.facts import Facts, RoleFacts, facts_of, told_by
from practicus_provider.backends.kubernetes.labels import COMPLETE, QUEUE, RELEASED, ROLE, cluster_of
from practicus_provider.backends.kubernetes.pod import INSUFFICIENT, Pod, time_of
from practicus_provider.backends.kubernetes.refusals import AS_A_CLAIM, NO_POD, USED_UP, VOLUME_TYPE
from practicus_provider.backends.kubernetes.standing import STANDS
from practicus_provider.overdue import out_of_time
from practicus_provider.result import refused
from practicus_provider.runtime.practicus_runtime.contract import LastWords
from practicus_provider.status import Reason, ReplicaStatus, State, Status, Verdict, precedence

A_POD = re.compile(r'pods "[^"]*" is')
"""How the API server begins to say what a pod may not."""


@dataclass(frozen=True)
class Observation:
    """One look at a cluster.

    :param ending: verdict of a replica that failed; it stands unless, soon, the deciding role ends, or the failure of
        another replica turns out to be the cause.
    :param failed: the pod whose end is the verdict's cause; its log has the last lines.
    :param late: where time was over, replica -> its pod, of those whose last lines the verdict lacks.
    :param result_in: the pod whose log holds a long result, and in how many lines.
    :param done: pods that have said all, and that they ended well, before the server knows; with them the job is done.
    :param troubles: pod or Job -> the words for what stands in its way, and may not for ever.
    """

    status: Status
    ending: Verdict | None = None
    failed: Pod | None = None
    late: Mapping[str, Pod] = field(default_factory=dict)
    result_in: tuple[Pod, int] | None = None
    done: tuple[Pod, ...] = ()
    troubles: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def lacks_room(self) -> bool:
        """Whether a replica waits for a node that has enough left."""
        return any(INSUFFICIENT.search(replica.detail) for replica in self.status.replicas)


def observe(
    root: Manifest,
    pods: Iterable[Manifest],
    events: Sequence[Manifest] = (),
    told: Mapping[str, LastWords] | None = None,
    jobs: Sequence[Manifest] = (),
    largest: Mapping[str, str] | None = None,
    standing: Collection[str] = (),
) -> Observation:
    """The cluster's status.

    :param root: its root Job.
    :param pods: others than numbered ones of the cluster's roles are not looked at.
    :param jobs: likewise; the root may be among them.
    :param events: warnings about its Jobs that have no pods, and about its pods.
    :param told: pod -> its last words, as far as they are known from its log.
    :param largest: resource -> the most of it that one node has, where that is known.
    :param standing: of what was in :attr:`Observation.troubles`, what has stood for too long to heal.
    """
    facts = facts_of(root)
    told = {**told_by(root), **(told or {})}
    roles, order = facts.roles, list(facts.roles)
    name = root["metadata"]["name"]
    found = (Pod(pod, largest or {}) for pod in pods if cluster_of(pod) == name)
    all_pods = [pod for pod in found if pod.role in roles and pod.index >= 0]
    jobs = [job for job in jobs if cluster_of(job) == name]
    all_pods.sort(key=lambda pod: (order.index(pod.role), pod.index))
    first, held = _role(root), held_by(root)
    all_pods = [pod for pod in all_pods if pod.role != first or (not held and _of_this_run(root, pod))]
    shown = [pod for pod in all_pods if not (_elastic(roles, pod) and (pod.ended is not None or pod.leaving))]
    warnings = [event for event in events if _about(event).get("kind") != "Pod"]
    troubles = {_about(event).get("uid"): event.get("message", "") for event in events if event not in warnings}
    replicas = {
        pod.name: pod.replica(ready=roles[pod.role].ready, trouble=troubles.get(pod.manifest["metadata"].get("uid")))
        for pod in shown
    }
    why = _why_no_pods((root, *jobs), warnings)
    why[first] = held or why.get(first, "")
    complete = _complete(order, roles, replicas.values(), why)
    status = Status(_state(roles, replicas.values()), tuple(complete))
    deciding = facts.deciding
    expected = sum(roles[name].replicas for name in deciding)
    decisive = [pod for pod in shown if pod.role in deciding]
    settled = len(deciding) == 1 and bool(_condition(root, "Failed"))
    observation = _decided(status, facts, decisive, replicas, told, expected=expected, settled=settled)
    deciding_jobs = [job for name, job in {_role(job): job for job in (*jobs, root)}.items() if name in deciding]
    done = sum(_condition(job, "Complete") is not None for job in deciding_jobs) == len(deciding) > 0
    if observation.status.verdict is None and done and all(pod.ended for pod in decisive):
        observation = _completed(name, status, facts.coordinator, expected, told)
    late = next(filter(_is_late, deciding_jobs or [root]), None)
    if late and observation.failed is not None and observation.failed.leaving:  # as the Job controller ended it
        return _overdue(status, late, root, {replicas[pod.name].name: pod for pod in shown})
    if observation.status.verdict is None:
        verdict = (
            _taken(shown, roles, replicas) or hopeless(shown, replicas, standing) or _refused(root, warnings, standing)
        )
        if verdict is None and late is not None:
            return _overdue(status, late, root, {replicas[pod.name].name: pod for pod in shown})
        if verdict is not None:
            return Observation(_ended(status, verdict))
        observation = replace(observation, troubles={**in_the_way(shown), **_in_the_way_of_pods(warnings)})
    if observation.status.verdict is not None or observation.ending is not None:
        return observation
    lost = _lost(all_pods, deciding, roles)
    ending = explain(lost, lost.replica(ready=False), facts, decides=False) if lost else None
    gave_up = _gave_up([root, *jobs], all_pods, roles)
    if gave_up and (lost is None or lost.leaving):  # the Job controller ended it after the one that is gone
        lost, ending = None, gave_up
    if ending and _condition(root):
        return Observation(_ended(status, ending), failed=lost)
    return replace(observation, ending=ending, failed=lost)


def _decided(
    status: Status,
    facts: Facts,
    decisive: list[Pod],
    replicas: Mapping[str, ReplicaStatus],
    told: Mapping[str, LastWords],
    *,
    expected: int,
    settled: bool,
) -> Observation:
    """By the role whose end is the job's.

    :param expected: replicas that decide.
    :param settled: whether no pod of it is left that might say more.
    """
    failed = [pod for pod in decisive if replicas[pod.name].state is State.FAILED]
    if failed:
        first = min(failed, key=lambda pod: _precedence(pod, replicas[pod.name]))
        spoilt = next((pod for pod in decisive if pod.failed_sidecar), None)
        if spoilt and first.leaving and not first.disrupted[0]:  # as the Job controller then ends them
            first = spoilt
        verdict = explain(first, replicas[first.name], facts, decides=True)
        if settled or all(pod.ended for pod in decisive):
            return Observation(_ended(status, verdict), failed=first)
        return Observation(status, verdict, first)
    good = [pod for pod in decisive if replicas[pod.name].state is State.SUCCEEDED]
    done = [pod for pod in decisive if pod.ended is None and told.get(pod.name, LastWords()).complete]
    if not expected or len(good) + len(done) < expected:
        return Observation(status)
    if done:
        return Observation(status, done=tuple(done))
    last = max(good, key=lambda pod: replicas[pod.name].ended_at or 0)
    verdict = Verdict(State.SUCCEEDED, Reason.COMPLETED, f"{replicas[last.name].name} ended", exit_code=0)
    words = good[0].last_words
    if words.unreadable:
        return Observation(_ended(status, refused(verdict, words.unreadable)))
    if words.result_lines is not None:
        return Observation(_ended(status, verdict), result_in=(good[0], words.result_lines))
    return Observation(replace(_ended(status, verdict), result=words.result))


def _precedence(pod: Pod, replica: ReplicaStatus) -> tuple[bool, bool, bool, float]:
    """Of pods that failed, the least is the cause.

    None is taken off its node because another failed. Once one has failed the Job controller deletes the others, and
    how those end is no cause. One that somebody else deletes is: the others fail after that was asked for, which is
    known to the second.
    """
    killed, at = precedence(replica)
    taken = bool(pod.disrupted[0])
    if pod.leaving:
        return not taken, pod.last_words.end.at is None, True, min(at, pod.told_to_leave + 1)
    return not taken, False, killed, at


def _completed(name: str, status: Status, decides: str, expected: int, told: Mapping[str, LastWords]) -> Observation:
    """The Job says that all went well, but pods are gone before we saw them end; what they told holds."""
    words = {pod: told[pod] for pod in sorted(told) if told[pod].complete}
    if len(words) < expected:
        message = "the job completed, but its pods were removed before its result was read"
        return Observation(_ended(status, Verdict(State.FAILED, Reason.CLUSTER_LOST, message)))
    verdict = Verdict(State.SUCCEEDED, Reason.COMPLETED, f"{decides} ended", exit_code=0)
    first = next((pod for pod in words if pod.startswith(f"{name}-0-")), next(iter(words)))
    return Observation(replace(_ended(status, verdict), result=words[first].result))


def held_by(root: Manifest) -> str:
    """Who keeps a root that was let go from having pods, as the log says it; empty if nobody does."""
    meta = root["metadata"]
    if not root["spec"].get("suspend") or COMPLETE not in meta.get("annotations", {}):
        return ""
    queue = meta.get("labels", {}).get(QUEUE)
    return f"queued in {queue}" if queue else f"suspended, not by us: suspend of Job {meta['name']} is true"


def _of_this_run(root: Manifest, pod: Pod) -> bool:
    """Whether a pod is of the present run of a root that nobody holds: who suspends it has its pods deleted, which is
    no failure.

    Until the Job controller has resumed it all of them are of an earlier run. It notes the time of the start after it
    has made the pods (Kubernetes 1.34, ``Controller.syncJob``), which may so be older than that by a second; those of
    an earlier run had been told to leave by then.
    """
    if COMPLETE in root["metadata"]["annotations"] and _condition(root, "Suspended"):
        return False
    started = root.get("status", {}).get("startTime")
    return not pod.leaving or started is None or pod.created_at >= started or pod.told_to_leave > time_of(started)


def _role(job: Manifest) -> str:
    return str(job["metadata"]["labels"].get(ROLE, ""))


def _about(event: Manifest) -> Manifest:
    about: Manifest = event.get("involvedObject", {})
    return about


def _taken(
    pods: Iterable[Pod], roles: Mapping[str, RoleFacts], replicas: Mapping[str, ReplicaStatus]
) -> Verdict | None:
    """A replica that the cluster takes away, unless there may be fewer of them."""
    fixed = (pod for pod in pods if not _elastic(roles, pod))
    return next(filter(None, (taken_away(pod, replicas[pod.name].name) for pod in fixed)), None)


def _gave_up(jobs: Iterable[Manifest], pods: Iterable[Pod], roles: Mapping[str, RoleFacts]) -> Verdict | None:
    """A Job that failed, of whose pods none says why."""
    for job in jobs:
        role = _role(job)
        if role in roles and _condition(job):
            own = [pod for pod in pods if pod.role == role]
            if verdict := vanished(role, roles[role].replicas, own):
                return verdict
    return None


def _why_no_pods(jobs: Iterable[Manifest], events: Iterable[Manifest]) -> dict[str, str]:
    """Role -> why its Job has no pods, in words that are the same for each try, which is for another pod."""
    last = {_about(event).get("name"): event.get("message", "") for event in events}
    roles = {_role(job): last.get(job["metadata"].get("name"), "") for job in jobs}
    return {role: A_POD.sub("its pods are", words) for role, words in roles.items()}


def _in_the_way_of_pods(events: Iterable[Manifest]) -> dict[str, str]:
    """Job -> why it has no pods; a quota that is used up is none of it, for it may be freed at any time."""
    words = {_about(event).get("name", ""): event.get("message", "") for event in events}
    return {name: text for name, text in words.items() if USED_UP not in text}


def _refused(root: Manifest, events: Iterable[Manifest], standing: Collection[str]) -> Verdict | None:
    """A pod that the API server will not have, so that there is none."""
    for event in events:
        words, stands = event.get("message", ""), _about(event).get("name") in standing
        if USED_UP not in words and (stands or NO_POD.search(words)):
            words += f" (for {STANDS:g} s now)" if stands else ""
            advice = "Ask who runs the namespace: what refused it is named above."
            if VOLUME_TYPE in words:
                advice = f"{AS_A_CLAIM}."
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


def _is_late(job: Manifest) -> bool:
    """Whether it has met its deadline."""
    return (_condition(job) or {}).get("reason") == "DeadlineExceeded"


def _overdue(status: Status, job: Manifest, root: Manifest, pods: Mapping[str, Pod]) -> Observation:
    """With the verdict, and those of the replicas' pods whose last lines it lacks, as far as they are left."""
    known = [replica for replica in status.replicas if replica.detail or replica.name in pods]
    verdict = _deadline_of(job, root, known)
    names = filter(None, (verdict.replica, verdict.suspect))
    return Observation(_ended(status, verdict), late={name: pods[name] for name in names if name in pods})


def _deadline_of(job: Manifest, root: Manifest, replicas: Sequence[ReplicaStatus]) -> Verdict:
    """Whose a Job's deadline was: the cluster's timeout, its lease's end, or that of what is left after its release."""
    facts = facts_of(root)
    if RELEASED in root["metadata"]["annotations"]:
        return Verdict(State.CANCELLED, Reason.DELETED, "the cluster was deleted")
    if job["spec"]["activeDeadlineSeconds"] < facts.timeout:
        message = "nobody has watched the cluster for as long as its lease allows: its task is over"
        return Verdict(State.CANCELLED, Reason.ABANDONED, message)
    return out_of_time(facts.timeout, replicas, facts.deciding)


def _lost(pods: Iterable[Pod], deciding: Sequence[str], roles: Mapping[str, RoleFacts]) -> Pod | None:
    """The first replica that should serve and does not; of an elastic role, the last of too many that failed."""
    crashes: dict[str, int] = {}
    lost = []
    for pod in pods:
        if pod.role in deciding or pod.ended is None:
            continue
        if elastic := roles[pod.role].elastic:
            # A node that refuses its pods does so at once: not counted, they would come and go for ever.
            innocent = pod.leaving or (any(pod.disrupted) and not pod.refused)
            crashed = pod.replica(ready=False).state is State.FAILED and not innocent
            crashes[pod.role] = crashes.get(pod.role, 0) + crashed
            if crashes[pod.role] <= CRASHES_PER_WORKER * elastic.max:
                continue
        lost.append(pod)
    return min(lost, key=lambda pod: (pod.leaving, pod.replica(ready=False).ended_at or 0), default=None)


def _state(roles: Mapping[str, RoleFacts], replicas: Iterable[ReplicaStatus]) -> State:
    running: dict[str, int] = {}
    for replica in replicas:
        if replica.state is not State.PENDING:
            running[replica.role] = running.get(replica.role, 0) + 1
    least = {name: min(1, role.replicas) if role.elastic else role.replicas for name, role in roles.items()}
    if all(running.get(name, 0) >= number for name, number in least.items()):
        return State.RUNNING
    return State.PENDING


def _complete(
    order: list[str], roles: Mapping[str, RoleFacts], replicas: Iterable[ReplicaStatus], why: Mapping[str, str]
) -> list[ReplicaStatus]:
    """With the replicas that must run and have no pod yet."""
    found = {(replica.role, replica.index): replica for replica in replicas}
    for name in order:
        for index in range(0 if roles[name].elastic else roles[name].replicas):
            found.setdefault((name, index), ReplicaStatus(name, index, State.PENDING, detail=why.get(name, "")))
    return sorted(found.values(), key=lambda replica: (order.index(replica.role), replica.index))


def _ended(status: Status, verdict: Verdict) -> Status:
    return replace(status, state=verdict.state, verdict=verdict)


def _elastic(roles: Mapping[str, RoleFacts], pod: Pod) -> bool:
    return roles[pod.role].elastic is not None
