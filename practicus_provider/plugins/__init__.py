"""What Airflow shows under ``airflow plugins``: found by the entry point ``airflow.plugins``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from practicus_provider.links import PREFIX

Message = MutableMapping[str, Any]


async def dashboards(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """Clusters' web pages, as an ASGI application.

    It is imported by the first request: every process of Airflow loads plugins, only the API server serves them.
    """
    from practicus_provider.plugins.dashboards import app

    await app(scope, receive, send)


class PracticusPlugin(AirflowPlugin):
    """Serves clusters' web pages below Airflow's own URL, where the buttons of our operators lead."""

    name = "practicus"
    fastapi_apps = [{"name": "Practicus dashboards", "app": dashboards, "url_prefix": PREFIX}]  # noqa: RUF012
