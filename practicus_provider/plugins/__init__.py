"""What Airflow shows under ``airflow plugins``: found by the entry point ``airflow.plugins``."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from practicus_provider.links import PREFIX, UI_PREFIX, UI_ROUTE, base_path

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_TICKET = re.compile(rf"({re.escape(PREFIX)}/pages/)[^/]+")

# ASGI applications, imported by the first request: every process of Airflow loads plugins, only the API server serves
# them.


async def clusters(scope: Message, receive: Receive, send: Send) -> None:
    """The page *Clusters*."""
    from practicus_provider.plugins.clusters import app

    await app(scope, receive, send)


async def dashboards(scope: Message, receive: Receive, send: Send) -> None:
    """Clusters' own web pages.

    Who logs what was asked for, Airflow and uvicorn, reads that from the scope once it is answered: it has no ticket.
    """
    from practicus_provider.plugins.dashboards import app

    asked = dict(scope)
    if "path" in scope:
        scope["path"] = _TICKET.sub(r"\1...", scope["path"])
    if scope.get("raw_path"):
        scope["raw_path"] = _TICKET.sub(r"\1...", scope["raw_path"].decode("latin-1")).encode("latin-1")
    await app(asked, receive, send)


class PracticusPlugin(AirflowPlugin):
    """The page *Clusters*, and clusters' own web pages below Airflow's own URL, where our operators' buttons lead."""

    name = "practicus"
    fastapi_apps = [  # noqa: RUF012
        {"name": "Practicus clusters", "app": clusters, "url_prefix": UI_PREFIX},  # the first that fits is taken
        {"name": "Practicus dashboards", "app": dashboards, "url_prefix": PREFIX},
    ]
    external_views = [  # noqa: RUF012
        {
            "name": "Clusters",
            "href": f"{base_path()}{UI_PREFIX}/page",
            "url_route": UI_ROUTE,
            "destination": "nav",
            "category": "browse",
            "icon": f"{base_path()}{UI_PREFIX}/static/icon.svg",
            "icon_dark_mode": f"{base_path()}{UI_PREFIX}/static/icon-dark.svg",
        }
    ]
