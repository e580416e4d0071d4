"""Clusters' web pages below Airflow's own URL, for those whom Airflow lets read the task's log.

``/clusters/{dag}/{connection}/{cluster}`` is where the button leads. It asks Airflow who looks, and is a page of ours
(:mod:`.frame`) around ``/pages/{ticket}/``, which the proxy's process answers (:mod:`.proxy`).
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from airflow.api_fastapi.core_api.security import GetUserDep
from airflow.configuration import conf
from fastapi import FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import HTMLResponse, Response

from practicus_provider.backends.base import Handle
from practicus_provider.errors import BackendError, NotFound
from practicus_provider.links import PREFIX, base_path, dashboard_path
from practicus_provider.plan import Port
from practicus_provider.plugins.frame import frame_path, headers_of, page_of
from practicus_provider.plugins.login import log_in, redirect
from practicus_provider.plugins.permissions import READ_LOGS, may, reasons_for
from practicus_provider.plugins.places import backend_of, lately_backend_of
from practicus_provider.plugins.proxy import INTERNAL_ERROR, Answer, Proxy, relay
from practicus_provider.plugins.ticket import Expired, Refused, Ticket, visitor
from practicus_provider.proxy.content import OPEN, PREFLIGHT, kept_apart, message
from practicus_provider.proxy.wire import Asked

POLICY_VIOLATION = 1008
"""Why a WebSocket is closed (RFC 6455, 7.4.1)."""

proxy = Proxy()
app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, exception_handlers={HTTPException: log_in})


@app.get(
    "/clusters/{dag_id}/{conn_id}/{cluster}",
    dependencies=may(READ_LOGS),
)
async def enter(
    request: Request,
    user: GetUserDep,
    dag_id: str,
    conn_id: str,
    cluster: str,
    namespace: str | None = None,
    label: str | None = None,
    at: str = "",
) -> Response:
    """The cluster's page in a frame; where it has several, a choice.

    :param at: where the page begins, as a path below its own root.
    """
    async with reasons_for(user, conn_id):
        listing = await (await backend_of(conn_id, namespace)).find(cluster)
    if listing.task.get("dag_id") != dag_id:
        raise NotFound(f"DAG {dag_id} has no cluster {cluster}")
    if label is None and len(listing.links) > 1:
        return _choice(
            {name: dashboard_path(dag_id, conn_id, cluster, namespace=namespace, label=name) for name in listing.links}
        )
    label = next(iter(listing.links), "") if label is None else label
    if label not in listing.links:
        raise NotFound(f"cluster {cluster} serves no page {label!r}" if label else f"cluster {cluster} serves no page")
    port = listing.links[label]
    where = (dag_id, conn_id, namespace, cluster, listing.handle.uid)
    ticket = Ticket(visitor(user.get_id()), *where, label, port.role, port.name)
    inside = _pages(ticket.signed())
    return HTMLResponse(page_of(ticket, listing.task, at, inside), headers=headers_of(_hosts(request), inside))


@app.api_route("/pages/{ticket}/{path:path}", methods=["GET", "HEAD"])
async def page(request: Request, ticket: str) -> Response:
    """What the replica answers. Only to look: no other methods, so nothing to write.

    By itself in a window it could show any URL of Airflow's, so there the page around it takes its place. Browsers say
    where they show it to ``https://``, and to this machine (Fetch Metadata, 2).
    """
    if request.headers.get("sec-fetch-dest") == "document":
        return redirect(frame_path(Ticket.read(ticket), _at(request, ticket)))
    return Answer(await proxy.ask(await _asked(request, ticket, request.method)))


@app.options("/pages/{ticket}/{path:path}")
async def preflight() -> Response:
    """May a page without an origin read its own data? The ticket decides, when it does."""
    return Response(headers={**OPEN, **PREFLIGHT})


@app.websocket("/pages/{ticket}/{path:path}")
async def page_socket(websocket: WebSocket, ticket: str) -> None:
    """A page's own WebSocket, such as Bokeh's."""
    try:
        subprotocols: Sequence[str] = websocket.scope.get("subprotocols", ())
        channel = await proxy.ask(await _asked(websocket, ticket, "GET", subprotocols))
    except Refused as error:
        await websocket.close(POLICY_VIOLATION, str(error))
    except BackendError:
        await websocket.close(INTERNAL_ERROR, "the cluster cannot be reached")
    else:
        await relay(websocket, channel)


# ---- what goes wrong


@app.exception_handler(Expired)
async def _expired(request: Request, error: Expired) -> Response:
    """Whoever opens a window is asked again who they are; what a page loads by itself is not."""
    if request.headers.get("sec-fetch-dest") != "document":
        return _message(403, "This page has expired", f"{error}; load the window again")
    return redirect(frame_path(error.ticket))


@app.exception_handler(Refused)
async def _refused(request: Request, error: Refused) -> Response:
    return _message(403, "No such page", f"{error}; open it from the task's page")


@app.exception_handler(NotFound)
async def _gone(request: Request, error: NotFound) -> Response:
    words = f"{error}. It is there while the job runs, and for an hour after it where teardown= keeps it."
    return _message(404, "The cluster is gone", words)


@app.exception_handler(BackendError)
async def _unreachable(request: Request, error: BackendError) -> Response:
    return _message(502, "The cluster's page cannot be reached", f"{error}")


# ---- helpers


async def _asked(
    request: Request | WebSocket, ticket: str, method: str, subprotocols: Sequence[str] | None = None
) -> Asked:
    """What the proxy is asked for, by somebody who has a ticket.

    :raises Refused: it is none.
    :raises NotFound: its connection is gone.
    """
    path, query = _inner_path(request, ticket), request.scope["query_string"]
    to = Ticket.read(ticket)
    return Asked(
        to.visitor,
        ticket,
        await lately_backend_of(to.conn_id, to.namespace),
        Handle(to.cluster, to.uid),
        Port(to.role, to.port),
        method,
        path + (b"?" + query if query else b""),
        request.headers.items(),
        _pages(ticket),
        kept_apart(_hosts(request), _pages(ticket)),
        subprotocols,
    )


def _hosts(request: Request | WebSocket) -> list[str]:
    """By which the browser may know Airflow: as it says, or, where a proxy in between changes that, as Airflow's
    configuration does."""
    named = urlsplit(conf.get("api", "base_url", fallback="") or "").netloc
    return [host for host in (request.headers.get("host", ""), named) if host]


def _at(request: Request, ticket: str) -> str:
    """Where below its root a page is."""
    query = request.scope["query_string"].decode("latin-1")
    return _inner_path(request, ticket).decode("latin-1").lstrip("/") + (f"?{query}" if query else "")


def _pages(ticket: str) -> str:
    return f"{base_path()}{PREFIX}/pages/{ticket}"


def _inner_path(request: Request | WebSocket, ticket: str) -> bytes:
    """What follows the ticket, as it was sent: the replica reads escapes its own way."""
    raw: bytes = request.scope["raw_path"]
    _, found, path = raw.partition(f"/pages/{ticket}".encode())
    if not found:
        raise Refused("this is no page of a cluster")
    return path


def _choice(paths: Mapping[str, str]) -> Response:
    items = (f'<li><a href="{html.escape(path)}">{html.escape(label)}</a></li>' for label, path in paths.items())
    return HTMLResponse(f"<!doctype html><title>Pages of the cluster</title><ul>{''.join(items)}</ul>")


def _message(status: int, title: str, words: str) -> Response:
    status, headers, page = message(status, title, words)
    return Response(page, status, headers)
