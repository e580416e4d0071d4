"""What the page *Clusters* gets to show, and what that costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

from practicus_provider.backends.base import Handle, Listing, LogLine, Usage
from practicus_provider.backends.kubernetes.metrics import usage_of
from practicus_provider.errors import BackendError, NotFound
from practicus_provider.links import UI_PREFIX, UI_ROUTE, cluster_path
from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.operators.spark import PracticusSparkOperator
from practicus_provider.plan import Port
from practicus_provider.plugins import PracticusPlugin, board
from practicus_provider.plugins.board import Board, Look, Place
from practicus_provider.plugins.clusters import FOLLOWED, _followed, _lines
from practicus_provider.plugins.places import connection_ids
from practicus_provider.plugins.rows import page_of, rows_of
from practicus_provider.plugins.stream import events
from practicus_provider.pricing import Pricing
from practicus_provider.spec import Resources
from practicus_provider.status import Reason, ReplicaStatus, State, Status, Verdict
from tests.plans import PATIENCE

TASK = {"dag_id": "sales", "run_id": "r 1", "task_id": "etl", "map_index": 2, "try_number": 1, "first_try": 1}
RUNNING = Status(
    State.RUNNING,
    (
        ReplicaStatus("driver", 0, State.RUNNING, started_at=5.0),
        ReplicaStatus("worker", 0, State.RUNNING, started_at=6.0),
        ReplicaStatus("worker", 1, State.PENDING, detail="Unschedulable"),
    ),
)
LISTING = Listing(Handle("c-1", "u-1"), RUNNING, TASK, 4.0, links={"Spark UI": Port("driver", "ui")}, adapter="spark")
LISTING = replace(LISTING, coordinator="driver")
USED = {"driver-0": Usage(0.25, 2**20), "worker-0": Usage(1.5, 2**30)}


# ---- rows

ROW = {
    **{"cluster": "c-1", "uid": "u-1", "connection": "default", "namespace": None},
    **{"dag_id": "sales", "run_id": "r 1", "task_id": "etl", "map_index": 2, "try_number": 1},
    **{"adapter": "spark", "state": "running", "released": False, "leaving": False, "created_at": 4.0},
    "replicas": {"driver": ["running"], "worker": ["running", "pending"]},
    **{"cpu": 1.75, "memory": 2**20 + 2**30, "cost": None, "verdict": None},
}


def test_a_row_says_whose_a_cluster_is_and_how_it_is():
    assert rows_of({Place("default"): Look(9.0, [LISTING], {"c-1": USED})}) == [ROW]


def test_a_cluster_to_which_several_connections_lead_is_shown_once():
    look = Look(9.0, [LISTING], {"c-1": USED})
    assert rows_of({Place("default"): look, Place("same"): look}) == [ROW]


def test_a_cluster_that_was_deleted_is_shown_as_leaving_until_it_is_gone():
    [row] = rows_of({Place("default"): Look(9.0, [replace(LISTING, leaving=True)], {"c-1": USED})})
    assert row == {**ROW, "leaving": True}


def test_what_nobody_measures_is_none():
    [row] = rows_of({Place("default"): Look(9.0, [LISTING])})
    assert row == {**ROW, "cpu": None, "memory": None}


def test_a_cluster_has_a_cost_where_its_connection_has_prices():
    priced = replace(LISTING, resources={"driver": Resources(cpu=2), "worker": Resources(cpu=4)})
    [row] = rows_of({Place("default"): Look(3606.0, [priced], pricing=Pricing(currency="EUR", cpu_hour=0.5))})
    assert row["cost"] == {"currency": "EUR", "total": 3.000278, "seconds": {"driver": 3601.0, "worker": 3600.0}}


def test_the_newest_cluster_comes_first_and_one_that_ended_has_its_verdict():
    verdict = Verdict(State.FAILED, Reason.OOM_KILLED, "worker-1 ran out of memory", "Give it more.", "worker-1")
    ended = Listing(Handle("c-2", "u-2"), Status(State.FAILED, verdict=verdict), TASK, 8.0, released=True)
    newer, older = rows_of({Place("default"): Look(9.0, [LISTING]), Place("other"): Look(9.0, [ended])})
    assert (newer["cluster"], newer["state"], newer["released"], newer["replicas"]) == ("c-2", "failed", True, {})
    assert newer["verdict"] == {
        **{"reason": "OOMKilled", "message": "worker-1 ran out of memory", "advice": "Give it more."}
    }
    assert older["cluster"] == "c-1"


def test_a_clusters_own_page_has_each_replica_and_where_its_web_pages_are():
    page = page_of(Place("default", "jobs"), LISTING, Look(9.0, [LISTING], {"c-1": {"driver-0": USED["driver-0"]}}))
    common = {"detail": "", "exit_code": None, "signal": None, "cpu": None, "memory": None, "state": "running"}
    driver = {**common, "name": "driver-0", "role": "driver", "index": 0, "started_at": 5.0, "cpu": 0.25}
    assert page == {
        **ROW,
        **{"namespace": "jobs", "cpu": 0.25, "memory": 2**20, "coordinator": "driver"},
        "replicas": [
            {**driver, "memory": 2**20},
            {**common, "name": "worker-0", "role": "worker", "index": 0, "started_at": 6.0},
            {**common, "name": "worker-1", "role": "worker", "index": 1, "started_at": None}
            | {"state": "pending", "detail": "Unschedulable"},
        ],
        "links": {"Spark UI": "/practicus/clusters/sales/default/c-1?namespace=jobs&label=Spark+UI"},
    }


def test_the_metrics_apis_numbers_are_those_of_whole_replicas():
    def item(name: str, labels: dict[str, str], *usage: dict[str, str]) -> dict[str, Any]:
        return {"metadata": {"name": name, "labels": labels}, "containers": [{"name": "x", "usage": u} for u in usage]}

    def labels(role: str, index: int) -> dict[str, str]:
        job = {"batch.kubernetes.io/job-completion-index": str(index)}
        return {"practicus.ai/cluster": "c-1", "practicus.ai/role": role, **job}

    items = [
        item("c-1-driver-0-x", labels("driver", 0), {"cpu": "156340216n", "memory": "10Mi"}),
        item("c-1-worker-3-y", labels("worker", 3), {"cpu": "2", "memory": "1Gi"}, {"cpu": "5u", "memory": "4096"}),
        item("c-1-worker-4-z", labels("worker", 4), {"cpu": "0"}),
    ]
    assert usage_of(items) == {
        "c-1": {
            "driver-0": Usage(0.156340216, 10 * 2**20),
            "worker-3": Usage(2.000005, 2**30 + 4096),
            "worker-4": Usage(0, 0),
        }
    }


# ---- looks


class Counted:
    """A backend that counts how often it is asked, and does not answer before it may."""

    pricing = None

    def __init__(self, error: Exception | None = None, usage: Any = None) -> None:
        self.error, self.measured = error, usage
        self.lists = self.usages = 0
        self.may_answer = asyncio.Event()

    async def list(self) -> list[Listing]:
        self.lists += 1
        await self.may_answer.wait()
        if self.error:
            raise self.error
        return [LISTING]

    async def usage(self) -> Any:
        self.usages += 1
        return self.measured


def of(backend: Any) -> Callable[[Place], Awaitable[Any]]:
    async def backend_of(place: Place) -> Any:
        return backend

    return backend_of


async def test_many_who_look_at_once_are_one_request_and_who_comes_soon_after_makes_none():
    backend = Counted()
    shared = Board(of(backend))
    looking = [asyncio.create_task(shared.look(Place("a"))) for _ in range(50)]
    await asyncio.sleep(0)
    looking[0].cancel()
    backend.may_answer.set()
    looks = await asyncio.gather(*looking[1:])
    assert all(look.listings == [LISTING] for look in looks)
    await shared.look(Place("a"))
    assert backend.lists == 1
    await shared.look(Place("a", "other"))
    assert backend.lists == 2


async def test_a_look_is_made_anew_once_it_is_old_or_forgotten(monkeypatch):
    backend = Counted()
    backend.may_answer.set()
    shared = Board(of(backend))
    await shared.look(Place("a"))
    shared.forget(Place("a"))
    await shared.look(Place("a"))
    assert backend.lists == 2
    monkeypatch.setattr(board, "FRESH", -1.0)
    await shared.look(Place("a"))
    assert backend.lists == 3


async def test_a_backend_that_measures_nothing_is_not_asked_each_time(monkeypatch):
    monkeypatch.setattr(board, "FRESH", -1.0)
    backend = Counted()
    backend.may_answer.set()
    shared = Board(of(backend))
    assert [(await shared.look(Place("a"))).usage for _ in range(3)] == [None] * 3
    assert (backend.lists, backend.usages) == (3, 1)
    backend.measured = {"c-1": USED}
    assert (await shared.look(Place("b"))).usage == {"c-1": USED}


@pytest.mark.parametrize(
    ("error", "why"),
    [(BackendError("it is out of reach"), "it is out of reach"), (TimeoutError(), "no answer within 15 s")],
)
async def test_a_backend_that_cannot_be_seen_is_a_look_that_says_why(error, why):
    backend = Counted(error)
    backend.may_answer.set()
    look = await Board(of(backend)).look(Place("a"))
    assert (look.listings, look.error) == ((), why)


async def test_a_place_that_does_not_answer_is_waited_for_once_and_not_by_who_looks_later(monkeypatch):
    waited = []

    async def wait(tasks: Any, timeout: float) -> None:  # noqa: ASYNC109
        waited.append(timeout > 0)
        await asyncio.sleep(timeout)

    monkeypatch.setattr(board, "SOON", 0.05)
    monkeypatch.setattr(board.asyncio, "wait", wait)
    shared = Board(of(Counted()))
    assert [await shared.glance(Place("a")) for _ in range(3)] == [Look(0, error="it has not answered yet")] * 3
    assert waited == [True, False, False]


async def test_of_a_place_that_is_dead_what_was_seen_last_is_shown_with_its_age_and_nobody_waits(monkeypatch):
    monkeypatch.setattr(board, "FRESH", -1.0)
    monkeypatch.setattr(board, "SOON", 600.0)
    backend = Counted()
    backend.may_answer.set()
    shared = Board(of(backend))
    good = await shared.glance(Place("a"))
    backend.error = BackendError("it is out of reach")
    said = "it is out of reach; what is shown of it was seen 0 s ago"
    seen = await shared.glance(Place("a"))
    assert (seen.listings, seen.at, seen.error) == ([LISTING], good.at, said)
    backend.may_answer.clear()  # who asks next would wait
    async with asyncio.timeout(PATIENCE):
        assert (await shared.glance(Place("a"))).error == said
    assert (await asyncio.gather(shared.glance(Place("a")), shared.glance(Place("a"))))[1].listings == [LISTING]
    backend.error = None
    backend.may_answer.set()
    assert (await shared.look(Place("a"))).error == ""


async def test_what_was_seen_of_a_place_is_forgotten_in_the_end(monkeypatch):
    monkeypatch.setattr(board, "FRESH", -1.0)
    monkeypatch.setattr(board, "REMEMBERED", -1.0)
    backend = Counted()
    backend.may_answer.set()
    shared = Board(of(backend))
    await shared.glance(Place("a"))
    backend.error = BackendError("it is out of reach")
    seen = await shared.glance(Place("a"))
    assert (seen.listings, seen.error) == ((), "it is out of reach")


# ---- logs


async def told(lines: AsyncGenerator[LogLine, None], had: int = 0) -> list[str]:
    return [event async for event in events(lines, had)][1:]


async def test_a_log_is_events_with_numbers_and_who_was_cut_off_gets_the_rest():
    async def lines() -> AsyncGenerator[LogLine, None]:
        for text in ("one", "two\r\x0b\u2028 data: no", "<b>"):
            yield LogLine("worker", 0, text)

    every = [f"id: {n}\ndata: {json.dumps(text)}\n\n" for n, text in ((2, "two\r\x0b\u2028 data: no"), (3, "<b>"))]
    assert await told(lines()) == ['id: 1\ndata: "one"\n\n', *every, 'event: end\ndata: ""\n\n']
    assert await told(lines(), 1) == [*every, 'event: end\ndata: ""\n\n']
    assert all(len(event.splitlines()) == 3 for event in every)


async def test_a_log_that_breaks_off_says_why():
    async def lines() -> AsyncGenerator[LogLine, None]:
        yield LogLine("worker", 0, "one")
        raise NotFound("there is no cluster c-1")

    assert (await told(lines()))[-1] == 'event: end\ndata: "there is no cluster c-1"\n\n'


async def test_who_follows_very_many_logs_is_told_to_close_some_and_others_follow_theirs():
    async def lines() -> AsyncGenerator[LogLine, None]:
        yield LogLine("worker", 0, "one")
        yield LogLine("worker", 0, "two")

    def followed(name: str) -> AsyncGenerator[LogLine, None]:
        return _lines(SimpleAuthManagerUser(username=name, role="viewer"), "default", lines())

    many = [followed("ann") for _ in range(FOLLOWED)]
    for one in many:
        await anext(one)
    assert (await told(followed("ann")))[-1] == (
        'event: end\ndata: "24 logs are followed by you already: close some of their pages"\n\n'
    )
    assert len(await told(followed("bob"))) == 3
    await many[0].aclose()
    assert len(await told(followed("ann"))) == 3
    for one in many[1:]:
        await one.aclose()
    assert not _followed


# ---- where it is found


@pytest.mark.parametrize(("base_url", "base"), [("", ""), ("https://example.com/team/airflow/", "/team/airflow")])
def test_a_cluster_is_shown_inside_of_airflows_own_page(monkeypatch, base_url, base):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    shown = f"{base}/plugin/{UI_ROUTE}{base}{UI_PREFIX}/page"
    query = "dag_id=d%26x&connection=c&cluster=n"
    assert cluster_path("d&x", "c", "n", namespace=None) == f"{shown}?{query}"
    assert cluster_path("d&x", "c", "n", namespace="jobs", logs=True) == f"{shown}?{query}&namespace=jobs&logs=1"


def test_the_plugin_shows_the_page_in_airflows_menu_and_serves_it_before_what_has_a_shorter_prefix():
    [view] = PracticusPlugin.external_views
    assert (view["name"], view["href"], view["url_route"]) == ("Clusters", f"{UI_PREFIX}/page", UI_ROUTE)
    assert [app["url_prefix"] for app in PracticusPlugin.fastapi_apps] == [UI_PREFIX, "/practicus"]


def test_no_text_becomes_markup():
    scripts = "".join(path.read_text() for path in Path(board.__file__).with_name("static").glob("*.js"))
    assert "textContent" in scripts
    assert not [word for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write") if word in scripts]


def test_connections_of_ours_are_found_in_the_environment_whatever_else_is_there(monkeypatch):
    monkeypatch.setattr("practicus_provider.plugins.places.create_session", NoConnections)
    monkeypatch.setenv("AIRFLOW_CONN_PODS", json.dumps({"conn_type": "practicus", "extra": {"namespace": "n"}}))
    monkeypatch.setenv("AIRFLOW_CONN_HERE", "practicus://?backend=local")
    monkeypatch.setenv("AIRFLOW_CONN_STORE", "postgres://user@host/base")
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", "{")
    assert connection_ids() == ["here", "pods"]


class NoConnections:
    """A database in which there is none."""

    def __enter__(self) -> NoConnections:
        return self

    def __exit__(self, *error: object) -> None: ...

    def scalars(self, statement: object) -> list[str]:
        return []


# ---- buttons of a task


@pytest.mark.parametrize(
    ("conf", "history", "button"),
    [
        ({"spark.eventLog.enabled": "true"}, "https://history", "https://history"),
        ({"spark.eventLog.enabled": True}, "https://history", "https://history"),
        ({"spark.eventLog.enabled": "false"}, "https://history", None),
        ({}, "https://history", None),
        ({"spark.eventLog.enabled": "true"}, "", None),
    ],
)
def test_sparks_history_has_a_button_where_there_is_an_event_log_and_a_server(monkeypatch, conf, history, button):
    extra = {"backend": "local", "spark_history": history}
    monkeypatch.setenv("AIRFLOW_CONN_PRACTICUS_DEFAULT", json.dumps({"conn_type": "practicus", "extra": extra}))
    links = PracticusSparkOperator(task_id="t", application="local:///job.py", conf=conf).links(LISTING, "sales")
    assert links.pop("spark_history", None) == button
    assert links == {
        "cluster_page": cluster_path("sales", "practicus_default", "c-1", namespace=None),
        "cluster_logs": cluster_path("sales", "practicus_default", "c-1", namespace=None, logs=True),
        "dashboard": "/practicus/clusters/sales/practicus_default/c-1",
    }


def test_a_task_whose_cluster_serves_no_page_has_no_button_to_one():
    bare = Listing(LISTING.handle, RUNNING, TASK, 4.0)
    operator = PracticusDaskOperator(task_id="t", application="local:///job.py", namespace="jobs")
    assert operator.links(bare, "sales").keys() == {"cluster_page", "cluster_logs"}
    assert "&namespace=jobs" in operator.links(bare, "sales")["cluster_logs"]
