"""Listings as the page *Clusters* gets them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from practicus_provider.backends.base import Listing, Usage
from practicus_provider.links import dashboard_path
from practicus_provider.plugins.board import Look, Place
from practicus_provider.pricing import Meter, cost
from practicus_provider.status import ReplicaStatus

TASK = ("dag_id", "run_id", "task_id", "map_index", "try_number")


def dag_of(listing: Listing) -> str:
    """The DAG that a cluster says it is of."""
    return str(listing.task.get("dag_id", ""))


def rows_of(looks: Mapping[Place, Look]) -> list[dict[str, Any]]:
    """A row for each cluster, the newest first; where several connections lead to it, that of the first of them."""
    rows = [row_of(place, listing, look) for place, look in looks.items() for listing in look.listings]
    once = {(row["uid"], row["cluster"]): row for row in reversed(rows)}
    return sorted(once.values(), key=lambda row: -row["created_at"])


def row_of(place: Place, listing: Listing, look: Look) -> dict[str, Any]:
    """One cluster, as JSON.

    ``replicas`` are role -> the states of its replicas, ``cpu`` in cores and ``memory`` in bytes what those use that
    are measured, or None; ``cost`` is what the replicas that are there have cost, or None; ``created_at`` is in seconds
    since the epoch.
    """
    states = dict[str, list[str]]()
    usage = _usage(listing, look)
    for replica in listing.status.replicas:
        states.setdefault(replica.role, []).append(str(replica.state))
    return {
        "cluster": listing.handle.name,
        "uid": listing.handle.uid,
        "connection": place.conn_id,
        "namespace": place.namespace,
        **{name: listing.task.get(name) for name in TASK},
        "adapter": listing.adapter,
        "state": str(listing.state),
        "released": listing.released,
        "leaving": listing.leaving,
        "created_at": listing.created_at,
        "replicas": states,
        "cpu": sum(used.cpu for used in usage.values()) if usage else None,
        "memory": sum(used.memory for used in usage.values()) if usage else None,
        "cost": _cost(listing, look),
        "verdict": _verdict(listing),
    }


def page_of(place: Place, listing: Listing, look: Look) -> dict[str, Any]:
    """One cluster with all of its replicas, the role whose log is the job's, and the web pages that it serves: label ->
    where they are."""
    where, usage = (dag_of(listing), place.conn_id, listing.handle.name), _usage(listing, look)
    return {
        **row_of(place, listing, look),
        "coordinator": listing.coordinator,
        "replicas": [_replica(replica, usage.get(replica.name)) for replica in listing.status.replicas],
        "links": {label: dashboard_path(*where, namespace=place.namespace, label=label) for label in listing.links},
    }


def _verdict(listing: Listing) -> dict[str, Any] | None:
    """Why it ended, or why nothing is known of it."""
    verdict = listing.status.verdict
    if listing.trouble:
        return {"reason": "unreadable", "message": listing.trouble, "advice": ""}
    return {name: getattr(verdict, name) for name in ("reason", "message", "advice")} if verdict else None


def _usage(listing: Listing, look: Look) -> Mapping[str, Usage]:
    return (look.usage or {}).get(listing.handle.name, {})


def _cost(listing: Listing, look: Look) -> dict[str, Any] | None:
    """Of the replicas that are there: of those that are gone nobody knows here."""
    if look.pricing is None or not listing.resources:
        return None
    meter = Meter()
    meter.see(listing.status.replicas, look.at)
    return cost(look.pricing.tariff(listing.resources), meter.seconds(look.at))


def _replica(replica: ReplicaStatus, used: Usage | None) -> dict[str, Any]:
    return {
        "name": replica.name,
        "role": replica.role,
        "index": replica.index,
        "state": str(replica.state),
        "detail": replica.detail,
        "exit_code": replica.exit_code,
        "signal": replica.signal,
        "started_at": replica.started_at,
        "cpu": used.cpu if used else None,
        "memory": used.memory if used else None,
    }
