"""The copy of a namespace's objects that all watchers share, of a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from aiohttp import web

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.api import TRIES, Manifest, connected
from practicus_provider.backends.kubernetes.mirror import Mirror, mirror_of
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.render import render
from practicus_provider.errors import BackendError
from practicus_provider.runtime.practicus_runtime.contract import End, LastWords
from practicus_provider.status import State
from tests.kubernetes_server import (
    JOBS,
    POD,
    PODS,
    Server,
    event,
    kubernetes,
    lines,
    listing,
    refuses,
    says,
    streams,
)
from tests.plans import PATIENCE, TASK, plan, role


def pods(mirror: Mirror) -> list[Manifest]:
    """Those of the cluster that the mirror shows."""
    with mirror.changes("c") as changed:
        found = [mirror.pod("c", name) for name in changed.pods]
    return [pod for pod in found if pod is not None]


async def seen(server: Server, *versions: str) -> None:
    """Wait until the pod's versions have been seen one after another."""
    async with asyncio.timeout(PATIENCE), mirror_of(server.access, "jobs") as mirror:
        with mirror.changes("c") as changed:
            for version in versions:
                while [pod["metadata"]["resourceVersion"] for pod in pods(mirror)] != [version]:
                    await changed.wait()
                    changed.clear()
                    mirror.check()


async def test_the_mirror_keeps_of_an_object_what_is_read_of_it(server):
    containers = [{"name": "main", "image": "i", "resources": {"limits": {"cpu": "1"}}, "env": [{"name": "A"}]}]
    spec = {"nodeName": "n", "containers": containers, "volumes": [{"name": "v"}], "tolerations": []}
    pod = event("ADDED", spec=spec, status={"phase": "Running"})
    pod["object"]["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    server.answers = [kubernetes(listing(pod), streams(end="never"))]
    async with mirror_of(server.access, "jobs") as mirror:
        [kept] = pods(mirror)
    labels = pod["object"]["metadata"]["labels"]
    assert kept == {
        "metadata": {"name": "p", "labels": labels, "resourceVersion": "1"},
        "spec": {
            "nodeName": "n",
            "containers": [{"name": "main", "image": "i", "resources": {"limits": {"cpu": "1"}}}],
        },
        "status": {"phase": "Running"},
    }


@pytest.mark.parametrize("times", [1, 2])
async def test_who_is_cancelled_as_the_mirror_ends_is_cancelled(server, times):
    server.answers = [kubernetes(listing(), streams(end="never"))]
    leaving = asyncio.Event()

    async def use() -> None:
        async with mirror_of(server.access, "jobs"):
            leaving.set()

    using = asyncio.create_task(use())
    await leaving.wait()
    for _ in range(times):
        using.cancel()
        await asyncio.sleep(0)
    await asyncio.wait((using,))
    assert using.cancelled()


async def test_the_mirror_asks_for_a_long_list_in_parts(server):
    first, second = event("ADDED"), event("ADDED", version="2")
    second["object"]["metadata"]["name"] = "q"
    begun = {"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [first["object"]]}
    server.answers = [kubernetes(says(begun), listing(second, version="7"), streams(end="never"))]
    async with mirror_of(server.access, "jobs") as mirror:
        assert [pod["metadata"]["name"] for pod in pods(mirror)] == ["p", "q"]
    lists = [query for _, path, query, _ in server.asked if path == PODS and "watch" not in query]
    assert [query.get("continue") for query in lists] == [None, "more"]


@pytest.mark.parametrize(
    ("told", "code", "stays"),
    [(0, 0, True), (0, 1, False), (1, 1, False), (None, 0, False)],
    ids=["as it told", "otherwise than it told", "badly", "untold"],
)
async def test_the_mirror_still_shows_a_pod_that_is_gone_if_it_ended_well_as_it_had_told(server, told, code, stays):
    state = {"name": "main", "state": {"terminated": {"exitCode": code}}}
    spec, goes = {"containers": [{"name": "main"}]}, asyncio.Event()

    async def deleted(request: web.Request) -> web.StreamResponse:
        await goes.wait()
        gone = event("DELETED", version="2", spec=spec, status={"containerStatuses": [state]})
        return await streams(lines(gone), end="never")(request)

    server.answers = [kubernetes(listing(event("ADDED", spec=spec)), deleted)]
    async with asyncio.timeout(PATIENCE), mirror_of(server.access, "jobs") as mirror:
        with mirror.changes("c") as changed:
            if told is not None:
                mirror.tell("c", "p", LastWords(End(told)))
            changed.clear()
            goes.set()
            await changed.wait()
            shown = mirror.pod("c", "p")
            assert (shown and shown["metadata"]["resourceVersion"]) == ("2" if stays else None)
        assert mirror.pod("c", "p") is None


@pytest.mark.parametrize(("uid", "kept"), [("u", ("2026-01-01T00:00:10Z", 10)), ("v", ("2026-01-01T00:00:03Z", 0))])
async def test_the_mirror_keeps_when_a_pod_was_told_to_leave_until_there_is_another_of_its_name(server, uid, kept):
    told = event("ADDED")
    told["object"]["metadata"] |= {
        "uid": "u",
        "deletionTimestamp": "2026-01-01T00:00:10Z",
        "deletionGracePeriodSeconds": 10,
    }
    over = event("MODIFIED", version="2")
    over["object"]["metadata"] |= {
        "uid": uid,
        "deletionTimestamp": "2026-01-01T00:00:03Z",
        "deletionGracePeriodSeconds": 0,
    }
    goes = asyncio.Event()

    async def watch(request: web.Request) -> web.StreamResponse:
        await goes.wait()
        return await streams(lines(over), end="never")(request)

    server.answers = [kubernetes(listing(told), watch)]
    async with asyncio.timeout(PATIENCE), mirror_of(server.access, "jobs") as mirror:
        with mirror.changes("c") as changed:
            goes.set()
            await changed.wait()
            [pod] = pods(mirror)
    meta = pod["metadata"]
    assert (meta["resourceVersion"], meta["deletionTimestamp"], meta["deletionGracePeriodSeconds"]) == ("2", *kept)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("practicus_provider.backends.kubernetes.mirror.BACKOFF", 0.01)


@pytest.mark.parametrize(
    "gone",
    [
        refuses(410, "too old resource version", "Expired"),
        streams(lines({"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}})),
    ],
    ids=["at once", "amid the watch"],
)
async def test_the_mirror_lists_again_where_the_server_has_forgotten(server, quick, gone):
    first, second = event("ADDED", "1"), event("ADDED", "5")
    server.answers = [kubernetes(listing(first), gone, listing(second, version="5"))]
    await seen(server, "5")


async def test_a_list_that_is_made_anew_wakes_those_alone_whose_cluster_has_changed(server, quick):
    def pod(name: str, cluster: str, version: str) -> Manifest:
        found = event("ADDED", version)
        labels = {**found["object"]["metadata"]["labels"], "practicus.ai/cluster": cluster}
        found["object"]["metadata"] |= {"name": name, "labels": labels}
        return found

    first = listing(pod("p", "same", "1"), pod("q", "changed", "1"), pod("r", "gone", "1"))
    forgotten = asyncio.Event()

    async def forgets(request: web.Request) -> web.StreamResponse:
        await forgotten.wait()
        return await refuses(410, "too old resource version", "Expired")(request)

    second = listing(pod("p", "same", "1"), pod("q", "changed", "2"), pod("s", "new", "2"), version="2")
    server.answers = [kubernetes(first, forgets, second, streams(end="never"))]
    clusters = ("same", "changed", "gone", "new")
    async with asyncio.timeout(PATIENCE), mirror_of(server.access, "jobs") as mirror:
        with contextlib.ExitStack() as stack:
            woken = {name: stack.enter_context(mirror.changes(name)) for name in clusters}
            forgotten.set()
            for name in ("changed", "gone", "new"):
                await woken[name].wait()
            assert not woken["same"].is_set()


async def test_who_begins_to_follow_a_cluster_without_a_lease_asks_for_nothing_of_its_own(server):
    root = render("job", plan(role("driver", "pass")), Site("jobs", "i"), TASK, lease=None, parent=None).root
    root["metadata"] |= {"uid": "u", "resourceVersion": "1"}

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await streams(end="never")(request)
        return await listing(*([{"object": root}] if request.path == JOBS else []))(request)

    server.answers = [answer]
    backend = KubernetesBackend(server.access, Site("jobs", "i"))
    async with backend.session(), contextlib.aclosing(backend.watch(Handle("job", "u"), lease=None)) as statuses:
        assert (await anext(statuses)).state is State.PENDING
    asked = {(method, path.rpartition("/")[2]) for method, path, _, _ in server.asked}
    assert asked == {("GET", "jobs"), ("GET", "pods"), ("GET", "events")}


async def test_the_mirror_goes_on_at_the_version_that_it_saw_last(server, quick):
    watched = [streams(lines(event("MODIFIED", "2"), event("BOOKMARK", "3")))]
    watched.append(streams(lines(event("MODIFIED", "4")), end="never"))
    server.answers = [kubernetes(listing(event("ADDED")), *watched)]
    await seen(server, "4")
    watches = [query for _, path, query, _ in server.asked if path == PODS and "watch" in query]
    assert [query["resourceVersion"] for query in watches] == ["1", "3"]


async def test_the_mirror_goes_on_after_a_watch_that_was_cut(server, quick):
    watched = [streams(lines(event("MODIFIED", "2")), end="cut"), streams(lines(event("MODIFIED", "3")), end="never")]
    server.answers = [kubernetes(listing(event("ADDED")), *watched)]
    async with asyncio.timeout(2):
        await seen(server, "3")


async def test_the_mirror_says_that_the_server_has_been_away_for_too_long(server, quick, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.mirror.PATIENCE", 0.2)

    async def handle(request: web.Request) -> web.StreamResponse:
        return await (refuses(503, "busy") if "watch" in request.query else listing(event("ADDED")))(request)

    server.answers = [handle]
    with pytest.raises(BackendError, match=r"^Kubernetes refused \(503 to GET\): busy$"):
        await seen(server, "2")


async def test_what_keeps_one_kind_from_being_seen_is_not_forgotten_as_another_is_seen(server, quick, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.mirror.PATIENCE", 0.2)
    opened = asyncio.Event()

    async def handle(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return await listing()(request)
        if request.path == PODS:
            return await refuses(503, "busy")(request)
        if request.path == JOBS:
            opened.set()
        return await streams()(request)

    server.answers = [handle]
    async with asyncio.timeout(PATIENCE), mirror_of(server.access, "jobs") as mirror:
        with mirror.changes("c") as failed:
            await failed.wait()
        for _ in range(3):  # by the last of them the watch of the first is open on our side too
            opened.clear()
            await opened.wait()
        with pytest.raises(BackendError, match="busy"):
            mirror.check()


async def test_a_watch_that_lasted_for_longer_than_the_patience_may_be_cut_too(server, quick, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.mirror.PATIENCE", 0.5)

    async def lasts(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.sleep(0.6)
        return response

    away = [refuses(503, "busy")] * 2
    back = streams(lines(event("MODIFIED", "2")), end="never")
    server.answers = [kubernetes(listing(event("ADDED")), lasts, *away, back)]
    await seen(server, "2")


async def test_a_watch_that_says_nothing_for_long_is_taken_for_cut(server, quick, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.mirror.WATCH_SILENCE", 0.1)
    back = streams(lines(event("MODIFIED", "2")), end="never")
    server.answers = [kubernetes(listing(event("ADDED")), streams(lines(event("BOOKMARK", "1")), end="never"), back)]
    async with asyncio.timeout(2):
        await seen(server, "2")


async def test_who_follows_a_cluster_asks_again_for_longer(server, quick, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.api.BACKOFF", 0.01)
    server.answers = [refuses(503, "busy")] * (TRIES + 1) + [says(POD)]
    async with connected(server.access, "jobs", patience=PATIENCE) as api:
        assert await api.get("Pod", "p") == POD


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (says({"items": [{"status": {"allocatable": {"cpu": "8"}}}]}), {"cpu": "8"}),
        (refuses(403, 'nodes is forbidden: User "u" cannot list resource "nodes"', "Forbidden"), {}),
    ],
    ids=["who may see them", "who may not"],
)
async def test_how_large_nodes_are_is_asked_once(server, answer, known):
    server.answers = [answer]
    mirror = Mirror(server.access, "jobs")
    assert mirror.largest is None
    async with connected(server.access, "jobs") as mirror.api:
        await mirror.look_at_nodes()
    assert mirror.largest == known
    assert server.asked == [("GET", "/api/v1/nodes", {"limit": "500"}, None)]


async def test_the_mirror_says_at_once_that_it_may_not_look(server):
    message = 'pods is forbidden: User "u" cannot list resource "pods" in API group "" in the namespace "jobs"'
    server.answers = [refuses(403, message, "Forbidden")]
    with pytest.raises(BackendError, match=f"^Kubernetes forbids it .403: {message}.; "):
        await seen(server, "1")
