"""A cluster that is watched to its end, on a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Any

import pytest
from aiohttp import web

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import following
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.mirror import mirror_of
from practicus_provider.backends.kubernetes.observe import Observation, observed
from practicus_provider.backends.kubernetes.watching import observations
from practicus_provider.status import State
from tests.kubernetes_objects import NAME, RANKS, SERVED, ended, job, pod, runs
from tests.kubernetes_server import JOBS, PODS, Handler, Server, lines, listing, streams
from tests.plans import PATIENCE


def cluster(
    root: Manifest, *pods: Manifest, later: Sequence[Manifest] = (), when: asyncio.Event | None = None
) -> Handler:
    """Answers of a server that has these, and whose pods become the later ones, one event each, when it is time."""
    for version, item in enumerate((root, *pods, *later)):
        item["metadata"]["resourceVersion"] = str(version)
    there = {JOBS: [{"object": root}], PODS: [{"object": one} for one in pods]}

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return await listing(*there.get(request.path, []))(request)
        if request.path == PODS and when is not None:
            await when.wait()
            return await streams(lines(*({"type": "MODIFIED", "object": one} for one in later)), end="never")(request)
        return await streams(end="never")(request)

    return answer


async def test_an_end_that_falls_due_while_its_watcher_is_busy_needs_no_further_change(server: Server, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.observe.APART", 0.5)
    server.answers = [cluster(job(SERVED), pod("worker", 0, ended(1), uid="p"))]
    async with (
        asyncio.timeout(PATIENCE),
        mirror_of(server.access, "jobs") as mirror,
        contextlib.aclosing(observations(mirror, Handle(NAME, "u"))) as looks,
    ):
        first = await anext(looks)
        time.sleep(max(0.0, first.due - time.monotonic()))  # noqa: ASYNC251 - as a busy loop does
        last = await anext(looks)
    assert (first.status.verdict, last.status.state) == (None, State.FAILED)
    assert last.status.verdict == first.ending


def ranks(*states: Manifest) -> list[Manifest]:
    """The pods of three ranks."""
    return [pod("driver", index, state, uid=f"p{index}") for index, state in enumerate(states)]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any cluster is large, and a look that nobody hurries never comes."""
    monkeypatch.setattr(following, "LARGE", 0)
    monkeypatch.setattr(following, "APART", PATIENCE * 10)


@pytest.mark.parametrize(
    ("codes", "seen"),
    [((0, 0, 0), [State.SUCCEEDED]), ((1,), [State.RUNNING]), ((0, 1), [State.RUNNING])],
    ids=["the last end", "the first failure", "a failure after an end"],
)
async def test_of_a_large_cluster_what_may_end_the_job_is_seen_at_once_with_all_before_it(server, large, codes, seen):
    when = asyncio.Event()
    later = ranks(*map(ended, codes))
    server.answers = [cluster(job(RANKS), *ranks(*[runs()] * 3), later=later, when=when)]
    async with (
        asyncio.timeout(PATIENCE),
        mirror_of(server.access, "jobs") as mirror,
        contextlib.aclosing(observations(mirror, Handle(NAME, "u"))) as looks,
    ):
        assert (await anext(looks)).status.state is State.RUNNING
        when.set()
        last = await anext(looks)
    assert [last.status.state] == seen
    ends = [replica.exit_code for replica in last.status.replicas[: len(codes)]]
    assert (ends, last.ending is not None) == (list(codes), seen == [State.RUNNING])


async def test_all_who_follow_one_cluster_look_at_it_once(server, monkeypatch):
    looked = []

    def counted(*arguments: Any) -> Observation:
        looked.append(arguments)
        return observed(*arguments)

    monkeypatch.setattr(following, "observed", counted)
    server.answers = [cluster(job(RANKS), *ranks(*[runs()] * 3))]
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(PATIENCE))
        mirror = await stack.enter_async_context(mirror_of(server.access, "jobs"))
        both = [
            await stack.enter_async_context(contextlib.aclosing(observations(mirror, Handle(NAME, "u"))))
            for _ in range(2)
        ]
        first, second = [await anext(looks) for looks in both]
    assert first is second
    assert len(looked) == 1


async def test_a_pod_that_nobody_can_read_is_an_error_of_who_follows_its_cluster_alone(server):
    [broken, *others] = ranks(*[runs()] * 3)
    broken["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": "nonsense"}}
    server.answers = [cluster(job(RANKS), broken, *others)]
    async with asyncio.timeout(PATIENCE), mirror_of(server.access, "jobs") as mirror:
        for _ in range(2):
            with pytest.raises(ValueError, match="nonsense"):
                await anext(observations(mirror, Handle(NAME, "u")))
        mirror.check()
