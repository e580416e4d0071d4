"""Who trains in an elastic job, and when all start anew. Pure: no clock of its own, no I/O but what members are told.

Members are replicas. In a **round** the world is fixed: each member that is present has its ranks, and the round goes
on until all have ended well, or until the world must change: a member is lost, others have joined, or a rank has
failed. Then the ranks are ended (torch), or come back by themselves for their new places (Horovod), and with those who
are there the next round begins.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Callable, List, NamedTuple, Optional

from .contract import End, Limits


class Failure(NamedTuple):
    """How a rank has failed, on which replica, and its last lines."""

    end: End
    tail: List[str]  # noqa: UP006  (Python 3.8)


@dataclass
class Member:
    """A replica that takes part, or waits for the next round.

    :param port: at which its first rank may listen.
    :param slots: ranks that it has.
    :param tell: sends it an order.
    :param round: the last one that it was present in, 0 if it is new: its name may have been a lost one's.
    :param busy: its ranks of this round have neither ended nor come back.
    :param token: what its ranks show where they cannot show that they hold the cluster's key.
    """

    name: str
    address: str
    port: int
    slots: int
    tell: Callable[..., None]
    round: int = 0
    busy: bool = False
    token: str = field(default_factory=secrets.token_urlsafe)


class Phase(Enum):
    """Of a job."""

    GATHERING = "members are awaited"
    RUNNING = "a round goes on"
    BREAKING = "its ranks are to end, or to come back"
    OVER = "the job has ended"


class Group:
    """The members of one job.

    :param stops: whether ranks are ended before the next round. Else they come back by themselves, and hold what was
        learnt: then nothing can begin anew once one of them has ended well.
    """

    def __init__(self, limits: Limits, *, stops: bool) -> None:
        self.limits = limits
        self.stops = stops
        self.phase = Phase.GATHERING
        self.members: dict[str, Member] = {}
        self.short_since: Optional[float] = None  # noqa: UP045  (Python 3.8)
        self.enough_since: Optional[float] = None  # noqa: UP045
        self.joined_at: Optional[float] = None  # noqa: UP045
        self.restarts = 0
        self.round = 0
        self.present: list[str] = []
        self.orders: dict[str, dict[str, Any]] = {}
        self.finished: set[str] = set()
        self.lost: set[str] = set()
        self.failures: list[Failure] = []
        self.broken = self.grown = False
        self.why = ""
        self.result: Optional[str] = None  # noqa: UP045

    # ---- what happens

    def join(self, member: Member, now: float) -> None:
        """A replica has come.

        :raises PermissionError: one of that name is here, or the job is over.
        """
        if member.name in self.members or self.phase is Phase.OVER:
            raise PermissionError(f"{member.name} cannot join")
        self.members[member.name] = member
        self.joined_at = now if self.joined_at is None else self.joined_at

    def leave(self, name: str) -> None:
        """A member is gone, with its ranks if it has some."""
        member = self.members.pop(name, None)
        if member is not None and member.busy:
            self.lost.add(name)
            self.broken = True

    def free(self, name: str) -> None:
        """A member's ranks have ended as they were told to, or have come back."""
        if self.members[name].busy:
            self.members[name].busy = False
            self.broken = True

    def fail(self, name: str, end: End, tail: List[str]) -> None:  # noqa: UP006  (Python 3.8)
        """A rank of a member has failed, and its other ones have ended; Horovod wants no more of such a host."""
        self.free(name)
        if not self.stops:
            del self.members[name]
        self.failures.append(Failure(end._replace(replica=name), tail))

    def finish(self, name: str, result: Optional[str]) -> None:  # noqa: UP045
        """All ranks of a member have ended well; rank 0's result is the job's."""
        self.members[name].busy = False
        self.finished.add(name)
        if name in self.present[:1]:
            self.result = result

    # ---- what follows

    @property
    def wanted(self) -> int:
        """Members that should be here; 0 where no further one is of use."""
        return 0 if self.finished or self.phase is Phase.OVER else self.limits.maximum

    @property
    def cause(self) -> Optional[Failure]:  # noqa: UP045
        """The failure that came first."""
        return min(self.failures, key=lambda failure: failure.end.precedence, default=None)

    def step(self, now: float) -> None:
        """Do what is due."""
        if self.phase in (Phase.RUNNING, Phase.BREAKING) and self.finished.issuperset(self.present):
            self._end("")
        if self.phase is Phase.RUNNING:
            self.grown = self._has_grown(now)
            if self.broken or self.grown:
                self.phase = Phase.BREAKING
                self._interrupt()
        if self.phase is Phase.BREAKING and not any(member.busy for member in self.members.values()):
            self._close()
        if self.phase is Phase.GATHERING:
            self._gather(now)

    def _has_grown(self, now: float) -> bool:
        """Whether others have joined, and nobody else is worth waiting for: each change costs all of them."""
        waiting = any(not member.round for member in self.members.values())
        if self.finished or not waiting or len(self.present) >= self.limits.maximum or self.joined_at is None:
            return False
        return len(self.members) >= self.limits.maximum or now - self.joined_at >= self.limits.last_call_timeout

    def _interrupt(self) -> None:
        if not self.stops:
            if not self.broken:  # else they notice it by themselves
                self.members[self.present[0]].tell(do="notice", round=self.round)
            return
        for member in self.members.values():
            if member.busy:
                member.tell(do="stop", gently=not self.broken)

    def _close(self) -> None:
        """The round is over, and did not end well."""
        if self.finished and not self.stops:
            self._end(f"{self._culprit()} after others had ended well")
            return
        if not self.lost and (self.failures or not self.grown):
            self.restarts += 1
        if self.restarts > self.limits.max_restarts:
            self._end(f"{self._culprit()}, and max_restarts={self.limits.max_restarts}")
            return
        self.phase = Phase.GATHERING
        self.finished = set()
        self.short_since = self.enough_since = None

    def _culprit(self) -> str:
        if self.cause:
            return f"rank {self.cause.end.rank} ({self.cause.end.replica}) failed"
        return f"{', '.join(sorted(self.lost))} was lost" if self.lost else "ranks gave up a round"

    def _gather(self, now: float) -> None:
        number, limits = len(self.members), self.limits
        if number < limits.minimum:
            self.enough_since = None
            self.short_since = now if self.short_since is None else self.short_since
            if now - self.short_since >= limits.join_timeout:
                missing = f"there are {number} of at least {limits.minimum} workers"
                self._end(f"{missing}, and no other has come within {limits.join_timeout:g} s")
            return
        self.short_since = None
        self.enough_since = now if self.enough_since is None else self.enough_since
        if number >= limits.maximum or now - self.enough_since >= limits.last_call_timeout:
            self._begin()

    def _begin(self) -> None:
        """Who stays comes first: with Horovod, rank 0's state becomes everyone's."""
        self.phase = Phase.RUNNING
        self.round += 1
        stayed = [name for name in self.present if name in self.members and self.members[name].round]
        newcomers = sorted(self.members.keys() - set(stayed), key=lambda name: (len(name), name))
        self.present = [*stayed, *newcomers][: self.limits.maximum]
        self.finished, self.lost, self.failures = set(), set(), []
        self.broken = self.grown = False
        self.joined_at = None
        self.orders = {}
        present = [self.members[name] for name in self.present]
        world, rank = sum(member.slots for member in present), 0
        for index, member in enumerate(present):
            self.orders[member.name] = {
                "round": self.round,
                "rank": rank,
                "world": world,
                "index": index,
                "members": len(present),
                "master": [present[0].address, present[0].port],
                "max_restarts": self.limits.max_restarts,
                "token": member.token,
            }
            rank += member.slots
        for member in present:
            member.busy, member.round = True, self.round
            member.tell(do="run", **self.orders[member.name])

    def _end(self, why: str) -> None:
        """For good; well, if there is no reason why not."""
        self.phase = Phase.OVER
        self.why = why
        for member in self.members.values():
            member.tell(do="end")
