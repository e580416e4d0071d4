"""Requests to an API server, which is a real server on loopback here."""

from __future__ import annotations

import asyncio
import contextlib
import re

import pytest
from aiohttp import web

from practicus_provider.backends.kubernetes import api as api_module
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.api import AT_ONCE, TRIES, ApiError, connected
from practicus_provider.backends.kubernetes.logs import PodLog
from practicus_provider.errors import BackendError, NotFound
from tests.kubernetes_server import (
    JOBS,
    POD,
    PODS,
    event,
    kubeconfig,
    lines,
    refuses,
    says,
    streams,
)
from tests.plans import PATIENCE


def refused(message: str, kind: type[BackendError] = ApiError) -> pytest.RaisesExc[BackendError]:
    return pytest.raises(kind, match=f"^{re.escape(message)}$")


# ---- what is asked


async def test_every_verb_is_the_request_that_kubernetes_documents(server, api):
    server.answers = [says(POD)]
    job = {"kind": "Job", "metadata": {"name": "j"}}
    assert await api.get("Job", "j") == POD
    assert await api.list("Pod", labelSelector="a=b,c") == POD
    assert await api.create(job) == POD
    assert await api.apply(job) == POD
    assert await api.patch("Job", "j", {"spec": {}}) == POD
    await api.delete("Job", "j", propagationPolicy="Foreground", preconditions={"uid": "u"})
    assert server.asked == [
        ("GET", f"{JOBS}/j", {}, None),
        ("GET", PODS, {"labelSelector": "a=b,c"}, None),
        ("POST", JOBS, {"fieldManager": "practicus", "fieldValidation": "Strict"}, job),
        ("PATCH", f"{JOBS}/j", {"fieldManager": "practicus", "force": "true"}, job),
        ("PATCH", f"{JOBS}/j", {}, {"spec": {}}),
        ("DELETE", f"{JOBS}/j", {}, {"propagationPolicy": "Foreground", "preconditions": {"uid": "u"}}),
    ]


@pytest.mark.parametrize("name", ["..", ".", "../../secrets/x", "a/log", "a%2flog"])
async def test_a_name_that_would_lead_elsewhere_is_nobody_s_and_asked_for_nowhere(server, api, name):
    words = f"there is nothing named {name!r}, as nothing on Kubernetes can be"
    assert await api.get("Job", name) is None
    with refused(words, NotFound):
        await api.patch("Job", name, {})
    log = PodLog(api, name, "uid")
    assert ([line async for line in log.lines(follow=False)], log.whole) == ([], True)
    api.namespace = name
    with refused(words, NotFound):
        await api.list("Pod")
    assert server.asked == []


async def test_a_name_is_one_part_of_a_path_whatever_it_holds(server, api):
    server.answers = [says(POD)]
    await api.get("Job", "a?b#c")
    assert server.asked == [("GET", f"{JOBS}/a?b#c", {}, None)]


async def test_what_may_be_done_is_asked_with_group_and_subresource(server, api):
    server.answers = [says({"status": {"allowed": True}}), says({"status": {"allowed": False}})]
    assert (await api.may("get", "pods/log"), await api.may("create", "jobs.batch")) == (True, False)
    assert [body["spec"]["resourceAttributes"] for *_, body in server.asked] == [
        {"namespace": "jobs", "verb": "get", "group": "", "resource": "pods", "subresource": "log"},
        {"namespace": "jobs", "verb": "create", "group": "batch", "resource": "jobs", "subresource": ""},
    ]


async def test_a_request_says_who_asks(server, api):
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response(dict(request.headers))

    server.answers = [answer]
    found = await api.get("Pod", "p")
    assert found is not None
    assert (found["Authorization"], found["Accept"]) == ("Bearer secret", "application/json")


async def test_a_context_of_the_kubeconfig_names_the_server():
    async with connected(Access(inline=kubeconfig("http://here:1"), context="there"), "jobs") as api:
        assert api.host == "http://other:1"


# ---- absence


async def test_what_is_not_there_is_none_and_its_deletion_is_fine(server, api):
    server.answers = [refuses(404, 'jobs.batch "j" not found', "NotFound")]
    assert await api.get("Job", "j") is None
    await api.delete("Job", "j")
    with refused('jobs.batch "j" not found', NotFound):
        await api.patch("Job", "j", {})


# ---- refusals


@pytest.mark.parametrize(
    ("status", "message", "reason", "said"),
    [
        (
            401,
            "Unauthorized",
            "Unauthorized",
            "Kubernetes does not know who we are (401: Unauthorized); renew the connection's credentials",
        ),
        (
            403,
            'pods "p" is forbidden: exceeded quota: q',
            "Forbidden",
            'the namespace\'s quota is used up: pods "p" is forbidden: exceeded quota: q',
        ),
        (
            404,
            'namespaces "jobs" not found',
            "NotFound",
            "namespaces \"jobs\" not found; create namespace 'jobs', or set the connection's extra 'namespace'",
        ),
        (409, 'jobs.batch "j" already exists', "AlreadyExists", 'refused (409 to POST): jobs.batch "j" already exists'),
        (422, 'Job "j" is invalid', "Invalid", 'Kubernetes does not admit it (422): Job "j" is invalid'),
        (410, "too old resource version", "Expired", "Kubernetes refused (410 to POST): too old resource version"),
    ],
)
async def test_a_refusal_says_what_to_do_and_is_not_asked_again(server, api, status, message, reason, said):
    server.answers = [refuses(status, message, reason)]
    with pytest.raises(ApiError) as error:
        await api.create(POD)
    assert str(error.value) in (said, f"Kubernetes {said}")
    assert (error.value.status, error.value.reason, len(server.asked)) == (status, reason, 1)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (
            'User "u" cannot list resource "jobs" in API group "batch" in the namespace "jobs"',
            "Kubernetes forbids it (403: {}); give this user the namespaced Role of the documentation, or at least one "
            'with the rule {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["list"]}',
        ),
        (
            'roles "r" is forbidden: user "u" is attempting to grant RBAC permissions not currently held',
            "Kubernetes forbids it (403: {}); whose jobs start pods needs those rights too: give this user the "
            "namespaced Role of the documentation",
        ),
        (
            "unable to create new content in namespace jobs because it is being terminated",
            "namespace 'jobs' is being deleted: wait until it is gone, and create it anew ({})",
        ),
        ('violates PodSecurity "restricted:latest": hostNetwork', "Kubernetes does not admit it (403): {}"),
        (
            'violates PodSecurity: restricted volume types (volume "x" uses restricted volume type "hostPath")',
            "Kubernetes does not admit it (403: {}); Pod Security admits no host_path= and no nfs= there: have a "
            "PersistentVolume made of it, give its claim=",
        ),
    ],
)
async def test_what_is_forbidden_is_told_with_who_may_change_that(server, api, message, said):
    server.answers = [refuses(403, message, "Forbidden")]
    with refused(said.replace("{}", message)):
        await api.create(POD)


async def test_a_refusal_that_is_no_status_of_kubernetes_is_told_as_it_is(server, api):
    server.answers = [says("the proxy says no\n", 407)]
    with refused("Kubernetes refused (407 to GET): the proxy says no"):
        await api.get("Pod", "p")


async def test_a_refusal_without_words_is_told_by_its_name(server, api):
    server.answers = [says("", 405)]
    with refused("Kubernetes refused (405 to GET): Method Not Allowed"):
        await api.get("Pod", "p")


# ---- what helps by asking again


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_server_that_is_busy_is_asked_again(server, api, status):
    server.answers = [refuses(status, "busy"), refuses(status, "busy"), says(POD)]
    assert await api.get("Pod", "p") == POD
    assert len(server.asked) == 3


async def test_a_server_that_stays_busy_is_reported(server, api):
    server.answers = [refuses(503, "busy", "ServiceUnavailable")]
    with refused("Kubernetes refused (503 to GET): busy"):
        await api.get("Pod", "p")
    assert len(server.asked) == TRIES


async def test_the_time_that_the_server_asks_for_is_waited_whatever_the_jitter(server, api, monkeypatch):
    monkeypatch.setattr("random.uniform", lambda low, high: low)
    server.answers = [refuses(429, "busy", **{"Retry-After": "1"}), says(POD)]
    assert await api.get("Pod", "p") == POD
    assert server.times[1] - server.times[0] >= 1


async def test_a_time_that_is_a_date_is_no_reason_to_fail(server, api):
    server.answers = [refuses(429, "busy", **{"Retry-After": "Sat, 05 Jan 2013 10:00:00 GMT"}), says(POD)]
    assert await api.get("Pod", "p") == POD


async def test_an_answer_that_is_no_json_is_an_error_of_ours(server, api):
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text="<html>Sign in</html>", content_type="text/html")

    server.answers = [answer]
    with pytest.raises(BackendError):
        await api.get("Pod", "p")


async def test_a_connection_that_is_cut_before_the_answer_is_made_again(server, api):
    async def cut(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    server.answers = [cut, says(POD)]
    assert await api.get("Pod", "p") == POD


async def test_a_connection_that_is_cut_amid_the_answer_is_made_again(server, api):
    server.answers = [streams(b'{"kind": ', end="cut"), says(POD)]
    assert await api.get("Pod", "p") == POD


async def test_a_server_that_cannot_be_reached_is_named(server, unused_tcp_port):
    async with connected(Access(inline=kubeconfig(f"http://127.0.0.1:{unused_tcp_port}")), "jobs") as api:
        with pytest.raises(BackendError) as error:
            await api.get("Pod", "p")
    start = f"the Kubernetes API server at http://127.0.0.1:{unused_tcp_port} cannot be reached: "
    assert str(error.value).startswith(f"{start}Cannot connect to host 127.0.0.1:{unused_tcp_port}")


async def test_a_server_that_does_not_answer_is_named(server, api, monkeypatch):
    monkeypatch.setattr(api_module, "TIMEOUT", 0.3)
    server.answers = [streams(b"{", end="never")]
    with refused(f"the Kubernetes API server at {server.url} does not answer within 0.3 s", BackendError):
        await api.get("Pod", "p")
    assert len(server.asked) == TRIES


# ---- many at once


async def test_of_many_requests_a_few_are_under_way_at_once(server, api):
    under_way, most = 0, 0

    async def answer(request: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001)
        under_way -= 1
        return await says(POD)(request)

    server.answers = [answer]
    await asyncio.gather(*(api.get("Pod", "p") for _ in range(3 * AT_ONCE)))
    assert len(server.asked) == 3 * AT_ONCE
    assert most <= AT_ONCE


async def test_many_logs_that_are_followed_do_not_hold_up_a_request(server, api):
    async def answer(request: web.Request) -> web.StreamResponse:
        return await (streams(b"S x\n", end="never") if request.path.endswith("/log") else says(POD))(request)

    server.answers = [answer]
    async with contextlib.AsyncExitStack() as stack, asyncio.timeout(PATIENCE):
        for index in range(150):
            await stack.enter_async_context(api.stream(f"pods/p{index}/log", silence=PATIENCE))
        assert await api.get("Pod", "p") == POD


# ---- watches


async def test_a_watch_gives_each_event_however_its_bytes_arrive(server, api):
    events = [event("ADDED"), event("MODIFIED", text="größe\n" * 20_000), event("BOOKMARK"), event("DELETED")]
    body = lines(*events)
    server.answers = [streams(body[:10], body[10:150], body[150:90_000], body[90_000:])]
    async with api.watch("Pod", silence=PATIENCE, resourceVersion="7") as found:
        assert [item async for item in found] == events
    assert server.asked == [("GET", PODS, {"watch": "true", "resourceVersion": "7"}, None)]


async def test_a_watch_from_a_version_that_the_server_forgot_is_refused_as_gone(server, api):
    server.answers = [refuses(410, "too old resource version", "Expired")]
    with pytest.raises(ApiError) as error:
        async with api.watch("Pod", silence=PATIENCE):
            pass
    assert error.value.status == 410
