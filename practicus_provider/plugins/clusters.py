"""The page *Clusters*: what runs on all connections, for those whom Airflow lets read the DAGs that it is of.

``/page`` is a file that asks ``/api/...`` for the rest. Who may do what is Airflow's auth manager's to say: to see a
cluster takes the right to see the DAG's task instances, its logs that to see their logs, and to delete it that to clear
them, which ends a job too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated, Any

from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.core_api.security import GetUserDep, get_user
from airflow.api_fastapi.logging.decorators import action_logging
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse

from practicus_provider.backends.base import Backend, Listing, LogLine
from practicus_provider.errors import BackendError, NotFound
from practicus_provider.plugins.board import Board, Look, Place
from practicus_provider.plugins.login import log_in
from practicus_provider.plugins.permissions import CLEAR, READ, READ_LOGS, may, permitted, readable, reasons_for
from practicus_provider.plugins.places import backend_of, connection_ids
from practicus_provider.plugins.rows import dag_of, page_of, rows_of
from practicus_provider.plugins.stream import events

STATIC = Path(__file__).parent / "static"
TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    # Airflow's own page frames it. Nothing but our own files is executed, loaded or asked.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
CLUSTER = "/api/clusters/{dag_id}/{conn_id}/{cluster}"
FOLLOWED = 24
"""Logs that one user follows at once: each costs the API server a connection to where the replica runs."""
GONE = "It is there while the job runs, and for an hour after it where teardown= keeps it."


async def _backend_of(place: Place) -> Backend:
    return await backend_of(place.conn_id, place.namespace)


board = Board(_backend_of)
_followed = Counter[str]()
app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, exception_handlers={HTTPException: log_in})


# ---- files


@app.get("/page", dependencies=[Depends(get_user)])
async def page() -> Response:
    """The page, of the list as of one cluster."""
    return await static("clusters.html")


@app.get("/static/{name}")
async def static(name: str) -> Response:
    """What the page is made of: the same for everybody."""
    if name not in {path.name for path in STATIC.iterdir()}:
        raise HTTPException(404)
    return FileResponse(STATIC / name, headers=HEADERS, media_type=TYPES[Path(name).suffix])


# ---- data


@app.get("/api/clusters")
async def clusters(user: GetUserDep) -> Response:
    """All clusters whose DAGs this user may read, and what could not be looked at."""
    places = [Place(conn_id) for conn_id in await run_in_threadpool(connection_ids)]
    looks = dict(zip(places, await asyncio.gather(*map(board.glance, places)), strict=True))
    dags = {dag_of(listing) for look in looks.values() for listing in look.listings}
    shown = await run_in_threadpool(permitted, user, dags, READ)
    troubles = {place.conn_id: look.error for place, look in looks.items() if look.error}
    told = await run_in_threadpool(readable, user, troubles)
    rows = [row for row in rows_of(looks) if row["dag_id"] in shown]
    unmeasured = {place.conn_id for place in places if looks[place].usage is None}
    return _json(
        {
            "clusters": rows,
            "troubles": {conn_id: error if conn_id in told else "" for conn_id, error in troubles.items()},
            "unmeasured": sorted(unmeasured & {row["connection"] for row in rows}),
        }
    )


@app.get(CLUSTER, dependencies=may(READ))
async def cluster(user: GetUserDep, dag_id: str, conn_id: str, cluster: str, namespace: str | None = None) -> Response:
    """One cluster, and what this user may do with it."""
    place = Place(conn_id, namespace)
    async with reasons_for(user, conn_id):
        look = await board.look(place)
        listing = _listing(look, dag_id, cluster)
    return _json(
        {
            **page_of(place, listing, look),
            "may": {
                name: bool(await run_in_threadpool(permitted, user, [dag_id], right))
                for name, right in {"logs": READ_LOGS, "delete": CLEAR}.items()
            },
            "measured": look.usage is not None,
        }
    )


@app.get(f"{CLUSTER}/logs/{{replica}}", dependencies=may(READ_LOGS))
async def logs(
    user: GetUserDep,
    dag_id: str,
    conn_id: str,
    cluster: str,
    replica: str,
    uid: str,
    namespace: str | None = None,
    last_event_id: Annotated[int, Header()] = 0,
) -> Response:
    """A replica's log as it is written, as server-sent events; whoever was cut off goes on where they were."""
    place = Place(conn_id, namespace)
    async with reasons_for(user, conn_id):
        listing = _listing(await board.look(place), dag_id, cluster, uid)
        if replica not in {one.name for one in listing.status.replicas}:
            raise NotFound(f"cluster {cluster} has no replica {replica}")
        backend = await _backend_of(place)
    lines = _lines(user, conn_id, backend.logs(listing.handle, [replica], whole=True))
    return StreamingResponse(events(lines, last_event_id), headers=HEADERS, media_type="text/event-stream")


# As in Airflow's own API, the browser lets no other site send this: its method is none of a form's.
@app.delete(CLUSTER, dependencies=[*may(CLEAR), Depends(action_logging("delete_practicus_cluster"))])
async def delete(
    user: GetUserDep, dag_id: str, conn_id: str, cluster: str, uid: str, namespace: str | None = None
) -> Response:
    """Delete it."""
    place = Place(conn_id, namespace)
    async with reasons_for(user, conn_id):
        listing = _listing(await board.look(place), dag_id, cluster, uid)
        await (await _backend_of(place)).delete(listing.handle, wait=False)
    board.forget(place)
    return Response(status_code=204)


# ---- what goes wrong


@app.exception_handler(NotFound)
async def _gone(request: Request, error: NotFound) -> Response:
    return _json({"detail": f"{error}. {GONE}"}, 404)


@app.exception_handler(BackendError)
async def _unreachable(request: Request, error: BackendError) -> Response:
    return _json({"detail": f"{error}"}, 502)


# ---- helpers


async def _lines(user: BaseUser, conn_id: str, lines: AsyncGenerator[LogLine, None]) -> AsyncGenerator[LogLine, None]:
    name = user.get_name()
    if _followed[name] >= FOLLOWED:
        raise BackendError(f"{FOLLOWED} logs are followed by you already: close some of their pages")
    _followed[name] += 1
    try:
        async with reasons_for(user, conn_id), contextlib.aclosing(lines):
            async for line in lines:
                yield line
    finally:
        _followed[name] -= 1
        if not _followed[name]:
            del _followed[name]


def _listing(look: Look, dag_id: str, cluster: str, uid: str | None = None) -> Listing:
    """That cluster of that DAG, and no other of its name.

    :raises NotFound: there is none.
    :raises BackendError: nothing could be seen.
    """
    if look.error:
        raise BackendError(look.error)
    for listing in look.listings:
        if listing.handle.name == cluster and dag_of(listing) == dag_id:
            if uid in (None, listing.handle.uid):
                return listing
            raise NotFound(f"cluster {cluster} is another one now")
    raise NotFound(f"DAG {dag_id} has no cluster {cluster}")


def _json(data: Any, status: int = 200) -> Response:
    return JSONResponse(data, status, HEADERS)
