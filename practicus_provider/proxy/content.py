"""What of a browser's request a replica sees, and what of its answer the browser does. Pure.

The replica runs a user's code and is not trusted. It sees nothing that Airflow's cookie or token is in, and of what it
answers only that comes through which says what the content is. The browser is told to keep the page in a sandbox, so
that its scripts do not act on Airflow as whoever looks at it.
"""

from __future__ import annotations

import html
from collections.abc import AsyncIterator, Iterable, Mapping
from urllib.parse import urlsplit, urlunsplit

HOST = "localhost"
"""What replicas are told that they are called."""
ASKED = ("accept", "accept-language", "cache-control", "if-modified-since", "if-none-match", "range", "user-agent")
"""Headers of a request that reach the replica."""
ANSWERED = (
    *("accept-ranges", "cache-control", "content-disposition", "content-encoding", "content-language"),
    *("content-length", "content-range", "content-type", "etag", "expires", "last-modified"),
)
"""Headers of an answer that reach the browser; with ``location``, which is rewritten."""
SANDBOX = {
    "Content-Security-Policy": "sandbox allow-scripts allow-forms allow-popups allow-modals allow-downloads; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    # A sandboxed page is of no origin, so it reads even its own data across origins. The ticket is in the URL, no
    # cookie is looked at: whoever can ask may read.
    "Access-Control-Allow-Origin": "*",
}
PREFLIGHT = {"Access-Control-Allow-Methods": "GET, HEAD", "Access-Control-Allow-Headers": "*"}
STORAGE = b"""<script>
for (const name of ["localStorage", "sessionStorage"]) {
  const kept = new Map();
  Object.defineProperty(window, name, {value: {
    getItem: key => kept.has(String(key)) ? kept.get(String(key)) : null,
    setItem: (key, value) => { kept.set(String(key), String(value)); },
    removeItem: key => { kept.delete(String(key)); },
    clear: () => kept.clear(),
    key: index => [...kept.keys()][index] ?? null,
    get length() { return kept.size; },
  }});
}
</script>"""
"""Stands in for what a sandboxed page may not touch, and Spark's pages fail without."""


def passed_on(headers: Iterable[tuple[str, str]], prefix: str) -> list[tuple[str, str]]:
    """The headers that a replica gets for a request; Spark and others make their links with what we add."""
    kept = [(name, value) for name, value in headers if name.lower() in ASKED]
    told = [("host", HOST), ("accept-encoding", "identity")]
    return [*kept, *told, ("x-forwarded-context", prefix), ("x-forwarded-prefix", prefix)]


def shown(headers: Iterable[tuple[str, str]], prefix: str) -> dict[str, str]:
    """The headers that a browser gets with an answer."""
    found = dict(headers)
    kept = {name: value for name, value in found.items() if name in ANSWERED}
    if "location" in found:
        kept["location"] = moved(found["location"], prefix)
    return kept | SANDBOX


def compressible(method: str, asked: Iterable[tuple[str, str]], status: int, answered: Mapping[str, str]) -> bool:
    """Whether an answer should be compressed on its way, as Airflow's API server would do else."""
    takes = next((value for name, value in asked if name.lower() == "accept-encoding"), "")
    has_body = method != "HEAD" and status not in (204, 206, 304)
    return "gzip" in takes and has_body and "content-encoding" not in answered


def message(status: int, title: str, words: str) -> tuple[int, dict[str, str], bytes]:
    """A page of our own that says what went wrong: its status, headers and body."""
    style = "body { font-family: sans-serif; margin: 10% auto; max-width: 40em }"
    page = (
        f"<!doctype html><title>{html.escape(title)}</title><style>{style}</style>"
        f"<h1>{html.escape(title)}</h1><p>{html.escape(words)}</p>"
    ).encode()
    return status, {"content-type": "text/html; charset=utf-8", "content-length": str(len(page))} | SANDBOX, page


def moved(location: str, prefix: str) -> str:
    """Where a redirection leads, as the browser sees it."""
    parts = urlsplit(location)
    if parts.netloc and parts.hostname != HOST:
        return location
    path = parts.path or "/" if parts.netloc else parts.path
    if path.startswith("/") and not path.startswith(f"{prefix}/"):
        path = prefix + path
    return urlunsplit(("", "", path, parts.query, parts.fragment))


async def with_storage(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """An HTML page, with :data:`STORAGE` first in its head."""
    done = False
    async for chunk in chunks:
        if not done and (found := chunk.lower().find(b"<head>")) >= 0:
            at = found + len(b"<head>")
            chunk, done = chunk[:at] + STORAGE + chunk[at:], True
        yield chunk
