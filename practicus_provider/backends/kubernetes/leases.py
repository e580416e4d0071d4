"""How long a cluster may outlive whoever follows it: the deadline of what decides. The Job controller enforces it, so a
lease needs nothing of ours to be alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from practicus_provider.aiotasks import stop
from practicus_provider.backends.base import Handle, Lease
from practicus_provider.backends.kubernetes.api import Api, Manifest, connected
from practicus_provider.backends.kubernetes.facts import facts_of, with_lease
from practicus_provider.backends.kubernetes.labels import FACTS, RELEASED
from practicus_provider.backends.kubernetes.mirror import Mirror
from practicus_provider.backends.kubernetes.render import LEASE_LEAST
from practicus_provider.backends.kubernetes.roots import age, annotated, deciding_jobs, handle_of, root_of
from practicus_provider.errors import BackendError, NotFound

log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def leased(mirror: Mirror, handle: Handle, lease: Lease) -> AsyncIterator[None]:
    """While somebody watches, the deadline of what decides moves on ahead of the lease; at the end the lease's time
    runs."""
    root = mirror.job(handle.name)
    if lease not in (None, "keep") or root is None or root["metadata"]["uid"] != handle.uid or not _unleased(root):
        root = await root_of(mirror.api, handle)
    facts = facts_of(root)
    seconds = facts.lease if lease == "keep" else lease
    if lease != "keep" and lease != facts.lease:
        await mirror.api.patch("Job", handle.name, annotated(handle, {FACTS: with_lease(root, lease)}))
    if seconds is None:
        if not _unleased(root):
            await _extend(mirror.api, handle, facts.timeout, math.inf)
        yield
        return
    ahead = max(LEASE_LEAST, seconds)
    await _extend(mirror.api, handle, facts.timeout, ahead)
    renewing = asyncio.create_task(_renew(mirror.api, handle, facts.timeout, ahead))
    try:
        yield
    except BaseException:  # it was not followed to its end
        await part(mirror, handle, lambda api: _extend(api, handle, facts.timeout, ahead))
        raise
    finally:
        await stop(renewing)


async def part(mirror: Mirror, handle: Handle, last: Callable[[Api], Awaitable[None]]) -> None:
    """Last words, by a connection of their own: where a whole event loop ends, the mirror's may be closed already."""
    try:
        async with connected(mirror.access, mirror.namespace) as api:
            await last(api)
    except BackendError as error:
        log.warning("what was seen last of cluster %s cannot be told to it: %s", handle.name, error)


async def _renew(api: Api, handle: Handle, most: float, ahead: float) -> None:
    ends = time.monotonic() + ahead
    while True:
        await asyncio.sleep(ahead / 3)
        try:
            async with asyncio.timeout(ahead):  # a plugin for credentials may take a while, and is not to be cut off
                await _extend(api, handle, most, ahead)
            ends = time.monotonic() + ahead
        except Exception as error:  # whatever it is, it is tried again: the job's life hangs on it
            left = max(0.0, ends - time.monotonic())
            why = "the API server does not answer" if isinstance(error, TimeoutError) else str(error) or repr(error)
            log.warning("the lease of cluster %s cannot be renewed; it ends in %.0f s: %s", handle.name, left, why)


async def _extend(api: Api, handle: Handle, most: float, ahead: float) -> None:
    """Let what decides live that many seconds from now, and ``most`` in all."""
    with contextlib.suppress(NotFound):
        root = await root_of(api, handle)
        if RELEASED in root["metadata"]["annotations"]:
            return
        for job in await deciding_jobs(api, root):
            if not job.get("status", {}).get("completionTime"):
                deadline = max(1, math.ceil(min(most, age(api, job) + ahead)))
                change = {**annotated(handle_of(job), {}), "spec": {"activeDeadlineSeconds": deadline}}
                await api.patch("Job", job["metadata"]["name"], change)


def _unleased(root: Manifest) -> bool:
    """Whether it lives until its timeout, whoever watches: who begins to need not ask the server for anything."""
    facts = facts_of(root)
    return facts.lease is None and root["spec"]["activeDeadlineSeconds"] == math.ceil(facts.timeout)
