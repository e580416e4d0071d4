"""Whoever follows a link before they have logged in."""

from __future__ import annotations

from urllib.parse import quote

from fastapi import HTTPException, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import RedirectResponse, Response

from practicus_provider.links import base_path


async def log_in(request: Request, error: HTTPException) -> Response:
    """Airflow's own answer; but whoever has not logged in may do so now."""
    if error.status_code != 401 or "text/html" not in request.headers.get("accept", ""):
        return await http_exception_handler(request, error)
    here = request.scope["raw_path"].decode() + (f"?{request.url.query}" if request.url.query else "")
    return redirect(f"{base_path()}/api/v2/auth/login?next={quote(here, safe='')}")


def redirect(url: str) -> Response:
    """To a page that this browser alone may see now."""
    return RedirectResponse(url, 303, {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"})
