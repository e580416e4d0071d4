"""What clusters cost: what an hour of their replicas costs, times how long these ran. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import inf
from typing import Any

from practicus_provider.errors import SpecError
from practicus_provider.spec import Resources, parse_quantity
from practicus_provider.status import ReplicaStatus

COST_KEY = "cost"
"""Of a task's XCom that says what its cluster has cost."""
HOUR = 3600
GIB = 1 << 30


@dataclass(frozen=True)
class Tariff:
    """What an hour of a replica costs, by role. JSON-able, so that it travels in a trigger.

    :param hourly: role -> in ``currency``.
    :param before: role -> replica-seconds that an earlier attempt of the same task has run.
    """

    currency: str
    hourly: Mapping[str, float]
    before: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; ``Tariff(**mapping)`` reads it back."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Pricing:
    """What an hour of each resource costs. What is not named costs nothing: devices in ``extra``, disks, the network.

    :param currency: as it is to be shown, such as ``"USD"``.
    :param cpu_hour: of one core.
    :param memory_gib_hour: of one GiB (2**30 bytes).
    :param gpu_hour: of one of ``Resources.gpu``.
    :raises SpecError: naming the field, for what is no price.
    """

    currency: str
    cpu_hour: float = 0.0
    memory_gib_hour: float = 0.0
    gpu_hour: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.currency, str) or not self.currency.strip():
            raise SpecError("currency", self.currency, "give its name, such as 'USD'")
        for name in ("cpu_hour", "memory_gib_hour", "gpu_hour"):
            price = getattr(self, name)
            if isinstance(price, bool) or not isinstance(price, (int, float)) or not 0 <= price < inf:
                raise SpecError(name, price, "give a price of at least 0, as a number")

    def hourly(self, resources: Resources) -> float:
        """What a replica of these resources costs in an hour: they are set aside for it, used or not."""
        return (
            float(parse_quantity("cpu", resources.cpu)) * self.cpu_hour
            + resources.memory_bytes / GIB * self.memory_gib_hour
            + resources.gpu * self.gpu_hour
        )

    def tariff(self, resources: Mapping[str, Resources], before: Mapping[str, float] | None = None) -> Tariff:
        """Of a cluster.

        :param resources: role -> of one replica, as :attr:`~practicus_provider.backends.base.Listing.resources` has it.
        """
        return Tariff(self.currency, {role: self.hourly(of_one) for role, of_one in resources.items()}, before or {})


def cost(tariff: Tariff, seconds: Mapping[str, float]) -> dict[str, Any]:
    """What a cluster has cost, as JSON: ``{"currency": "USD", "total": 0.0125, "seconds": {"worker": 240.0}}``.

    :param seconds: role -> replica-seconds that it ran, as :meth:`Meter.seconds` gives them.
    """
    ran = {role: tariff.before.get(role, 0.0) + seconds.get(role, 0.0) for role in {**tariff.before, **seconds}}
    total = sum(tariff.hourly.get(role, 0.0) * of_role / HOUR for role, of_role in ran.items())
    return {
        "currency": tariff.currency,
        "total": round(total, 6),
        "seconds": {role: round(of_role, 3) for role, of_role in ran.items()},
    }


def cost_line(cost: Mapping[str, Any]) -> str:
    """The line of a task's log."""
    ran = ", ".join(f"{role} {of_role:.0f} s" for role, of_role in cost["seconds"].items())
    return f"cost: {cost['total']:.4f} {cost['currency']} ({ran})"


_Run = tuple[str, int, float | None]


def _run_of(replica: ReplicaStatus) -> _Run:
    return replica.role, replica.index, replica.started_at


class Meter:
    """How long replicas have run, of one look at them after the other.

    A replica runs from its start to its end; where it is gone, to the look that no longer found it.
    """

    def __init__(self) -> None:
        self._seen: dict[_Run, ReplicaStatus] = {}
        self._last: dict[int, ReplicaStatus] = {}

    def see(self, replicas: Iterable[ReplicaStatus], now: float) -> None:
        """Take note of all that there are at that time, in seconds since the epoch. Those that are the very values of
        the look before cost next to nothing."""
        before, self._last = self._last, {id(one): one for one in replicas}
        new = (self._last[each] for each in self._last.keys() - before.keys())
        here = {_run_of(one): one for one in new if one.started_at is not None}
        for run in {_run_of(before[each]) for each in before.keys() - self._last.keys()} - here.keys():
            if run in self._seen and self._seen[run].ended_at is None:
                self._seen[run] = replace(self._seen[run], ended_at=now)
        self._seen |= here

    def seconds(self, now: float) -> dict[str, float]:
        """Role -> replica-seconds until that time."""
        found: dict[str, float] = {}
        for (role, _, started_at), replica in self._seen.items():
            ran = (now if replica.ended_at is None else replica.ended_at) - (started_at or now)
            found[role] = found.get(role, 0.0) + max(0.0, ran)
        return found
