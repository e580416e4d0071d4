"""An API server of Kubernetes on loopback, which answers as a test says."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from practicus_provider.backends.kubernetes import api as api_module
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.api import Api, Manifest, connected
from tests.plans import PATIENCE

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


def event(kind: str, version: str = "1", **more: Any) -> Manifest:
    labels = {"app.kubernetes.io/managed-by": "practicus", "practicus.ai/cluster": "c"}
    metadata = {"name": "p", "labels": labels, "resourceVersion": version}
    return {"type": kind, "object": {"metadata": metadata, "spec": {}, **more}}


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
