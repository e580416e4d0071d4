"""What clusters cost."""

from __future__ import annotations

import pytest

from practicus_provider.errors import SpecError
from practicus_provider.pricing import Meter, Pricing, Tariff, cost, cost_line
from practicus_provider.spec import Resources
from practicus_provider.status import ReplicaStatus, State

PRICING = Pricing(currency="EUR", cpu_hour=0.04, memory_gib_hour=0.005, gpu_hour=2.5)


@pytest.mark.parametrize(
    ("resources", "price"),
    [
        (Resources("500m", "2Gi"), 0.03),
        (Resources(4, "16Gi", gpu=2), 5.24),
        (Resources(1, "1073741824", extra={"amd.com/gpu": 8}), 0.045),
    ],
)
def test_an_hour_of_a_replica_costs_what_its_requests_do(resources, price):
    assert PRICING.hourly(resources) == pytest.approx(price)


def test_what_has_no_price_costs_nothing():
    assert Pricing(currency="EUR").hourly(Resources(64, "1Ti", gpu=8)) == 0


@pytest.mark.parametrize("price", [-1, "0.04", True, None, float("inf"), float("nan")])
@pytest.mark.parametrize("field", ["cpu_hour", "memory_gib_hour", "gpu_hour"])
def test_what_is_no_price_is_refused_by_its_name(field, price):
    with pytest.raises(SpecError, match=f"^{field}={price!r}: give a price of at least 0, as a number$"):
        Pricing(currency="EUR", **{field: price})


@pytest.mark.parametrize("currency", ["", " ", None, 978])
def test_prices_without_a_currency_are_refused(currency):
    with pytest.raises(SpecError, match=f"^currency={currency!r}: give its name, such as 'USD'$"):
        Pricing(currency=currency)


def test_a_cluster_costs_the_sum_of_its_replicas_time():
    tariff = PRICING.tariff({"driver": Resources("500m", "2Gi"), "worker": Resources(2, "8Gi")})
    found = cost(tariff, {"driver": 3600.0, "worker": 4 * 1800.0})
    assert found == {"currency": "EUR", "total": 0.27, "seconds": {"driver": 3600.0, "worker": 7200.0}}
    assert cost_line(found) == "cost: 0.2700 EUR (driver 3600 s, worker 7200 s)"


def test_a_role_whose_resources_nobody_knows_costs_nothing():
    assert cost(Tariff("EUR", {}), {"driver": 60.0})["total"] == 0


def one(index: int, start: float | None, end: float | None = None) -> ReplicaStatus:
    return ReplicaStatus("worker", index, State.UNKNOWN, started_at=start, ended_at=end)


@pytest.mark.parametrize(
    ("looks", "seconds"),
    [
        ([], {}),
        ([(10, [one(0, None)])], {}),
        ([(10, [one(0, 5)])], {"worker": 95}),
        ([(10, [one(0, 5)]), (20, [one(0, 5, 15)])], {"worker": 10}),
        ([(10, [one(0, 5)]), (20, [])], {"worker": 15}),
        ([(10, [one(0, 5)]), (20, [one(0, 18)])], {"worker": 15 + 82}),
        ([(10, [one(0, 5), one(1, 8)]), (20, [one(1, 8)])], {"worker": 15 + 92}),
        ([(10, [one(0, 5)]), (20, []), (30, [one(0, 5)])], {"worker": 95}),
        ([(10, [one(0, 200)])], {"worker": 0}),
    ],
    ids=["none", "pending", "runs", "ended", "gone", "replaced", "one of two gone", "seen again", "clocks differ"],
)
def test_a_replica_runs_from_its_start_to_its_end_or_until_it_is_no_longer_there(looks, seconds):
    meter = Meter()
    for now, replicas in looks:
        meter.see(replicas, now)
    assert meter.seconds(100) == seconds
