"""What the ends of a job's replicas come to: it goes on, is about to end, or has ended, and by which of them. Pure.

Both backends ask here, so what ends a job on one of them ends it on the other. They differ in how they hear of an end,
and in what else they know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol

from practicus_provider.plan import decisive
from practicus_provider.runtime.practicus_runtime.contract import precedence
from practicus_provider.spec import Elastic
from practicus_provider.status import Reason, ReplicaStatus, State, Verdict

NEARBY = 0.2
"""Seconds that ends which are one another's consequence may be heard of apart, and in another order: on one machine."""
APART = 1.5
"""Likewise by two kubelets; and of replicas of ranks on any backend, since each of these ends only once it has ended
the others of its own (``practicus_runtime.ranks.PATIENCE``)."""
LEFT = 10.0
"""Likewise where what serves has left with exit code 0: an application may shut its own cluster down before it ends."""
CRASHES_PER_WORKER = 3
"""An elastic role's failures are tolerated up to this many times its maximum."""
AT_ONCE = -inf


class Role(Protocol):
    """What of a role counts here: a plan's, or what a backend has kept of it."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def replicas(self) -> int:
        """How many it starts with."""

    @property
    def elastic(self) -> Elastic | None:
        """Its bounds, if it has some."""

    @property
    def part_of(self) -> str | None:
        """Name of the role that it is a further part of."""


@dataclass(frozen=True)
class End:
    """One replica's end.

    :param heard_at: when the backend heard of it, by the clock of whoever asks.
    :param taken: whether its place was taken away, which nobody's is because another failed.
    :param told_at: when somebody asked for its end, seconds since the epoch, to the second; None: nobody did.
    :param stamped: whether ``ended_at`` is its own word, of a rank that failed before the replica ended.
    :param spoilt: whether what runs beside it has failed, for which a backend ends the others, though it ended well.
    :param innocent: whether its failure does not count against its elastic role.
    """

    replica: ReplicaStatus
    heard_at: float
    taken: bool = False
    told_at: float | None = None
    stamped: bool = True
    spoilt: bool = False
    innocent: bool = False

    @property
    def failed(self) -> bool:
        """Whether it did not end well."""
        return self.replica.state is State.FAILED


@dataclass(frozen=True)
class Case:
    """What a backend knows of a job at one time.

    :param decides: name of the role whose end is the job's end, with its further parts; None: nobody's is.
    :param ends: of replicas, also those of elastic roles that are gone by now, as far as they are not in ``well``.
    :param apart: :data:`NEARBY` or :data:`APART`.
    :param awaits: whether one that decides may still end.
    :param well: further ones that decide and have ended well, neither the first nor the last of those that have: of
        thousands nobody needs to name each.
    :param closing: whether the backend ends all of them by itself already, so that nothing is worth waiting for.
    :param doomed: of a replica that can never start, or whose place is being taken away.
    :param late: where the cluster's time is over.
    :param gone: of a replica that is lost, and has no end that could tell why.
    :param gone_at: when that was heard of.
    """

    decides: str | None
    roles: Sequence[Role]
    ends: Sequence[End]
    apart: float
    awaits: bool
    well: int = 0
    closing: bool = False
    doomed: Verdict | None = None
    late: Verdict | None = None
    gone: Verdict | None = None
    gone_at: float = 0.0

    @property
    def deciding(self) -> list[End]:
        """Those whose end is the job's."""
        own = {role.name for role in self.roles if decisive(self.decides, role.name, role.part_of)}
        return [end for end in self.ends if end.replica.role in own]

    @property
    def expected(self) -> int:
        """Replicas that decide."""
        return sum(role.replicas for role in self.roles if decisive(self.decides, role.name, role.part_of))

    @property
    def lost(self) -> list[End]:
        """Those that should serve and do not; of an elastic role, the failures beyond what is tolerated."""
        found: list[End] = []
        for role in self.roles:
            if decisive(self.decides, role.name, role.part_of):
                continue
            ends = [end for end in self.ends if end.replica.role == role.name]
            if role.elastic:
                crashes = [end for end in ends if end.failed and not end.innocent]
                ends = sorted(crashes, key=_ended_at)[CRASHES_PER_WORKER * role.elastic.max :]
            found += ends
        return found


@dataclass(frozen=True)
class Decision:
    """How a job stands.

    :param due: when it is over, by the clock of :attr:`End.heard_at`, unless something else is heard until then:
        :data:`AT_ONCE`, a time, or never (``inf``).
    :param end: whose end it is, which the backend then explains.
    :param verdict: what it is, where no explanation is wanted.
    """

    due: float = inf
    end: End | None = None
    verdict: Verdict | None = None


GOES_ON = Decision()


def judge(case: Case) -> Decision:
    """How a job stands: by the first of :data:`RULES` that has an answer."""
    return next(filter(None, (rule(case) for rule in RULES)), GOES_ON)


def first_failure(ends: Iterable[End]) -> End:
    """The cause of all of these: of replicas that failed, or that should serve and have ended.

    None is taken off its place because another failed. Once one has failed a backend ends the others, and how those end
    is no cause. One that somebody else ends is: the others fail after that was asked for, which is known to the second.
    """
    every = list(ends)
    first = min(every, key=_precedence)
    if first.told_at is not None and not first.taken:  # as a backend does where one is spoilt
        return next((end for end in every if end.spoilt), first)
    return first


def _precedence(end: End) -> tuple[bool, bool, bool, bool, float]:
    unhurt, at = precedence(end.replica.signal, _ended_at(end))
    if end.told_at is not None:
        return not end.failed, not end.taken, not end.stamped, True, min(at, end.told_at + 1)
    return not end.failed, not end.taken, False, unhurt, at


def _ended_at(end: End) -> float:
    return end.replica.ended_at or 0.0


# ---- the rules, in their order


def all_ended_well(case: Case) -> Decision | None:
    """All that decide have ended well."""
    good = [end for end in case.deciding if not end.failed]
    if not case.expected or len(good) + case.well < case.expected:
        return None
    last = max(good, key=_ended_at)
    verdict = Verdict(State.SUCCEEDED, Reason.COMPLETED, f"{last.replica.name} ended", exit_code=0)
    return Decision(AT_ONCE, good[0], verdict)


def none_is_left(case: Case) -> Decision | None:
    """All that decide have ended, one of them badly, and it was not for the time that was over."""
    failed = _failed(case)
    if failed is None or case.awaits or (case.late and failed.told_at is not None):
        return None
    return Decision(AT_ONCE, failed)


def one_is_doomed(case: Case) -> Decision | None:
    """A replica can never start, or its place is being taken away."""
    return Decision(AT_ONCE, verdict=case.doomed) if case.doomed else None


def time_is_over(case: Case) -> Decision | None:
    """The cluster's time is over."""
    return Decision(AT_ONCE, verdict=case.late) if case.late else None


def one_failed(case: Case) -> Decision | None:
    """One that decides has failed; another may have before it, of which nobody has heard yet."""
    failed = _failed(case)
    if failed is None:
        return None
    return Decision(min(end.heard_at for end in case.deciding if end.failed) + APART, failed)


def one_is_lost(case: Case) -> Decision | None:
    """One that serves has ended, or too many of an elastic role have; what decides may have caused it, and yet end."""
    lost = case.lost
    if case.gone and all(end.told_at is not None for end in lost):  # those were ended after it
        return Decision(AT_ONCE if case.closing else case.gone_at + case.apart, verdict=case.gone)
    if not lost:
        return None
    due = min(end.heard_at + _patience(case, end) for end in lost)
    return Decision(AT_ONCE if case.closing else due, first_failure(lost))


RULES: tuple[Callable[[Case], Decision | None], ...] = (
    all_ended_well,
    none_is_left,
    one_is_doomed,
    time_is_over,
    one_failed,
    one_is_lost,
)


def _failed(case: Case) -> End | None:
    """The first that failed of those that decide."""
    deciding = case.deciding
    if not any(end.failed for end in deciding):
        return None
    return first_failure(end for end in deciding if end.failed or end.spoilt)


def _patience(case: Case, end: End) -> float:
    """How long the end of one that serves waits for the end of what decides."""
    return LEFT if end.replica.exit_code == 0 and case.decides is not None else case.apart
