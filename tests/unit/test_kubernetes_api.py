"""Requests to an API server, which is a real server on loopback here."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes import api as api_module
from practicus_provider.backends.kubernetes.api import AT_ONCE, TRIES, Access, Api, ApiError, Manifest, connected
from practicus_provider.backends.kubernetes.labels import INDEX
from practicus_provider.backends.kubernetes.logs import LATER, PodLog, Reader, follow, tail
from practicus_provider.backends.kubernetes.mirror import Mirror, mirror_of
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.render import render
from practicus_provider.errors import BackendError, NotFound
from practicus_provider.runtime.practicus_runtime.launcher import END_MARK
from practicus_provider.status import State
from tests.plans import PATIENCE, TASK, plan, role

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
JOBS = "/apis/batch/v1/namespaces/jobs/jobs"
PODS = "/api/v1/namespaces/jobs/pods"
POD = {"kind": "Pod", "metadata": {"name": "p"}}


@dataclass
class Server:
    """Answers in turn, the last answer again and again; keeps what it was asked."""

    url: str = ""
    answers: list[Handler] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str], Any]] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    busy: set[asyncio.Task[Any]] = field(default_factory=set)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append((request.method, request.path, dict(request.query), json.loads(body) if body else None))
        self.times.append(time.monotonic())
        task = asyncio.current_task()
        assert task is not None
        self.busy.add(task)
        task.add_done_callback(self.busy.discard)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)

    @property
    def access(self) -> Access:
        """How to reach it."""
        return Access(inline=kubeconfig(self.url))


def kubeconfig(url: str, **user: Any) -> str:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [
                {"name": "here", "context": {"cluster": "c", "user": "u"}},
                {"name": "there", "context": {"cluster": "other", "user": "u"}},
            ],
            "clusters": [
                {"name": "c", "cluster": {"server": url}},
                {"name": "other", "cluster": {"server": "http://other:1"}},
            ],
            "users": [{"name": "u", "user": user or {"token": "secret"}}],
        }
    )


def says(body: Any, status: int = 200, **headers: str) -> Handler:
    """An answer of JSON, or of text."""

    async def answer(request: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=status, headers=headers, content_type="application/json")

    return answer


def refuses(status: int, message: str, reason: str = "", **headers: str) -> Handler:
    """An answer as Kubernetes gives it (``Status``)."""
    body = {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": status}
    return says(body, status, **headers)


def streams(*chunks: bytes, end: str = "well") -> Handler:
    """A body in chunks, which ends well, is cut, or does not end."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in chunks:
            await response.write(chunk)
        if end == "never":
            await asyncio.sleep(PATIENCE)
        if end == "cut":
            assert request.transport is not None
            await asyncio.sleep(0.05)
            request.transport.abort()
        return response

    return answer


def lines(*objects: Any) -> bytes:
    return b"".join(json.dumps(item).encode() + b"\n" for item in objects)


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """An API server, and clients that do not wait long before they try again."""
    monkeypatch.setattr(api_module, "BACKOFF", 0.01)
    found = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield found
    for task in found.busy:
        task.cancel()
    await runner.cleanup()


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with connected(server.access, "jobs") as found:
        yield found


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


# ---- how to reach it


async def test_a_kubeconfig_that_is_not_there_is_named(tmp_path):
    path = str(tmp_path / "absent")
    with pytest.raises(BackendError, match=f"^cannot read how to reach Kubernetes from {re.escape(path)}: "):
        await Access(path).client()


@pytest.mark.parametrize("inline", ["{", "a: b", kubeconfig("http://here:1").replace('"here"', '"nowhere"', 1)])
async def test_a_kubeconfig_that_makes_no_sense_is_said(inline):
    with pytest.raises(BackendError, match=r"^cannot read how to reach Kubernetes from its inline kubeconfig: "):
        await Access(inline=inline).client()


async def test_outside_of_a_cluster_in_cluster_is_an_error(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(BackendError, match=r"^cannot read how to reach Kubernetes from in_cluster: "):
        await Access(in_cluster=True).client()


async def test_a_kubeconfig_file_is_read(tmp_path: Path):
    (tmp_path / "config").write_text(kubeconfig("http://here:1"))
    async with connected(Access(str(tmp_path / "config")), "jobs") as api:
        assert api.host == "http://here:1"


def test_an_inline_kubeconfig_is_not_shown_with_the_access():
    assert "secret" not in repr(Access(inline=kubeconfig("http://here:1")))


# ---- watches


def event(kind: str, version: str = "1", **more: Any) -> Manifest:
    labels = {"app.kubernetes.io/managed-by": "practicus", "practicus.ai/cluster": "c"}
    metadata = {"name": "p", "labels": labels, "resourceVersion": version}
    return {"type": kind, "object": {"metadata": metadata, "spec": {}, **more}}


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


def listing(*items: Manifest, version: str = "1") -> Handler:
    return says({"metadata": {"resourceVersion": version}, "items": [item["object"] for item in items]})


def kubernetes(*pods: Handler) -> Handler:
    """Answers for Pods in turn; of other kinds there is nothing."""
    left = list(pods)

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path != PODS or not left:
            watches = "watch" in request.query
            return await (streams(end="never") if watches else listing())(request)
        return await left.pop(0)(request)

    return answer


async def seen(server: Server, *versions: str) -> None:
    """Wait until the pod's versions have been seen one after another."""
    async with asyncio.timeout(PATIENCE), mirror_of(server.access, "jobs") as mirror:
        with mirror.changes("c") as changed:
            for version in versions:
                while [pod["metadata"]["resourceVersion"] for pod in mirror.pods("c")] != [version]:
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
        [kept] = mirror.pods("c")
    labels = pod["object"]["metadata"]["labels"]
    assert kept == {
        "metadata": {"name": "p", "labels": labels, "resourceVersion": "1"},
        "spec": {
            "nodeName": "n",
            "containers": [{"name": "main", "image": "i", "resources": {"limits": {"cpu": "1"}}}],
        },
        "status": {"phase": "Running"},
    }


async def test_the_mirror_asks_for_a_long_list_in_parts(server):
    first, second = event("ADDED"), event("ADDED", version="2")
    second["object"]["metadata"]["name"] = "q"
    begun = {"metadata": {"resourceVersion": "7", "continue": "more"}, "items": [first["object"]]}
    server.answers = [kubernetes(says(begun), listing(second, version="7"), streams(end="never"))]
    async with mirror_of(server.access, "jobs") as mirror:
        assert [pod["metadata"]["name"] for pod in mirror.pods("c")] == ["p", "q"]
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
                mirror.tell("c", "p", {"exit_code": told})
            changed.clear()
            goes.set()
            await changed.wait()
            assert [pod["metadata"]["resourceVersion"] for pod in mirror.pods("c")] == (["2"] if stays else [])
        assert mirror.pods("c") == []


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


# ---- logs


STAMPS = [f"2013-01-05T10:00:0{second}.000000001Z" for second in range(4)]


def log(*entries: tuple[int, str]) -> list[bytes]:
    return [f"{STAMPS[second]} {text}\n".encode() for second, text in entries]


async def read(api: Api, taken: str = "") -> tuple[list[str], str]:
    found = PodLog(api, "p", "uid", taken)
    return [line async for line in found.lines(follow=False)], found.taken


async def test_a_log_goes_on_after_the_last_line_that_was_taken_also_among_lines_of_one_stamp(server, api):
    whole = log((0, "a"), (1, "b"), (1, "c"), (1, "d"), (2, "e"))
    server.answers = [streams(*whole[:3]), streams(*whole)]
    assert await read(api) == (["a", "b", "c"], f"{STAMPS[1]}/2")
    assert await read(api, f"{STAMPS[1]}/2") == (["d", "e"], f"{STAMPS[2]}/1")
    query = {"container": "main", "timestamps": "true", "follow": "false"}
    assert server.asked == [
        ("GET", f"{PODS}/p/log", query, None),
        ("GET", f"{PODS}/p/log", {**query, "sinceTime": STAMPS[1]}, None),
    ]


END = f'{END_MARK}uid {{"exit_code": 0, "result": null}}'


async def test_a_log_is_read_to_its_end_once_both_outputs_have_said_so(server, api):
    server.answers = [streams(*log((0, "out"), (1, f"unfinished{END}"), (1, "err"), (2, END), (3, "never read")))]
    found = PodLog(api, "p", "uid")
    assert [line async for line in found.lines(follow=True)] == ["out", "unfinished", "err"]
    assert (found.ended, found.last_words) == (True, {"exit_code": 0, "result": None})


async def test_a_log_of_which_one_output_ended_goes_on(server, api):
    server.answers = [streams(*log((0, END), (1, "err")))]
    found = PodLog(api, "p", "uid")
    assert [line async for line in found.lines(follow=True)] == ["err"]
    assert not found.ended


async def test_what_looks_like_an_end_but_is_not_this_pods_is_output(server, api):
    other = END.replace("uid", "other")
    server.answers = [streams(*log((0, other), (0, other), (1, "more")))]
    found = PodLog(api, "p", "uid")
    assert [line async for line in found.lines(follow=True)] == [other, other, "more"]
    assert not found.ended


@pytest.mark.parametrize("words", ["", "{", "[]", "7"])
async def test_an_end_without_last_words_tells_nothing(server, api, words):
    server.answers = [streams(*log((0, f"{END_MARK}uid {words}"), (0, f"{END_MARK}uid {words}")))]
    found = PodLog(api, "p", "uid")
    assert [line async for line in found.lines(follow=True)] == []
    assert (found.ended, found.last_words) == (True, {})


async def test_a_log_of_which_nothing_is_new_has_no_further_lines(server, api):
    server.answers = [streams(*log((0, "a"), (0, "b")))]
    assert await read(api, f"{STAMPS[0]}/2") == ([], f"{STAMPS[0]}/2")


async def test_a_long_line_an_empty_one_and_one_that_is_no_utf_8_are_lines(server, api):
    long = b"x" * 3_000_000
    server.answers = [streams(b"S " + long + b"\n", b"T \n", b"U \xff\r\n", b"V")]
    assert (await read(api))[0] == [long.decode(), "", "\ufffd", ""]


async def test_a_result_in_the_log_is_not_shown(server, api):
    server.answers = [streams(*log((0, "a"), (1, '\x1epracticus-result {"answer": 42}'), (2, "b")))]
    assert await read(api) == (["a", "b"], f"{STAMPS[2]}/1")


async def test_the_log_of_a_pod_that_is_gone_is_empty(server, api):
    server.answers = [refuses(404, 'pods "p" not found', "NotFound")]
    assert await read(api) == ([], "")
    assert await tail(api, "p", "uid", 5) == []


async def test_the_tail_of_a_log_is_its_last_lines(server, api):
    server.answers = [streams(*(f"{line}\n".encode() for line in ("a", "b\r", "", "c", f"d{END}", END)))]
    assert await tail(api, "p", "uid", 4) == ["b", "", "c", "d"]
    assert server.asked == [("GET", f"{PODS}/p/log", {"container": "main", "tailLines": "6"}, None)]


async def test_of_a_log_that_is_cut_what_was_read_is_kept(server, api):
    server.answers = [streams(*log((0, "a"), (1, "b")), end="cut")]
    assert await read(api) == (["a", "b"], f"{STAMPS[1]}/1")


async def followed(api: Api, ended: asyncio.Event, turns: asyncio.Semaphore | None = None) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        return [line async for line in follow(PodLog(api, "p", "uid"), ended, turns or asyncio.Semaphore())]


@pytest.fixture
def over() -> asyncio.Event:
    """The pod has ended."""
    over = asyncio.Event()
    over.set()
    return over


async def test_a_line_that_was_cut_off_is_read_again_whole(server, api):
    whole = log((0, "a"), (1, "unfinished"), (2, END), (3, END))
    server.answers = [streams(*whole[:1], whole[1][:-8]), streams(*whole)]
    assert await followed(api, asyncio.Event()) == ["a", "unfinished"]


async def test_the_last_line_of_an_ended_pod_may_be_unfinished(server, api, over):
    server.answers = [streams(*log((0, "a")), log((1, "killed amid"))[0].rstrip(b"\n"))]
    assert await followed(api, over) == ["a", "killed amid"]


@pytest.mark.parametrize("trouble", [refuses(500, "no route to host"), refuses(429, "busy"), streams(end="cut")])
async def test_what_is_left_of_an_ended_pods_log_is_asked_for_until_it_is_had(server, api, over, trouble):
    server.answers = [trouble, streams(*log((0, "a")), end="cut"), streams(*log((0, "a"), (1, "b")))]
    assert await followed(api, over) == ["a", "b"]


async def test_a_log_whose_end_cannot_be_had_says_so(server, api, over, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.logs.LAST_PATIENCE", 0.1)
    server.answers = [streams(*log((0, "a")), end="cut")]
    assert await followed(api, over) == ["a", "(the end of the log of p cannot be read)"]


async def test_a_log_that_does_not_end_with_its_pod_is_cut_and_read_again(server, api, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.logs.LATE", 0.1)
    server.answers = [streams(*log((0, "a")), end="never"), streams(*log((0, "a"), (1, "b")))]
    ended = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, ended.set)
    assert await followed(api, ended) == ["a", "b"]


async def test_a_log_that_says_nothing_for_long_is_asked_for_anew(server, api, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.logs.SILENCE", 0.1)
    server.answers = [streams(*log((0, "a")), end="never"), streams(*log((0, "a"), (1, END), (1, END)))]
    assert await followed(api, asyncio.Event()) == ["a"]


async def test_a_log_that_it_is_not_the_turn_of_is_read_at_its_pods_end(server, api):
    server.answers = [streams(*log((0, "a"), (1, "b")))]
    ended = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, ended.set)
    assert await followed(api, ended, asyncio.Semaphore(0)) == [LATER, "a", "b"]
    assert [query["follow"] for _, _, query, _ in server.asked] == ["false"]


async def test_a_log_is_followed_once_another_one_has_ended(server, api):
    server.answers = [streams(*log((0, "a"), (1, END), (1, END)))]
    turns = asyncio.Semaphore(0)
    asyncio.get_running_loop().call_later(0.1, turns.release)
    assert await followed(api, asyncio.Event(), turns) == [LATER, "a"]
    assert [query["follow"] for _, _, query, _ in server.asked] == ["true"]
    assert not turns.locked()


async def test_of_lines_that_nobody_takes_a_few_are_read(server, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.logs.QUEUED", 2)
    running = event("ADDED", status={"containerStatuses": [{"name": "main", "state": {"running": {}}}]})
    running["object"]["metadata"]["labels"] |= {"practicus.ai/role": "driver", INDEX: "0"}
    running["object"]["metadata"]["uid"] = "uid"
    others = kubernetes(listing(running), streams(end="never"))

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/log"):
            return await streams(*log(*((0, str(number)) for number in range(9))), end="never")(request)
        return await others(request)

    async def observations() -> AsyncIterator[None]:
        yield
        await asyncio.sleep(PATIENCE)

    server.answers = [answer]
    async with asyncio.timeout(PATIENCE), mirror_of(server.access, "jobs") as mirror:
        reader = Reader(mirror, Handle("c", "u"), ["driver"], {}, ())
        async with contextlib.aclosing(reader.read(observations())) as found:
            first = await anext(found)
            while not reader.found.full():
                await asyncio.sleep(0.01)
            for _ in range(100):
                await asyncio.sleep(0)
            assert (first.line.text, reader.found.qsize()) == ("0", 2)
            assert [(await anext(found)).line.text for _ in range(8)] == [str(number) for number in range(1, 9)]


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
