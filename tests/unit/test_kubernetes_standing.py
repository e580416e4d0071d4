"""What stands in a pod's way with the same words for too long ends its job; the clock is passed in."""

from __future__ import annotations

import asyncio
from math import inf

from aiohttp import web

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes import standing as standing_module
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.standing import STANDS, Wait, due, going_on, standing
from practicus_provider.status import Reason, State
from tests.kubernetes_objects import ALONE, NAME, job, pod, waiting
from tests.kubernetes_server import JOBS, PODS, Server, listing, streams
from tests.plans import PATIENCE


def test_the_time_runs_from_when_the_words_were_seen_first():
    waits = going_on({}, {"a": "no route"}, 10.0)
    waits = going_on(waits, {"a": "no route", "b": "no space"}, 50.0)
    assert waits == {"a": Wait("no route", 10.0), "b": Wait("no space", 50.0)}
    assert due(waits, 50.0) == 10.0 + STANDS
    assert standing(waits, 9.9 + STANDS) == frozenset()
    assert standing(waits, 10.0 + STANDS) == {"a"}
    assert due(waits, 10.0 + STANDS) == 50.0 + STANDS
    assert standing(waits, 50.0 + STANDS) == {"a", "b"}
    assert due(waits, 50.0 + STANDS) == inf


def test_other_words_begin_anew_and_what_is_out_of_the_way_is_forgotten():
    waits = going_on({}, {"a": "no route", "b": "no space"}, 10.0)
    assert going_on(waits, {"a": "503 Service Unavailable"}, 50.0) == {"a": Wait("# Service Unavailable", 50.0)}
    assert going_on(going_on(waits, {}, 50.0), {"a": "no route"}, 60.0) == {"a": Wait("no route", 60.0)}


def test_numbers_of_requests_and_ports_and_names_of_pods_make_no_other_words():
    first = 'pods "c-0-x7k2p" is forbidden: read udp 10.0.0.5:39471->10.0.0.10:53: request 8f0c11e2aa: timeout'
    other = 'pods "c-0-q9z4w" is forbidden: read udp 10.0.0.5:58112->10.0.0.10:53: request 01ab99cc3d: timeout'
    waits = going_on({}, {"a": first}, 10.0)
    assert going_on(waits, {"a": other}, 50.0) == waits


def test_no_words_between_two_tries_are_no_other_words():
    waits = going_on({}, {"a": "no route"}, 10.0)
    assert going_on(going_on(waits, {"a": ""}, 50.0), {"a": "no route"}, 60.0) == waits
    assert going_on({}, {"a": ""}, 10.0) == {"a": Wait("", 10.0)}


async def test_whoever_watches_is_told_though_nothing_changes_any_more(server: Server, monkeypatch):
    monkeypatch.setattr(standing_module, "STANDS", 0.3)
    root, found = job(ALONE), pod("driver", 0, waiting("ErrImagePull", "no space left on device"), uid="p")
    for item in (root, found):
        item["metadata"]["resourceVersion"] = "1"

    async def answer(request: web.Request) -> web.StreamResponse:
        if "watch" in request.query:
            return await streams(end="never")(request)
        there = {JOBS: [{"object": root}], PODS: [{"object": found}]}
        return await listing(*there.get(request.path, []))(request)

    server.answers = [answer]
    async with asyncio.timeout(PATIENCE):
        seen = [status async for status in KubernetesBackend(server.access, Site("jobs")).watch(Handle(NAME, "u"))]
    assert [status.state for status in seen] == [State.PENDING, State.FAILED]
    assert seen[-1].verdict is not None
    assert seen[-1].verdict.reason is Reason.IMAGE_PULL_FAILED
