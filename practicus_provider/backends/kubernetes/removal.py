"""The end of a cluster: its root is deleted, and all that it owns goes before it does."""

from __future__ import annotations

import asyncio
import contextlib

from practicus_provider.aiotasks import stop
from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes.api import Api, ApiError, Manifest
from practicus_provider.backends.kubernetes.labels import NETWORK
from practicus_provider.backends.kubernetes.pod import Pod
from practicus_provider.backends.kubernetes.pod_template import GRACE, LAUNCHER_GRACE
from practicus_provider.backends.kubernetes.roots import handle_of
from practicus_provider.errors import BackendError

GONE_PATIENCE = 60.0
"""Seconds after which what was deleted should be gone."""
GONE_RETRY = 0.5
"""Seconds before it is looked for again, where the watch of it was cut."""
LOST_POLL = 5.0
"""Seconds between two looks for pods that nobody will ever report gone, as their nodes do not answer."""


async def end(api: Api, handle: Handle) -> None:
    """Delete a root; the server then sees to all that it owns. Another of its name is left alone."""
    try:
        await api.delete("Job", handle.name, propagationPolicy="Foreground", preconditions={"uid": handle.uid})
    except ApiError as error:
        if error.reason != "Conflict":
            raise


async def remove(api: Api, root: Manifest) -> None:
    """Delete it, and wait until nothing that it owns is left.

    :raises BackendError: something still is after :data:`GONE_PATIENCE`.
    """
    meta = root["metadata"]
    await end(api, handle_of(root))
    giving_up = asyncio.create_task(_give_up_lost(api, meta["labels"][NETWORK]))
    try:
        async with asyncio.timeout(GONE_PATIENCE):
            await _gone(api, root)
    except TimeoutError as error:
        raise BackendError(f"cluster {meta['name']} is deleted, but not gone after {GONE_PATIENCE:g} s") from error
    finally:
        await stop(giving_up)


async def _gone(api: Api, root: Manifest) -> None:
    """Wait until that very root is, which goes last."""
    name, uid = root["metadata"]["name"], root["metadata"]["uid"]
    while (found := await api.get("Job", name)) and found["metadata"]["uid"] == uid:
        since = {"fieldSelector": f"metadata.name={name}", "resourceVersion": found["metadata"]["resourceVersion"]}
        with contextlib.suppress(OSError, ApiError):  # a watch that is refused or cut: look again
            async with api.watch("Job", silence=GONE_PATIENCE, **since) as events:
                async for event in events:
                    if event["type"] == "DELETED":
                        return
        await asyncio.sleep(GONE_RETRY)


async def _give_up_lost(api: Api, network: str) -> None:
    """Delete for good the pods on nodes that do not answer, whose cluster's name would be taken until those do.

    The kubelet of such a node, should it live, ends them when it hears of it again.
    """
    await asyncio.sleep(GRACE + LAUNCHER_GRACE)
    while True:
        await asyncio.sleep(LOST_POLL)
        with contextlib.suppress(BackendError):
            for pod in map(Pod, (await api.list("Pod", labelSelector=f"{NETWORK}={network}"))["items"]):
                if pod.lost(api.now()):
                    await api.delete("Pod", pod.name, gracePeriodSeconds=0, preconditions={"uid": pod.uid})
