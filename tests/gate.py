"""A server before an API server that lets in whoever shows a token that is not over, and a plugin that gives some."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientTimeout, web

from practicus_provider.backends.kubernetes.access import Access, Login, Logins

PLUGIN = """#!/bin/sh
end=$(($(date +%s) + {life}))
cat <<END
{{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status":
 {{"token": "$end", "expirationTimestamp": "$(date -u -d @$end +%Y-%m-%dT%H:%M:%SZ)"}}}}
END
"""
KEPT = ("Content-Type", "Accept")
"""Headers of a request that matter to an API server."""


@dataclass
class Gate:
    """A token is the time of its end, seconds since the epoch.

    :ivar plugin: a program that gives one.
    :ivar kubeconfig: leads through here, by the plugin.
    :ivar tokens: those that were shown while they were good.
    :ivar refused: how many requests were.
    """

    plugin: Path
    login: Login
    kubeconfig: str = ""
    tokens: set[str] = field(default_factory=set)
    refused: int = 0

    async def pass_on(self, request: web.Request) -> web.StreamResponse:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not token.isdecimal() or int(token) <= time.time():
            self.refused += 1
            status = {"kind": "Status", "message": "Unauthorized", "reason": "Unauthorized", "code": 401}
            return web.json_response(status, status=401)
        self.tokens.add(token)
        headers = {name: request.headers[name] for name in KEPT if name in request.headers}
        url, body = f"{self.login.host}{request.raw_path}", await request.read()
        asked: Any = self.login.client.rest_client.pool_manager.request(
            request.method, url, headers=headers, data=body, timeout=ClientTimeout()
        )
        async with asked as found:
            answer = web.StreamResponse(status=found.status, headers={"Content-Type": found.content_type})
            await answer.prepare(request)
            async for piece in found.content.iter_any():
                await answer.write(piece)
        return answer


@contextlib.asynccontextmanager
async def gated(kubeconfig: str, folder: Path, life: int) -> AsyncIterator[Gate]:
    """A gate before a cluster.

    :param folder: for the plugin.
    :param life: of a token, seconds.
    """
    plugin = folder / "give-token"
    plugin.write_text(PLUGIN.format(life=life))
    plugin.chmod(0o700)
    login = await Logins(Access(kubeconfig)).login()
    gate = Gate(plugin, login)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", gate.pass_on)
    runner = web.AppRunner(app, shutdown_timeout=0.1)  # of 0 it would wait for watches without end
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": str(plugin)}}
    gate.kubeconfig = json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "gate",
            "contexts": [{"name": "gate", "context": {"cluster": "gate", "user": "gate"}}],
            "clusters": [{"name": "gate", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}],
            "users": [{"name": "gate", "user": user}],
        }
    )
    try:
        yield gate
    finally:
        await runner.cleanup()
        await login.client.close()
