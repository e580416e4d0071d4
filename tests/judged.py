"""Jobs by how they end: what a backend hears of their replicas, and what that comes to. The judge is held to all of
them, and each backend to those that it can be made to hear."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from practicus_provider.judge import APART, AT_ONCE, LEFT, NEARBY
from practicus_provider.plan import Here, Plan
from practicus_provider.spec import Elastic
from practicus_provider.status import Reason
from tests.plans import SLEEP, plan, role


@dataclass(frozen=True)
class Told:
    """One replica's end, as a backend hears of it.

    :param at: when it ended, seconds; it is heard of then if ``heard`` does not say.
    """

    replica: str
    code: int | None
    at: float = 0.0
    signal: str | None = None
    heard: float | None = None


@dataclass(frozen=True)
class Judged:
    """One job.

    :param ends: all that is heard of it.
    :param due: when that is its end, if nothing else is heard: of ends on one machine.
    :param cause: the replica whose end it is; None: there is none.
    :param reason: of its verdict; None: it goes on.
    :param happens: whether the plan's code makes this happen on a backend.
    """

    plan: Plan
    ends: tuple[Told, ...]
    due: float
    cause: str | None
    reason: Reason | None
    happens: bool = False


INDEXED = "import sys, time; index = int(sys.argv[1]); "
RANKS = plan(
    role("worker", INDEXED + "sys.exit(7) if index == 1 else time.sleep(600)", Here.INDEX, replicas=3), decides="worker"
)
WELL = plan(role("worker", INDEXED + "time.sleep(index / 5)", Here.INDEX, replicas=3), decides="worker")
CRASHES = "import time; time.sleep(0.5); raise SystemExit(3)"
SERVED = plan(role("worker", CRASHES), role("driver", SLEEP))
LEAVES = plan(role("worker", ""), role("driver", SLEEP))
FAILS_WITH_IT = plan(role("worker", "raise SystemExit(3)"), role("driver", "raise SystemExit(4)"))
SHARED = plan(role("coordinator", CRASHES), role("worker", SLEEP), decides=None)
ELASTIC = plan(role("worker", "raise SystemExit(3)", replicas=4, elastic=Elastic(1, 1)), role("driver", SLEEP))


def ends(*codes: int) -> tuple[Told, ...]:
    """Of workers, a second after each other."""
    return tuple(Told(f"worker-{index}", code, at=float(index)) for index, code in enumerate(codes))


def after(seconds: float, cause: str, reason: Reason, plan: Plan, *told: Told, happens: bool = False) -> Judged:
    return Judged(plan, told, seconds, cause, reason, happens)


def goes_on(plan: Plan, *told: Told) -> Judged:
    return Judged(plan, told, inf, None, None)


LOST, FAILS, GOOD = Reason.REPLICA_LOST, Reason.ERROR, Reason.COMPLETED
LATE_NEWS = (Told("worker-0", 1, at=2), Told("worker-1", 7, at=1, heard=2.5))
KILLED = (Told("worker-0", 1, at=1), Told("worker-1", None, 2, "SIGKILL"))
CRASH = Told("worker-0", 3, at=1)
TWO = plan(role("worker", "", replicas=2), role("driver", SLEEP))
JUDGED = {
    "nothing has ended": goes_on(SERVED),
    "all ranks end well": after(AT_ONCE, "worker-0", GOOD, WELL, *ends(0, 0, 0), happens=True),
    "a rank ends well before the others": goes_on(WELL, *ends(0)),
    "a rank fails, and the others would wait for it": after(
        1 + APART, "worker-1", FAILS, RANKS, Told("worker-1", 7, at=1), happens=True
    ),
    "a rank fails that is heard of after those that it made fail": after(
        2 + APART, "worker-1", FAILS, RANKS, *LATE_NEWS
    ),
    "all ranks have failed": after(AT_ONCE, "worker-0", FAILS, RANKS, *ends(1, 1, 1)),
    "a rank is killed, whatever the clocks say": after(1 + APART, "worker-1", Reason.KILLED, RANKS, *KILLED),
    "what serves crashes": after(1 + NEARBY, "worker-0", LOST, SERVED, CRASH, happens=True),
    "what serves leaves, as its application may have told it to": after(
        1 + LEFT, "worker-0", LOST, LEAVES, Told("worker-0", 0, at=1)
    ),
    "what serves leaves, and another crashes later": after(1 + NEARBY, "worker-1", LOST, TWO, *ends(0, 3)),
    "what serves crashes, and so what decides fails": after(
        AT_ONCE, "driver-0", FAILS, FAILS_WITH_IT, CRASH, Told("driver-0", 4, at=1.1)
    ),
    "what serves crashes, and what decides ends well": after(
        AT_ONCE, "driver-0", GOOD, FAILS_WITH_IT, CRASH, Told("driver-0", 0, at=1.1)
    ),
    "what serves crashes where nobody decides": after(
        *(1 + NEARBY, "coordinator-0", LOST, SHARED, Told("coordinator-0", 3, at=1), Told("worker-0", 1, at=1.1)),
        happens=True,
    ),
    "what serves leaves where nobody decides": after(
        1 + NEARBY, "coordinator-0", LOST, SHARED, Told("coordinator-0", 0, at=1)
    ),
    "an elastic role crashes as often as is tolerated": goes_on(ELASTIC, *ends(3, 3, 3)),
    "an elastic role crashes once too often": after(
        3 + NEARBY, "worker-3", LOST, ELASTIC, *ends(3, 3, 3, 3), happens=True
    ),
    "elastic replicas leave": goes_on(ELASTIC, *ends(*[0] * 9)),
}
