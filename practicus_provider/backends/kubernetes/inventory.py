"""Clusters as the server has them now, for who has no mirror."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable

from practicus_provider.backends.base import Listing
from practicus_provider.backends.kubernetes.api import Api, Manifest
from practicus_provider.backends.kubernetes.labels import CLUSTER, FACTS, RELEASED, cluster_of
from practicus_provider.backends.kubernetes.mirror import SELECTOR
from practicus_provider.backends.kubernetes.observe import facts_of, observe
from practicus_provider.backends.kubernetes.pod import time_of
from practicus_provider.backends.kubernetes.roots import deciding_jobs, handle_of
from practicus_provider.errors import NotFound
from practicus_provider.plan import Port
from practicus_provider.spec import Resources
from practicus_provider.status import Reason, Status


async def listings(api: Api) -> list[Listing]:
    """All clusters of the namespace but those that are over as nobody has watched them."""
    jobs = (await api.list("Job", labelSelector=SELECTOR))["items"]
    pods = (await api.list("Pod", labelSelector=SELECTOR))["items"]
    jobs_of, pods_of = _by_cluster(jobs), _by_cluster(pods)
    found = []
    for root in filter(_is_root, jobs):
        name = root["metadata"]["name"]
        status = observe(root, pods_of[name], jobs=jobs_of[name]).status
        if status.verdict is None or status.verdict.reason is not Reason.ABANDONED:
            found.append(_listing(root, status))
    return found


async def listing(api: Api, name: str) -> Listing:
    """One cluster.

    :raises NotFound: there is none.
    """
    root = await api.get("Job", name)
    if root is None or not _is_root(root):
        raise NotFound(f"there is no cluster {name} in namespace {api.namespace}")
    return _listing(root, await status_of(api, root))


async def status_of(api: Api, root: Manifest) -> Status:
    """How a root's cluster is."""
    own = f"{CLUSTER}={root['metadata']['name']}"
    pods, jobs = await asyncio.gather(api.list("Pod", labelSelector=own), deciding_jobs(api, root))
    return observe(root, pods["items"], jobs=jobs).status


def _is_root(job: Manifest) -> bool:
    return FACTS in job["metadata"].get("annotations", {})


def _by_cluster(items: Iterable[Manifest]) -> defaultdict[str, list[Manifest]]:
    """Objects by the name of the cluster that they belong to."""
    found: defaultdict[str, list[Manifest]] = defaultdict(list)
    for item in items:
        found[cluster_of(item)].append(item)
    return found


def _listing(root: Manifest, status: Status) -> Listing:
    facts = facts_of(root)
    links = {label: Port(role, name) for label, (role, name) in facts["links"].items()}
    meta = root["metadata"]
    fields = ("cpu", "memory", "gpu")
    resources = {
        name: Resources(**{field: role[field] for field in fields})
        for name, role in facts["roles"].items()
        if "cpu" in role
    }
    return Listing(
        handle_of(root),
        status,
        facts["task"],
        created_at=time_of(meta["creationTimestamp"]),
        released=RELEASED in meta["annotations"],
        leaving="deletionTimestamp" in meta,
        links=links,
        adapter=facts["adapter"],
        coordinator=facts["decides"] or next(iter(facts["roles"])),
        resources=resources,
    )
