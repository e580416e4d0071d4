"""A cluster that is watched to its end, on a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import time

from aiohttp import web

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes.mirror import mirror_of
from practicus_provider.backends.kubernetes.watching import observations
from practicus_provider.status import State
from tests.kubernetes_objects import NAME, SERVED, ended, job, pod
from tests.kubernetes_server import JOBS, PODS, Server, listing, streams
from tests.plans import PATIENCE


async def test_an_end_that_falls_due_while_its_watcher_is_busy_needs_no_further_change(server: Server, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.observe.APART", 0.5)
    root, lost = job(SERVED), pod("worker", 0, ended(1), uid="p")
    for item in (root, lost):
        item["metadata"]["resourceVersion"] = "1"
    there = {JOBS: [{"object": root}], PODS: [{"object": lost}]}

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await streams(end="never")(request)
        return await listing(*there.get(request.path, []))(request)

    server.answers = [answer]
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
