"""What a cluster's objects say: root Job and pods -> Status. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.causes import explain, hopeless, vanished
from practicus_provider.backends.kubernetes.census import Census, Seen, condition, held_by, in_order, role_of
from practicus_provider.backends.kubernetes.facts import Facts
from practicus_provider.backends.kubernetes.labels import RELEASED, cluster_of
from practicus_provider.backends.kubernetes.pod import Pod
from practicus_provider.backends.kubernetes.refusals import AS_A_CLAIM, NO_POD, USED_UP, VOLUME_TYPE
from practicus_provider.backends.kubernetes.standing import STANDS
from practicus_provider.judge import APART, Case, Decision, End, judge
from practicus_provider.overdue import out_of_time
from practicus_provider.result import refused
from practicus_provider.runtime.practicus_runtime.contract import LastWords
from practicus_provider.status import Reason, State, Status, Verdict

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
    :param heard: ends of which more may yet be heard, as :func:`observe` takes them with their times.
    :param lacks_room: whether a replica waits for a node that has enough left.
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
    lacks_room: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class _Look:
    """A cluster's objects, read.

    :param jobs: its Jobs by their roles, as far as they are there, the root among them.
    :param warnings: of Jobs that have no pods.
    :param told: pod -> its last words, as far as they are known from its log or the root.
    """

    census: Census
    jobs: Mapping[str, Manifest]
    warnings: Sequence[Manifest]
    told: Mapping[str, LastWords]

    @property
    def facts(self) -> Facts:
        """The plan."""
        return self.census.facts

    @property
    def deciding_jobs(self) -> list[Manifest]:
        """Those of the roles that decide."""
        return [job for role, job in self.jobs.items() if role in self.facts.deciding]

    def status(self) -> Status:
        """As its replicas have it."""
        why, root = _why_no_pods(self.jobs, self.warnings), self.census.root
        why[self.census.first] = held_by(root) or why.get(self.census.first, "")
        return Status(self.census.state, self.census.replicas(why))


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
    """The cluster's status, of one look at all of its objects.

    :param root: its root Job.
    :param pods: others than numbered ones of the cluster's roles are not looked at.
    :param jobs: likewise; the root may be among them.
    :param events: warnings about its Jobs that have no pods, and about its pods.
    :param told: pod -> its last words, as far as they are known from its log.
    :param largest: resource -> the most of it that one node has, where that is known.
    :param standing: of what was in :attr:`Observation.troubles`, what has stood for too long to heal.
    :param heard: what was in :attr:`Observation.heard` -> when it first was, by the clock of ``now``; else it is now.
    """
    troubles = {about(event).get("uid"): event.get("message", "") for event in events if _is_about_pod(event)}
    census = Census(root, largest)
    for pod in pods:
        census.put(pod, troubles.get(pod["metadata"].get("uid")))
    warnings = [event for event in events if not _is_about_pod(event)]
    return observed(census, warnings, told, jobs, standing, heard, now)


def observed(
    census: Census,
    warnings: Sequence[Manifest] = (),
    told: Mapping[str, LastWords] | None = None,
    jobs: Sequence[Manifest] = (),
    standing: Collection[str] = (),
    heard: Mapping[str, float] | None = None,
    now: float = 0.0,
) -> Observation:
    """As :func:`observe`, of pods that were read as they changed.

    :param warnings: about its Jobs that have no pods.
    """
    root, facts, name = census.root, census.facts, census.root["metadata"]["name"]
    by_role = {role_of(job): job for job in jobs if cluster_of(job) == name}
    first = {census.first: root}
    look = _Look(census, first | by_role | first, warnings, {**census.told, **(told or {})})
    status, gone = look.status(), _gave_up(look)
    over = (*census.tell, *([GONE] if gone else []))
    since = {what: (heard or {}).get(what, now) for what in over}
    if unseen := _unseen(look, status):
        return unseen
    telling = dict(census.tell)
    if census.expected and census.well >= census.expected:  # until then those that ended well tell nothing
        good = in_order(seen for seen in census.pods.values() if seen.decides and seen.well)
        for seen in (good[0], max(good, key=lambda seen: seen.replica.ended_at or 0.0)):
            telling[seen.pod.name] = seen
    ends = {seen.pod.name: _end(seen, since.get(seen.pod.name, now)) for seen in in_order(telling.values())}
    case = Case(
        facts.decides,
        tuple(facts.roles.values()),
        list(ends.values()),
        APART,
        awaits=_awaits(look),
        well=census.well - sum(seen.decides and seen.well for seen in telling.values()),
        closing=condition(root) is not None,
        doomed=_taken(census) or _hopeless(census, standing) or _refused(root, warnings, standing),
        late=_deadline(look, status),
        gone=gone,
        gone_at=since.get(GONE, now),
    )
    decision = judge(case)
    whose = next((pod for pod, end in ends.items() if end is decision.end), None)
    found = _observed(look, status, decision, None if whose is None else census.pods[whose])
    if found.status.verdict is None and found.ending is not None and decision.due <= now:
        found = replace(found, status=_ended(status, found.ending), ending=None)
    if found.status.verdict is None and found.ending is None:
        found = replace(found, done=_done(look))
    blocked = {name: seen.blocked or "" for name, seen in census.blocked.items()}
    troubles = {**blocked, **_in_the_way_of_pods(warnings)}
    return replace(found, troubles=troubles, due=decision.due, heard=over, lacks_room=bool(census.cramped))


def _end(seen: Seen, heard_at: float) -> End:
    """A pod's end, as the judge takes it.

    A node that refuses its pods does so at once: not counted, they would come and go for ever.
    """
    pod = seen.pod
    return End(
        seen.replica,
        heard_at,
        taken=bool(pod.disrupted[0]),
        told_at=pod.told_to_leave if pod.leaving else None,
        stamped=pod.last_words.end.at is not None,
        spoilt=pod.failed_sidecar is not None,
        innocent=seen.innocent,
    )


def _taken(census: Census) -> Verdict | None:
    """A replica that the cluster takes away, unless there may be fewer of them."""
    return min(census.taken.values(), key=lambda seen: seen.place).taken if census.taken else None


def _hopeless(census: Census, standing: Collection[str]) -> Verdict | None:
    """A replica that will never start."""
    late = {name: census.blocked[name] for name in standing if name in census.blocked}
    found = in_order({**census.hopeless, **late}.values())
    return hopeless(found[0].pod, found[0].replica.name, stands=found[0].pod.name in late) if found else None


def _awaits(look: _Look) -> bool:
    """Whether a pod that decides may say more."""
    all_said = len(look.facts.deciding) == 1 and condition(look.census.root, "Failed")
    return not all_said and look.census.unended > 0


def _observed(look: _Look, status: Status, decision: Decision, seen: Seen | None) -> Observation:
    """What was decided, with what is still to be read for it.

    :param seen: the pod whose end it is.
    """
    verdict, pod = decision.verdict, seen.pod if seen else None
    if verdict is not None and verdict.state is State.SUCCEEDED and pod is not None:
        return _succeeded(status, verdict, pod)
    if verdict is None and seen is not None:
        verdict = explain(seen.pod, seen.replica, look.facts, decides=seen.decides)
    found = Observation(status, verdict, pod)
    if verdict is not None and verdict.reason is Reason.DEADLINE_EXCEEDED:
        pods = {seen.replica.name: seen.pod for seen in in_order(look.census.pods.values()) if seen.shown}
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


def _done(look: _Look) -> tuple[Pod, ...]:
    """Pods that have said that they ended well, where with them all that decide have."""
    census = look.census
    if not census.expected or census.good + len(look.told) < census.expected:
        return ()
    left = (seen for seen in census.pods.values() if seen.decides and seen.shown and seen.pod.ended is None)
    done = [seen for seen in left if look.told.get(seen.pod.name, LastWords()).complete]
    return tuple(seen.pod for seen in in_order(done)) if census.good + len(done) >= census.expected else ()


def _unseen(look: _Look, status: Status) -> Observation | None:
    """The Jobs say that all went well, but pods are gone before we saw them end; what they told holds."""
    census, deciding = look.census, look.facts.deciding
    complete = [job for job in look.deciding_jobs if condition(job, "Complete")]
    if not deciding or len(complete) < len(deciding) or census.decisive >= census.expected:
        return None
    if census.good < census.decisive:
        return None
    words = {pod: look.told[pod] for pod in sorted(look.told) if look.told[pod].complete}
    if len(words) < census.expected:
        message = "the job completed, but its pods were removed before its result was read"
        return Observation(_ended(status, Verdict(State.FAILED, Reason.CLUSTER_LOST, message)))
    verdict = Verdict(State.SUCCEEDED, Reason.COMPLETED, f"{look.facts.decides} ended", exit_code=0)
    name = census.root["metadata"]["name"]
    first = next((pod for pod in words if pod.startswith(f"{name}-0-")), next(iter(words)))
    return Observation(replace(_ended(status, verdict), result=words[first].result))


def about(event: Manifest) -> Manifest:
    """What an event is about."""
    found: Manifest = event.get("involvedObject", {})
    return found


def _is_about_pod(event: Manifest) -> bool:
    return about(event).get("kind") == "Pod"


def _gave_up(look: _Look) -> Verdict | None:
    """A Job that failed, of whose pods none says why."""
    for role, job in look.jobs.items():
        if role in look.facts.roles and condition(job):
            own = [seen.pod for seen in look.census.pods.values() if seen.pod.role == role]
            if verdict := vanished(role, look.facts.roles[role].replicas, own):
                return verdict
    return None


def _why_no_pods(jobs: Mapping[str, Manifest], events: Iterable[Manifest]) -> dict[str, str]:
    """Role -> why its Job has no pods, in words that are the same for each try, which is for another pod."""
    last = {about(event).get("name"): event.get("message", "") for event in events}
    roles = {role: last.get(job["metadata"].get("name"), "") for role, job in jobs.items()}
    return {role: A_POD.sub("its pods are", words) for role, words in roles.items()}


def _in_the_way_of_pods(events: Iterable[Manifest]) -> dict[str, str]:
    """Job -> why it has no pods; a quota that is used up is none of it, for it may be freed at any time."""
    words = {about(event).get("name", ""): event.get("message", "") for event in events}
    return {name: text for name, text in words.items() if USED_UP not in text}


def _refused(root: Manifest, events: Iterable[Manifest], standing: Collection[str]) -> Verdict | None:
    """A pod that the API server will not have, so that there is none."""
    for event in events:
        words, stands = event.get("message", ""), about(event).get("name") in standing
        if USED_UP not in words and (stands or NO_POD.search(words)):
            words += f" (for {STANDS:g} s now)" if stands else ""
            advice = "Ask who runs the namespace: what refused it is named above."
            if VOLUME_TYPE in words:
                advice = f"{AS_A_CLAIM}."
            message = f"cluster {root['metadata']['name']} may not have its pods: {words}"
            return Verdict(State.FAILED, Reason.CONFIG_ERROR, message, advice)
    return None


def _is_late(job: Manifest) -> bool:
    """Whether it has met its deadline."""
    return (condition(job) or {}).get("reason") == "DeadlineExceeded"


def _deadline(look: _Look, status: Status) -> Verdict | None:
    """Whose the deadline was that one of the Jobs that decide has met: the cluster's timeout, its lease's end, or that
    of what is left after its release."""
    late = next(filter(_is_late, look.deciding_jobs or [look.census.root]), None)
    if late is None:
        return None
    if RELEASED in look.census.root["metadata"]["annotations"]:
        return Verdict(State.CANCELLED, Reason.DELETED, "the cluster was deleted")
    if late["spec"]["activeDeadlineSeconds"] < look.facts.timeout:
        message = "nobody has watched the cluster for as long as its lease allows: its task is over"
        return Verdict(State.CANCELLED, Reason.ABANDONED, message)
    there = {seen.replica.name for seen in look.census.pods.values() if seen.shown}
    known = [replica for replica in status.replicas if replica.detail or replica.name in there]
    return out_of_time(look.facts.timeout, known, look.facts.deciding)


def _ended(status: Status, verdict: Verdict) -> Status:
    return replace(status, state=verdict.state, verdict=verdict)
