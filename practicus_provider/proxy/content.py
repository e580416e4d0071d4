"""What of a browser's request a replica sees, and what of its answer the browser does. Pure.

The replica runs a user's code and is not trusted. It sees nothing that Airflow's cookie or token is in, and of what it
answers only that comes through which says what the content is. The browser is told to keep the page in a sandbox, so
that its scripts do not act on Airflow as whoever looks at it.
"""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from urllib.parse import urljoin, urlsplit, urlunsplit

HOST = "localhost"
"""What replicas are told that they are called."""
ASKED = ("accept", "accept-language", "cache-control", "if-modified-since", "if-none-match", "range", "user-agent")
"""Headers of a request that reach the replica."""
ANSWERED = (
    *("accept-ranges", "cache-control", "content-disposition", "content-encoding", "content-language"),
    *("content-length", "content-range", "content-type", "etag", "expires", "last-modified"),
)
"""Headers of an answer that reach the browser; with ``location``, which is rewritten."""
SANDBOX = "allow-scripts allow-forms allow-downloads"
"""What a page of a job may do. Not: open windows, which have an address bar of their own; lead the window elsewhere;
ask in a dialog, which looks like the browser's; be of Airflow's origin."""
OPEN = {
    "Referrer-Policy": "no-referrer",
    # A sandboxed page is of no origin, so it reads even its own data across origins. The ticket is in the URL, no
    # cookie is looked at: whoever can ask may read.
    "Access-Control-Allow-Origin": "*",
}
OWN_PAGE = OPEN | {
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
}
"""Headers of a page of ours that stands where one of a job's would."""
PREFLIGHT = {"Access-Control-Allow-Methods": "GET, HEAD", "Access-Control-Allow-Headers": "*"}
STORAGE = b"""<script>
if (parent !== self) parent.postMessage({practicusAt: location.href.replace(/^.*?[/]pages[/][^/]*[/]/, "")}, "*");
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
"""Stands in for what a sandboxed page may not touch, and Spark's pages fail without; and tells the page around it where
it is, for that one's URL."""


def passed_on(headers: Iterable[tuple[str, str]], prefix: str) -> list[tuple[str, str]]:
    """The headers that a replica gets for a request; Spark and others make their links with what we add."""
    kept = [(name, value) for name, value in headers if name.lower() in ASKED]
    told = [("host", HOST), ("accept-encoding", "identity")]
    return [*kept, *told, ("x-forwarded-context", prefix), ("x-forwarded-prefix", prefix)]


def kept_apart(hosts: Iterable[str], prefix: str) -> dict[str, str]:
    """The headers that have a browser keep a page of a job in a sandbox, in a frame of ours, and load nothing but what
    is below its ticket's path: nothing of Airflow's, of another job's page, or of anybody else.

    :param hosts: by which the browser may know Airflow, with their ports.
    """
    own = " ".join(sources(hosts, f"{prefix}/", "", "ws://", "wss://"))
    policy = (
        *(f"sandbox {SANDBOX}", f"default-src {own} data: blob: 'unsafe-inline' 'unsafe-eval'"),
        *(f"form-action {own}", f"base-uri {own}", "frame-ancestors 'self'"),
    )
    return OPEN | {"Content-Security-Policy": "; ".join(policy)}


def sources(hosts: Iterable[str], path: str, *schemes: str) -> list[str]:
    """What a Content-Security-Policy calls a path of Airflow's; ``'self'`` would be all of its paths.

    A host is that of the ``Host`` header, which is the browser's own, or of ``[api] base_url``. One that a policy
    cannot name, such as an address of IPv6 (CSP 3, 2.3.1), is any: the path is kept in any case.
    """
    named = sorted({host if HOSTS.fullmatch(host) else "*:*" for host in hosts}) or ["*:*"]
    return [f"{scheme}{host}{path}" for host in named for scheme in schemes or ("",)]


HOSTS = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?")


def shown(headers: Iterable[tuple[str, str]], prefix: str, path: str) -> dict[str, str]:
    """The headers that a browser gets with an answer, beside those of :func:`kept_apart`.

    :param path: that was asked for, as the replica knows it.
    """
    found = dict(headers)
    kept = {name: value for name, value in found.items() if name in ANSWERED}
    if "location" in found:
        kept["location"] = moved(found["location"], prefix, path)
    return kept


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
    return status, {"content-type": "text/html; charset=utf-8", "content-length": str(len(page))} | OWN_PAGE, page


def moved(location: str, prefix: str, path: str) -> str:
    """Where a redirection leads, as the browser sees it: elsewhere, or below the page's own path. A policy would let it
    through, because once there was a redirection it no longer looks at paths (CSP 3, 6.7.2.9).
    """
    parts = urlsplit(location.replace("\\", "/"))
    if parts.netloc and parts.hostname != HOST:
        return location
    to = parts.path.removeprefix(prefix) if parts.path.startswith(f"{prefix}/") else parts.path
    to = to or "/" if parts.netloc else to
    # As browsers read them, a dot may be written as an escape (URL Standard, "double-dot path segment").
    inner = urljoin(path, urlunsplit(("", "", DOT.sub(".", to), parts.query, parts.fragment)))
    return f"{prefix}/{inner.lstrip('/')}"


DOT = re.compile("%2e", re.IGNORECASE)


async def with_storage(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """An HTML page, with :data:`STORAGE` first in its head."""
    done = False
    async for chunk in chunks:
        if not done and (found := chunk.lower().find(b"<head>")) >= 0:
            at = found + len(b"<head>")
            chunk, done = chunk[:at] + STORAGE + chunk[at:], True
        yield chunk
