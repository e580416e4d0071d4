"""The page of ours around one of a job's: it says whose that is, and its URL is all that the browser shows. Pure.

A job's page by itself could show any URL of Airflow's, such as its login's, in the address bar: browsers let a document
of a sandbox do so (HTML Standard, "can have its URL rewritten"). In a frame it has no address bar.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote, urlsplit

from practicus_provider.links import UI_PREFIX, base_path, cluster_path, dashboard_path
from practicus_provider.plugins.ticket import Ticket
from practicus_provider.proxy.content import SANDBOX, sources

STYLE = """
html, body { height: 100%; margin: 0 }
body { display: flex; flex-direction: column; font: 14px/1.4 system-ui, sans-serif; color-scheme: light dark }
header { display: flex; flex-wrap: wrap; gap: .2em 1.2em; padding: .4em .8em; border-bottom: 2px solid #888 }
header a { color: inherit }
header span { overflow-wrap: anywhere }
iframe { flex: 1; border: 0; background: #fff }
"""
SCRIPT = """
addEventListener("message", ({source, data}) => {
  if (source !== frames[0] || typeof data?.practicusAt !== "string") return;
  const url = new URL(location);
  url.searchParams.set("at", data.practicusAt.slice(0, 2000));
  history.replaceState(null, "", url);
});
"""
"""Keeps where the framed page is in this one's URL, for a reload or a bookmark. What it is told may be anything."""


def page_of(ticket: Ticket, task: Mapping[str, object], at: str, inside: str) -> str:
    """The page.

    :param task: the task instance that the cluster is of.
    :param at: where the framed page begins, below ``inside``.
    :param inside: the path of the ticket.
    """
    page = html.escape(f"{inside}/{within(at)}")
    back = f"{ticket.dag_id}, task {_task_name(task)}, run {task.get('run_id')}"
    where = cluster_path(ticket.dag_id, ticket.conn_id, ticket.cluster, namespace=ticket.namespace)
    title = html.escape(f"{ticket.label}: {ticket.dag_id}.{_task_name(task)}")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<link rel="icon" href="{base_path()}{UI_PREFIX}/static/icon.svg"><style>{STYLE}</style></head><body>'
        f"<header><strong>{html.escape(ticket.label)}</strong>"
        f'<span>DAG <a href="{html.escape(_task_path(task))}">{html.escape(back)}</a></span>'
        f'<span>cluster <a href="{html.escape(where)}">{html.escape(ticket.cluster)}</a></span>'
        "<span>This page is served by the job, not by Airflow.</span></header>"
        f'<iframe title="{title}" sandbox="{SANDBOX}" referrerpolicy="no-referrer" src="{page}"></iframe>'
        f"<script>{SCRIPT}</script></body></html>"
    )


def headers_of(hosts: Iterable[str], inside: str) -> dict[str, str]:
    """What has the browser frame that ticket's pages alone, and have nobody frame this one."""
    hosts = list(hosts)
    policy = (
        *("default-src 'none'", f"frame-src {' '.join(sources(hosts, f'{inside}/'))}"),
        f"img-src {' '.join(sources(hosts, f'{base_path()}{UI_PREFIX}/static/icon.svg'))}",
        *(f"style-src {_hash(STYLE)}", f"script-src {_hash(SCRIPT)}"),
        *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    )
    return {
        "Content-Security-Policy": "; ".join(policy),
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "no-store",
    }


def frame_path(ticket: Ticket, at: str = "") -> str:
    """Where the page around a ticket's is."""
    where = (ticket.dag_id, ticket.conn_id, ticket.cluster)
    return dashboard_path(*where, namespace=ticket.namespace, label=ticket.label, at=at or None)


def within(at: str) -> str:
    """A path that does not lead out of where it begins; empty if that one does."""
    path = unquote(urlsplit(f"/{at}").path).replace("\\", "/")
    is_inside = not {".", ".."} & set(path.split("/")) and path.isprintable()
    return quote(at.lstrip("/"), safe="/?#%&=+,;:@!$'()*~[]") if is_inside else ""


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _task_name(task: Mapping[str, object]) -> str:
    index = task.get("map_index")
    return f"{task.get('task_id')} [{index}]" if isinstance(index, int) and index >= 0 else f"{task.get('task_id')}"


def _task_path(task: Mapping[str, object]) -> str:
    dag, run, name = (quote(str(task.get(key, "")), safe="") for key in ("dag_id", "run_id", "task_id"))
    index = task.get("map_index")
    mapped = f"/mapped/{index}" if isinstance(index, int) and index >= 0 else ""
    return f"{base_path()}/dags/{dag}/runs/{run}/tasks/{name}{mapped}"
