"""The pods of a cluster, each read once for each of its changes, and counted. Pure: it neither waits nor asks anybody.

A cluster of thousands changes thousands of times, so a change may only cost what changed: :mod:`.observe` asks the
counts, and looks at single pods where there is something about them.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain

from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.causes import hopeless, in_the_way, taken_away
from practicus_provider.backends.kubernetes.facts import Facts, RoleFacts, facts_of, told_by
from practicus_provider.backends.kubernetes.labels import COMPLETE, FACTS, QUEUE, ROLE, TOLD, cluster_of
from practicus_provider.backends.kubernetes.pod import INSUFFICIENT, Pod, time_of
from practicus_provider.runtime.practicus_runtime.contract import LastWords
from practicus_provider.status import ReplicaStatus, State, Verdict

BATCH = 100
"""Pods that whoever shares an event loop reads before others have their turn: some 5 ms."""
Place = tuple[int, int, str, str]
"""Of a pod among the others: its role's, its index, when it was made, its name."""


@dataclass(frozen=True)
class Seen:
    """One pod as it was read.

    :param decides: whether its role's end is the job's end.
    :param elastic: whether there may be fewer of its role.
    :param trouble: what an event says of it.
    :param shown: whether it is a replica: not if it is of an elastic role and has left, or is about to.
    :param well: whether it has ended, and well.
    :param innocent: whether its failure does not count against its elastic role.
    :param tells: whether its end may say something of the job, before all that decide have ended well.
    :param taken: why the cluster takes it away, unless there may be fewer of them.
    :param blocked: the words for what keeps it from having its containers; None: nothing does.
    :param hopeless: why it will never start.
    :param cramped: whether it waits for a node that has enough left.
    """

    pod: Pod
    replica: ReplicaStatus
    place: Place
    decides: bool
    elastic: bool
    trouble: str | None
    shown: bool
    well: bool
    innocent: bool
    tells: bool
    taken: Verdict | None
    blocked: str | None
    hopeless: Verdict | None
    cramped: bool

    @classmethod
    def read(cls, pod: Pod, role: RoleFacts, position: int, *, decides: bool, trouble: str | None) -> Seen:
        """Read a pod.

        :param position: of its role among the others.
        """
        replica, ended, elastic = pod.replica(ready=role.ready, trouble=trouble), pod.ended, role.elastic is not None
        failed = ended is not None and replica.state is State.FAILED
        innocent = pod.leaving or (any(pod.disrupted) and not pod.refused)
        if decides:
            tells = failed or (ended is not None and pod.failed_sidecar is not None)
        else:
            tells = failed and not innocent if elastic else ended is not None
        shown = not (elastic and (ended is not None or pod.leaving))
        blocked = in_the_way(pod) if shown else None
        return cls(
            pod,
            replica,
            (position, pod.index, pod.created_at, pod.name),
            decides,
            elastic,
            trouble,
            shown,
            well=ended is not None and not failed,
            innocent=innocent,
            tells=tells,
            taken=None if elastic else taken_away(pod, replica.name),
            blocked=blocked,
            hopeless=None if blocked is None else hopeless(pod, replica.name),
            cramped=shown and INSUFFICIENT.search(replica.detail) is not None,
        )


class Census:
    """The pods of one cluster.

    :param largest: resource -> the most of it that one node has, where that is known.
    :ivar largest: likewise, for pods that are put from now on.
    :ivar pods: name -> each that is of the present run of one of the cluster's roles.
    :ivar tell: likewise, those whose ends may say something; ``taken``, ``blocked``, ``hopeless``, ``cramped``: those
        of which :class:`Seen` says so.
    :ivar decisive: how many there are whose end is the job's.
    :ivar unended: how many of these have not ended.
    :ivar good: how many of these have ended well.
    :ivar well: how many pods of roles that decide have, those included that are shown no more.
    :ivar told: pod -> its last words, as far as the root keeps them.
    """

    root: Manifest
    facts: Facts

    def __init__(self, root: Manifest, largest: Mapping[str, str] | None = None) -> None:
        self._given: dict[str, tuple[Manifest, str | None]] = {}
        self._read: dict[str, Seen] = {}
        self._owners: Counter[str] = Counter()
        self.largest = largest or {}
        self._texts: tuple[str | None, ...] = ()
        self._plan: tuple[str | None, Mapping[str, RoleFacts]] | None = None
        self._run: tuple[str, bool, str | None] | None = None
        self.told: Mapping[str, LastWords] = {}
        self.set_root(root)

    @property
    def first(self) -> str:
        """The root's role."""
        return role_of(self.root)

    @property
    def expected(self) -> int:
        """Replicas that decide."""
        return sum(self.facts.roles[role].replicas for role in self.facts.deciding)

    def set_root(self, root: Manifest) -> None:
        """The root as it is now.

        :raises Unreadable: what it says of its plan cannot be meant.
        """
        annotations = root["metadata"].get("annotations", {})
        texts = (annotations.get(FACTS), annotations.get(TOLD))
        facts = self.facts if self._texts[:1] == texts[:1] else facts_of(root)
        self.told = self.told if self._texts[1:] == texts[1:] else told_by(root)
        self.root, self._texts = root, texts
        run, known = (held_by(root), _stopped(root), root.get("status", {}).get("startTime")), self._run
        self._run, before = run, self._plan
        self.facts, self._plan = facts, (facts.decides, facts.roles)
        if self._plan != before:
            self._read_all()
        elif run != known:
            self._count_first()

    def put(self, manifest: Manifest, trouble: str | None = None) -> None:
        """A pod that is new or has changed; one of another cluster is not looked at.

        :param trouble: what an event says of it.
        """
        seen, ours = None, cluster_of(manifest) == self.root["metadata"]["name"]
        pod = Pod(manifest, self.largest)
        role = self.facts.roles.get(pod.role) if ours else None
        if role is not None and pod.index >= 0:
            decides = pod.role in self._deciding
            seen = Seen.read(pod, role, self._positions[pod.role], decides=decides, trouble=trouble)
        self.drop(pod.name)
        if ours:
            self._given[pod.name] = manifest, trouble
            self._owners.update(_owners_of(manifest))
        if seen is not None:
            self._read[pod.name] = seen
            if self._of_this_run(seen):
                self._count(seen)

    def drop(self, name: str) -> None:
        """A pod that is gone."""
        given, seen = self._given.pop(name, None), self._read.pop(name, None)
        if given is not None:
            self._owners.subtract(_owners_of(given[0]))
        if seen is not None and name in self.pods:
            self._discount(seen)

    def owns(self, job: Manifest) -> bool:
        """Whether a Job has pods."""
        return self._owners[job["metadata"].get("uid")] > 0

    def _read_all(self) -> None:
        given = list(self._given.values())
        self._given.clear()
        self._read.clear()
        self._owners.clear()
        self._deciding = self.facts.deciding
        self._positions = {name: position for position, name in enumerate(self.facts.roles)}
        self._rows = {name: _Row(role) for name, role in self._roles}
        self._shown: tuple[ReplicaStatus, ...] = ()
        self._running: Counter[str] = Counter()
        self.decisive = self.unended = self.good = self.well = 0
        self.pods: dict[str, Seen] = {}
        self.tell: dict[str, Seen] = {}
        self.taken: dict[str, Seen] = {}
        self.blocked: dict[str, Seen] = {}
        self.hopeless: dict[str, Seen] = {}
        self.cramped: dict[str, Seen] = {}
        for manifest, trouble in given:
            self.put(manifest, trouble)

    def replicas(self, why: Mapping[str, str]) -> tuple[ReplicaStatus, ...]:
        """All that are shown and, of fixed roles, those that have no pod yet; by role and index.

        :param why: role -> why its replicas have none.
        """
        for name, row in self._rows.items():
            row.explain(why.get(name, ""))
        if any(row.changed for row in self._rows.values()):
            self._shown = tuple(chain.from_iterable(row.replicas for row in self._rows.values()))
            for row in self._rows.values():
                row.changed = False
        return self._shown

    @property
    def state(self) -> State:
        """Running once all run, or have, that must."""
        least = {name: min(1, role.replicas) if role.elastic else role.replicas for name, role in self._roles}
        running = all(self._running[name] >= number for name, number in least.items())
        return State.RUNNING if running else State.PENDING

    @property
    def _roles(self) -> Iterable[tuple[str, RoleFacts]]:
        return self.facts.roles.items()

    def _count_first(self) -> None:
        """Of the root's pods those may count now that did not, and the other way round."""
        for name, seen in self._read.items():
            if (counts := self._of_this_run(seen)) != (name in self.pods):
                (self._count if counts else self._discount)(seen)

    def _of_this_run(self, seen: Seen) -> bool:
        """Whether a pod is of the present run of a root that nobody holds: who suspends it has its pods deleted, which
        is no failure.

        Until the Job controller has resumed it all of them are of an earlier run. It notes the time of the start after
        it has made the pods (Kubernetes 1.34, ``Controller.syncJob``), which may so be older than that by a second;
        those of an earlier run had been told to leave by then.
        """
        pod, run = seen.pod, self._run
        if pod.role != self.first or run is None:
            return True
        held, stopped, started = run
        if held or stopped:
            return False
        return not pod.leaving or started is None or pod.created_at >= started or pod.told_to_leave > time_of(started)

    def _count(self, seen: Seen) -> None:
        self.pods[seen.pod.name] = seen
        self._add(seen, 1)
        for those, belongs in self._notable(seen):
            if belongs:
                those[seen.pod.name] = seen
        if seen.shown:
            self._rows[seen.pod.role].put(seen)

    def _discount(self, seen: Seen) -> None:
        del self.pods[seen.pod.name]
        self._add(seen, -1)
        for those, belongs in self._notable(seen):
            if belongs:
                del those[seen.pod.name]
        if seen.shown:
            self._rows[seen.pod.role].drop(seen)

    def _notable(self, seen: Seen) -> tuple[tuple[dict[str, Seen], bool], ...]:
        return (
            (self.tell, seen.tells),
            (self.taken, seen.taken is not None),
            (self.blocked, seen.blocked is not None),
            (self.hopeless, seen.hopeless is not None),
            (self.cramped, seen.cramped),
        )

    def _add(self, seen: Seen, one: int) -> None:
        if seen.shown and seen.replica.state is not State.PENDING:
            self._running[seen.pod.role] += one
        if seen.decides:
            self.well += one * seen.well
            if seen.shown:
                self.decisive += one
                self.good += one * seen.well
                self.unended += one * (seen.pod.ended is None)


class _Row:
    """The replicas of one role, by index."""

    def __init__(self, role: RoleFacts) -> None:
        self._role = role.name
        self._fixed = 0 if role.elastic else role.replicas
        self._why = ""
        self._here: dict[int, dict[str, Seen]] = {}
        self._indexes = list(range(self._fixed))
        self.replicas = [self._missing(index) for index in self._indexes]
        self.changed = True

    def put(self, seen: Seen) -> None:
        self._here.setdefault(seen.pod.index, {})[seen.pod.name] = seen
        self._show(seen.pod.index)

    def drop(self, seen: Seen) -> None:
        here = self._here[seen.pod.index]
        del here[seen.pod.name]
        if not here:
            del self._here[seen.pod.index]
        self._show(seen.pod.index)

    def explain(self, why: str) -> None:
        if why != self._why:
            self._why = why
            for index in range(self._fixed):
                if index not in self._here:
                    self._show(index)

    def _show(self, index: int) -> None:
        """Of several pods of one index, the last one that was made."""
        self.changed = True
        at, here = bisect_left(self._indexes, index), self._here.get(index)
        there = at < len(self._indexes) and self._indexes[at] == index
        if here:
            shown = max(here.values(), key=lambda seen: seen.place).replica
        elif index < self._fixed:
            shown = self._missing(index)
        else:
            del self._indexes[at], self.replicas[at]
            return
        if there:
            self.replicas[at] = shown
        else:
            self._indexes.insert(at, index)
            self.replicas.insert(at, shown)

    def _missing(self, index: int) -> ReplicaStatus:
        return ReplicaStatus(self._role, index, State.PENDING, detail=self._why)


def in_order(those: Iterable[Seen]) -> list[Seen]:
    """By role and index."""
    return sorted(those, key=lambda seen: seen.place)


def held_by(root: Manifest) -> str:
    """Who keeps a root that was let go from having pods, as the log says it; empty if nobody does."""
    meta = root["metadata"]
    if not root["spec"].get("suspend") or COMPLETE not in meta.get("annotations", {}):
        return ""
    queue = meta.get("labels", {}).get(QUEUE)
    return f"queued in {queue}" if queue else f"suspended, not by us: suspend of Job {meta['name']} is true"


def condition(job: Manifest, *types: str) -> Manifest | None:
    """How a Job failed (or what else is asked), if it did."""
    for found in job.get("status", {}).get("conditions", ()):
        if found["status"] == "True" and found["type"] in (types or ("Failed", "FailureTarget")):
            told: Manifest = found
            return told
    return None


def role_of(job: Manifest) -> str:
    """The role whose pods a Job makes."""
    return str(job["metadata"]["labels"].get(ROLE, ""))


def _stopped(root: Manifest) -> bool:
    return COMPLETE in root["metadata"].get("annotations", {}) and condition(root, "Suspended") is not None


def _owners_of(pod: Manifest) -> list[str]:
    return [owner["uid"] for owner in pod["metadata"].get("ownerReferences", ())]
