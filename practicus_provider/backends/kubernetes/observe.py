"""What a cluster's objects say: root Job and pods -> Status. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.causes import explain, hopeless, in_the_way, taken_away, vanished
from practicus_provider.backends.kubernetes.facts import Facts, RoleFacts, facts_of, told_by
from practicus_provider.backends.kubernetes.labels import COMPLETE, QUEUE, RELEASED, ROLE, cluster_of
from practicus_provider.backends.kubernetes.pod import INSUFFICIENT, Pod, time_of
from practicus_provider.backends.kubernetes.refusals import AS_A_CLAIM, NO_POD, USED_UP, VOLUME_TYPE
from practicus_provider.backends.kubernetes.standing import STANDS
from practicus_provider.judge import APART, Case, Decision, End, judge
from practicus_provider.overdue import out_of_time
from practicus_provider.result import refused
from practicus_provider.runtime.practicus_runtime.contract import LastWords
from practicus_provider.status import Reason, ReplicaStatus, State, Status, Verdict

GONE = "a pod that is gone"
"""In :attr:`Observation.heard`."""
A_POD = re.compile(r'pods "[^"]*" is')
"""How the API server begins to say what a pod may not."""


@dataclass(frozen=True)
class Observation:
    """One look at a cluster.

    :param ending: what it comes to, at :attr:`due`, unless something else is heard until then.
    :param failed: the pod whose end is the verdict's cause; its log has the last lines.
    :param late: where time was over, replica -> its pod, of those whose last lines the verdict lacks.
    :param result_in: the pod whose log holds a long result, and in how many lines.
    :param done: pods that have said all, and that they ended well, before the server knows; with them the job is done.
    :param troubles: pod or Job -> the words for what stands in its way, and may not for ever.
    :param due: see :attr:`~practicus_provider.judge.Decision.due`.
    :param heard: what has ended by now, as :func:`observe` takes it with its time.
    """

    status: Status
    ending: Verdict | None = None
    failed: Pod | None = None
    late: Mapping[str, Pod] = field(default_factory=dict)
    result_in: tuple[Pod, int] | None = None
    done: tuple[Pod, ...] = ()
    troubles: Mapping[str, str] = field(default_factory=dict, compare=False)
    due: float = field(default=math.inf, compare=False)
    heard: tuple[str, ...] = field(default=(), compare=False)

    @property
    def lacks_room(self) -> bool:
        """Whether a replica waits for a node that has enough left."""
        return any(INSUFFICIENT.search(replica.detail) for replica in self.status.replicas)


@dataclass(frozen=True)
class _Look:
    """A cluster's objects, read.

    :param pods: those of this run of its roles, by role and index.
    :param replicas: pod -> what it is a replica of, and how it stands.
    :param jobs: its Jobs by their roles, as far as they are there, the root among them.
    :param warnings: of Jobs.
    """

    root: Manifest
    facts: Facts
    pods: Sequence[Pod]
    replicas: Mapping[str, ReplicaStatus]
    jobs: Mapping[str, Manifest]
    warnings: Sequence[Manifest]

    @cached_property
    def shown(self) -> list[Pod]:
        """Without those of elastic roles that have left, or are about to."""
        return [pod for pod in self.pods if not (self._elastic(pod) and (pod.ended is not None or pod.leaving))]

    @cached_property
    def decisive(self) -> list[Pod]:
        """Those whose end is the job's."""
        return [pod for pod in self.shown if pod.role in self.facts.deciding]

    @property
    def expected(self) -> int:
        """Replicas that decide."""
        return sum(self.facts.roles[role].replicas for role in self.facts.deciding)

    @property
    def deciding_jobs(self) -> list[Manifest]:
        """Those of the roles that decide."""
        return [job for role, job in self.jobs.items() if role in self.facts.deciding]

    @property
    def taken(self) -> Verdict | None:
        """A replica that the cluster takes away, unless there may be fewer of them."""
        fixed = (pod for pod in self.shown if not self._elastic(pod))
        return next(filter(None, (taken_away(pod, self.replicas[pod.name].name) for pod in fixed)), None)

    def status(self) -> Status:
        """As its replicas have it."""
        order, replicas = list(self.facts.roles), [self.replicas[pod.name] for pod in self.shown]
        why, first = _why_no_pods(self.jobs, self.warnings), _role(self.root)
        why[first] = held_by(self.root) or why.get(first, "")
        return Status(_state(self.facts.roles, replicas), tuple(_complete(order, self.facts.roles, replicas, why)))

    def _elastic(self, pod: Pod) -> bool:
        return self.facts.roles[pod.role].elastic is not None


def observe(
    root: Manifest,
    pods: Iterable[Manifest],
    events: Sequence[Manifest] = (),
    told: Mapping[str, LastWords] | None = None,
    jobs: Sequence[Manifest] = (),
    largest: Mapping[str, str] | None = None,
    standing: Collection[str] = (),
    heard: Mapping[str, float] | None = None,
    now: float = 0.0,
) -> Observation:
    """The cluster's status.

    :param root: its root Job.
    :param pods: others than numbered ones of the cluster's roles are not looked at.
    :param jobs: likewise; the root may be among them.
    :param events: warnings about its Jobs that have no pods, and about its pods.
    :param told: pod -> its last words, as far as they are known from its log.
    :param largest: resource -> the most of it that one node has, where that is known.
    :param standing: of what was in :attr:`Observation.troubles`, what has stood for too long to heal.
    :param heard: what was in :attr:`Observation.heard` -> when it first was, by the clock of ``now``; else it is now.
    """
    told = {**told_by(root), **(told or {})}
    look = _looked(root, pods, events, jobs, largest or {})
    status, gone = look.status(), _gave_up(look)
    over = (*(pod.name for pod in look.pods if pod.ended), *([GONE] if gone else []))
    since = {what: (heard or {}).get(what, now) for what in over}
    if unseen := _unseen(look, status, told):
        return unseen
    case = Case(
        look.facts.decides,
        tuple(look.facts.roles.values()),
        [_end(pod, look.replicas[pod.name], since[pod.name]) for pod in look.pods if pod.ended],
        APART,
        awaits=_awaits(look),
        closing=_condition(root) is not None,
        doomed=look.taken or hopeless(look.shown, look.replicas, standing) or _refused(root, look.warnings, standing),
        late=_deadline(look, status),
        gone=gone,
        gone_at=since.get(GONE, now),
    )
    decision = judge(case)
    found = _observed(look, status, decision)
    if found.status.verdict is None and found.ending is not None and decision.due <= now:
        found = replace(found, status=_ended(status, found.ending), ending=None)
    if found.status.verdict is None and found.ending is None:
        found = replace(found, done=_done(look, told))
    troubles = {**in_the_way(look.shown), **_in_the_way_of_pods(look.warnings)}
    return replace(found, troubles=troubles, due=decision.due, heard=over)


def _looked(
    root: Manifest,
    pods: Iterable[Manifest],
    events: Sequence[Manifest],
    jobs: Sequence[Manifest],
    largest: Mapping[str, str],
) -> _Look:
    facts, name, first, held = facts_of(root), root["metadata"]["name"], _role(root), held_by(root)
    order = list(facts.roles)
    found = (Pod(pod, largest) for pod in pods if cluster_of(pod) == name)
    known = [
        pod
        for pod in found
        if pod.role in order and pod.index >= 0 and (pod.role != first or (not held and _of_this_run(root, pod)))
    ]
    known.sort(key=lambda pod: (order.index(pod.role), pod.index))
    warnings = [event for event in events if _about(event).get("kind") != "Pod"]
    troubles = {_about(event).get("uid"): event.get("message", "") for event in events if event not in warnings}
    replicas = {
        pod.name: pod.replica(
            ready=facts.roles[pod.role].ready, trouble=troubles.get(pod.manifest["metadata"].get("uid"))
        )
        for pod in known
    }
    by_role = {_role(job): job for job in jobs if cluster_of(job) == name}
    return _Look(root, facts, known, replicas, {first: root} | by_role | {first: root}, warnings)


def _end(pod: Pod, replica: ReplicaStatus, heard_at: float) -> End:
    """A pod's end, as the judge takes it.

    A node that refuses its pods does so at once: not counted, they would come and go for ever.
    """
    return End(
        replica,
        heard_at,
        taken=bool(pod.disrupted[0]),
        told_at=pod.told_to_leave if pod.leaving else None,
        stamped=pod.last_words.end.at is not None,
        spoilt=pod.failed_sidecar is not None,
        innocent=pod.leaving or (any(pod.disrupted) and not pod.refused),
    )


def _awaits(look: _Look) -> bool:
    """Whether a pod that decides may say more."""
    all_said = len(look.facts.deciding) == 1 and _condition(look.root, "Failed")
    return not all_said and any(pod.ended is None for pod in look.decisive)


def _observed(look: _Look, status: Status, decision: Decision) -> Observation:
    """What was decided, with what is still to be read for it."""
    verdict, pod = decision.verdict, None
    if decision.end is not None:
        pod = next(pod for pod in look.pods if look.replicas[pod.name] is decision.end.replica)
    if verdict is not None and verdict.state is State.SUCCEEDED and pod is not None:
        return _succeeded(status, verdict, pod)
    if verdict is None and pod is not None:
        verdict = explain(pod, look.replicas[pod.name], look.facts, decides=pod.role in look.facts.deciding)
    found = Observation(status, verdict, pod)
    if verdict is not None and verdict.reason is Reason.DEADLINE_EXCEEDED:
        pods = {look.replicas[pod.name].name: pod for pod in look.shown}
        names = filter(None, (verdict.replica, verdict.suspect))
        found = replace(found, late={name: pods[name] for name in names if name in pods})
    return found


def _succeeded(status: Status, verdict: Verdict, first: Pod) -> Observation:
    """With the result that the first of those that decide has said, or where it is."""
    words = first.last_words
    if words.unreadable:
        return Observation(_ended(status, refused(verdict, words.unreadable)))
    if words.result_lines is not None:
        return Observation(_ended(status, verdict), result_in=(first, words.result_lines))
    return Observation(replace(_ended(status, verdict), result=words.result))


def _done(look: _Look, told: Mapping[str, LastWords]) -> tuple[Pod, ...]:
    """Pods that have said that they ended well, where with them all that decide have."""
    good = [pod for pod in look.decisive if look.replicas[pod.name].state is State.SUCCEEDED]
    done = [pod for pod in look.decisive if pod.ended is None and told.get(pod.name, LastWords()).complete]
    return tuple(done) if look.expected and len(good) + len(done) >= look.expected else ()


def _unseen(look: _Look, status: Status, told: Mapping[str, LastWords]) -> Observation | None:
    """The Jobs say that all went well, but pods are gone before we saw them end; what they told holds."""
    complete = [job for job in look.deciding_jobs if _condition(job, "Complete")]
    if not look.facts.deciding or len(complete) < len(look.facts.deciding) or len(look.decisive) >= look.expected:
        return None
    if any(look.replicas[pod.name].state is not State.SUCCEEDED for pod in look.decisive):
        return None
    words = {pod: told[pod] for pod in sorted(told) if told[pod].complete}
    if len(words) < look.expected:
        message = "the job completed, but its pods were removed before its result was read"
        return Observation(_ended(status, Verdict(State.FAILED, Reason.CLUSTER_LOST, message)))
    verdict = Verdict(State.SUCCEEDED, Reason.COMPLETED, f"{look.facts.decides} ended", exit_code=0)
    name = look.root["metadata"]["name"]
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


def _gave_up(look: _Look) -> Verdict | None:
    """A Job that failed, of whose pods none says why."""
    for role, job in look.jobs.items():
        if role in look.facts.roles and _condition(job):
            own = [pod for pod in look.pods if pod.role == role]
            if verdict := vanished(role, look.facts.roles[role].replicas, own):
                return verdict
    return None


def _why_no_pods(jobs: Mapping[str, Manifest], events: Iterable[Manifest]) -> dict[str, str]:
    """Role -> why its Job has no pods, in words that are the same for each try, which is for another pod."""
    last = {_about(event).get("name"): event.get("message", "") for event in events}
    roles = {role: last.get(job["metadata"].get("name"), "") for role, job in jobs.items()}
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


def _deadline(look: _Look, status: Status) -> Verdict | None:
    """Whose the deadline was that one of the Jobs that decide has met: the cluster's timeout, its lease's end, or that
    of what is left after its release."""
    late = next(filter(_is_late, look.deciding_jobs or [look.root]), None)
    if late is None:
        return None
    if RELEASED in look.root["metadata"]["annotations"]:
        return Verdict(State.CANCELLED, Reason.DELETED, "the cluster was deleted")
    if late["spec"]["activeDeadlineSeconds"] < look.facts.timeout:
        message = "nobody has watched the cluster for as long as its lease allows: its task is over"
        return Verdict(State.CANCELLED, Reason.ABANDONED, message)
    there = {look.replicas[pod.name].name for pod in look.shown}
    known = [replica for replica in status.replicas if replica.detail or replica.name in there]
    return out_of_time(look.facts.timeout, known, look.facts.deciding)


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
