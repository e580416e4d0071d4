"""Clusters as the server has them now, for who has no mirror."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from practicus_provider.backends.base import Listing
from practicus_provider.backends.kubernetes.api import Api, Manifest
from practicus_provider.backends.kubernetes.census import BATCH, Census
from practicus_provider.backends.kubernetes.facts import Unreadable, facts_of, task_of
from practicus_provider.backends.kubernetes.labels import CLUSTER, FACTS, RELEASED, cluster_of
from practicus_provider.backends.kubernetes.mirror import SELECTOR
from practicus_provider.backends.kubernetes.observe import observed
from practicus_provider.backends.kubernetes.pod import time_of
from practicus_provider.backends.kubernetes.roots import deciding_jobs, handle_of
from practicus_provider.errors import NotFound
from practicus_provider.status import Reason, State, Status


async def listings(api: Api) -> list[Listing]:
    """All clusters of the namespace but those that are over as nobody has watched them."""
    jobs, pods = await _all(api, "Job", SELECTOR), await _all(api, "Pod", SELECTOR)
    jobs_of, pods_of = _by_cluster(jobs), _by_cluster(pods)
    found = [await _described(root, pods_of[name], jobs_of[name]) for name, root in _roots(jobs)]
    return [one for one in found if one.status.verdict is None or one.status.verdict.reason is not Reason.ABANDONED]


async def listing(api: Api, name: str) -> Listing:
    """One cluster.

    :raises NotFound: there is none.
    """
    root = await api.get("Job", name)
    if root is None or not _is_root(root):
        raise NotFound(f"there is no cluster {name} in namespace {api.namespace}")
    try:
        jobs = await deciding_jobs(api, root)
    except Unreadable:
        jobs = [root]
    return await _described(root, await _pods_of(api, root), jobs)


async def status_of(api: Api, root: Manifest) -> Status:
    """How a root's cluster is."""
    pods, jobs = await asyncio.gather(_pods_of(api, root), deciding_jobs(api, root))
    return await _status(root, pods, jobs)


async def _pods_of(api: Api, root: Manifest) -> list[Manifest]:
    return await _all(api, "Pod", f"{CLUSTER}={root['metadata']['name']}")


async def _all(api: Api, kind: str, selector: str) -> list[Manifest]:
    return [item async for page in api.pages(kind, labelSelector=selector) for item in page["items"]]


async def _status(root: Manifest, pods: Iterable[Manifest], jobs: Sequence[Manifest]) -> Status:
    """As :func:`observe` has it; of thousands of pods some are read at a time, so that others have their turn."""
    census = Census(root)
    for number, pod in enumerate(pods, 1):
        census.put(pod)
        if number % BATCH == 0:
            await asyncio.sleep(0)
    return observed(census, jobs=jobs).status


def _roots(jobs: Iterable[Manifest]) -> Iterator[tuple[str, Manifest]]:
    yield from ((job["metadata"]["name"], job) for job in jobs if _is_root(job))


def _is_root(job: Manifest) -> bool:
    return FACTS in job["metadata"].get("annotations", {})


def _by_cluster(items: Iterable[Manifest]) -> defaultdict[str, list[Manifest]]:
    """Objects by the name of the cluster that they belong to."""
    found: defaultdict[str, list[Manifest]] = defaultdict(list)
    for item in items:
        found[cluster_of(item)].append(item)
    return found


async def _described(root: Manifest, pods: Iterable[Manifest], jobs: Sequence[Manifest]) -> Listing:
    """One cluster. What cannot be read of it is said of that one, and does not keep others from being listed: whoever
    may change objects of the namespace, or writes a pod's last words, may have done it."""
    try:
        facts, status = facts_of(root), await _status(root, pods, jobs)
    except Exception as error:
        trouble = str(error) if isinstance(error, Unreadable) else f"its objects cannot be read: {error!r}"
        return replace(_bare(root), task=task_of(root), trouble=trouble)
    return replace(
        _bare(root),
        status=status,
        task=facts.task,
        links=facts.links,
        adapter=facts.adapter,
        coordinator=facts.coordinator,
        resources={name: role.resources for name, role in facts.roles.items() if role.resources},
    )


def _bare(root: Manifest) -> Listing:
    """With what the server has written alone."""
    meta = root["metadata"]
    return Listing(
        handle_of(root),
        Status(State.UNKNOWN),
        {},
        created_at=time_of(meta["creationTimestamp"]),
        released=RELEASED in meta["annotations"],
        leaving="deletionTimestamp" in meta,
    )
