"""What earlier versions have stored in Airflow's database is read by this one: a task is deferred for hours.

``stored/`` holds what each version that changed it wrote, the newest last: a trigger, and the event that one gave.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.lifecycle import Outcome, Policy
from practicus_provider.pricing import Tariff
from practicus_provider.status import Reason, State, Verdict
from practicus_provider.triggers.job import PracticusJobTrigger

STORED = Path(__file__).parent / "stored"
VERDICT = Verdict(
    State.FAILED,
    Reason.ERROR,
    "driver-0 exited with code 1",
    advice="Look at the last lines.",
    replica="driver-0",
    exit_code=1,
    log_tail=("x", "y"),
)
POLICY = {"start_deadline": 1795903626.5, "streamed": ("driver-0", "worker"), "teardown": "on_success"}
BILLED = Policy(
    **POLICY,
    attempt=2,
    attempts=4,
    adapter="spark",
    launched_at=1795903600.25,
    tariff=Tariff("USD", {"driver": 0.04, "worker": 0.08}, {"driver": 12.5}),
)
POLICIES = {
    "plain": Policy(**POLICY),
    "namespace": Policy(**POLICY),
    "lease": Policy(1795903626.5, (), teardown=None, lease="keep"),
    "attempts": Policy(**POLICY, attempt=2, attempts=4),
    "tariff": BILLED,
    "suspect": BILLED,
    "argument": BILLED,
}
NEWEST = list(POLICIES)[-1]
ATTEMPT = {"plain": None, "namespace": None, "lease": None, "attempts": 3, "tariff": 3, "suspect": 3, "argument": 3}


def stored(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((STORED / f"{name}.json").read_text())
    return found


@pytest.mark.parametrize("name", POLICIES)
def test_a_trigger_that_an_earlier_version_stored_follows_the_same_cluster_in_the_same_way(name):
    told = stored(name)
    trigger = PracticusJobTrigger(**told["kwargs"])
    path, kwargs = trigger.serialize()
    assert path == told["classpath"]
    assert kwargs == {
        "practicus_conn_id": "practicus_default",
        "cluster": {"name": "c-sales-etl-0f3a", "uid": "a08a6c60eff44b9b"},
        "policy": told["kwargs"]["policy"],
        "ends_task": True,
        "push_result": False,
        "namespace": None if name == "plain" else "jobs",
    }
    assert Policy.from_json(trigger.policy) == POLICIES[name]


@pytest.mark.parametrize("name", POLICIES)
def test_an_event_that_an_earlier_version_stored_is_the_same_outcome(name):
    found = Outcome.from_json(stored(name)["event"])
    assert found == Outcome(VERDICT, next_attempt=ATTEMPT[name])
    assert (found.cost is None) is (name not in ("tariff", "suspect", "argument"))


def test_what_this_version_stores_is_among_them():
    """Else the next one would be tested with less: add a file, and leave those that are there as they are."""
    told = stored(NEWEST)
    trigger = PracticusJobTrigger(**told["kwargs"])
    trigger.policy = POLICIES[NEWEST].to_json()
    written = {"kwargs": trigger.serialize()[1], "event": Outcome.from_json(told["event"]).to_json()}
    assert json.loads(json.dumps(written)) == {name: told[name] for name in written}


def test_every_file_is_read():
    assert {path.stem for path in STORED.glob("*.json")} == POLICIES.keys()
