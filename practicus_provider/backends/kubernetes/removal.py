"""The end of a cluster: its root is deleted, and all that it owns goes before it does."""

from __future__ import annotations

import asyncio
import contextlib

from practicus_provider.aiotasks import stop
from practicus_provider.backends.kubernetes.api import Api, ApiError, Manifest
from practicus_provider.backends.kubernetes.labels import CLUSTER, NETWORK
from practicus_provider.backends.kubernetes.pod import Pod
from practicus_provider.backends.kubernetes.pod_template import GRACE, KUBERNETES_GRACE, LAUNCHER_GRACE
from practicus_provider.backends.kubernetes.render import short
from practicus_provider.errors import BackendError

GONE_PATIENCE = 60.0
"""Seconds after which what was deleted should be gone."""
GONE_RETRY = 0.5
"""Seconds before it is looked for again, where the watch of it was cut."""
LOST_POLL = 5.0
"""Seconds between two looks for pods that nobody will ever report gone, as their nodes do not answer."""


async def end(api: Api, root: Manifest) -> None:
    """Delete a root; the server then sees to all that it owns. Another of its name is left alone.

    What its replicas have started may have lost the cluster's labels and its owner. It is known by its service account,
    which a pod cannot change, and goes too; the right to start more is taken away before, so that none comes after.
    """
    meta = root["metadata"]
    started_pods = await _revoke(api, root)
    try:
        await api.delete("Job", meta["name"], propagationPolicy="Foreground", preconditions={"uid": meta["uid"]})
    except ApiError as error:
        if error.reason != "Conflict":
            raise
        return
    if started_pods:
        await _delete_started(api, root)


async def remove(api: Api, root: Manifest) -> None:
    """Delete it, and wait until nothing that it owns is left.

    :raises BackendError: something still is after :data:`GONE_PATIENCE`; the message says which pods, and why.
    """
    meta = root["metadata"]
    await end(api, root)
    giving_up = asyncio.create_task(_give_up_lost(api, meta["labels"][NETWORK]))
    try:
        async with asyncio.timeout(GONE_PATIENCE):
            await _gone(api, root)
            while await _has_started(api, root):
                await _delete_started(api, root)
                await asyncio.sleep(GONE_RETRY)
    except TimeoutError as error:
        left = await _left(api, root)
        why = f": {'; '.join(map(_why_left, left))}" if left else ""
        raise BackendError(f"cluster {meta['name']} is deleted, but not gone after {GONE_PATIENCE:g} s{why}") from error
    finally:
        await stop(giving_up)


async def _revoke(api: Api, root: Manifest) -> bool:
    """Take from its replicas the right to start pods; whether they had it, in a Role that is that very root's."""
    own = {"op": "test", "path": "/metadata/ownerReferences/0/uid", "value": root["metadata"]["uid"]}
    nothing: Manifest = {"op": "replace", "path": "/rules", "value": []}
    try:
        return await api.patch_if("Role", short(root["metadata"]["name"]), [own, nothing])
    except ApiError as error:
        if error.status != 403:
            raise
        return False  # who only shows clusters may delete roots, and no more


def _account(root: Manifest) -> str:
    """Which pods are of the cluster, whatever else they say."""
    return f"spec.serviceAccountName={short(root['metadata']['name'])}"


async def _has_started(api: Api, root: Manifest) -> bool:
    """Whether pods of its account are left; of thousands one is enough to know."""
    return bool((await api.list("Pod", fieldSelector=_account(root), limit="1"))["items"])


async def _delete_started(api: Api, root: Manifest) -> None:
    """With as long to end as the cluster's own pods have, whatever they ask for."""
    grace = root["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", KUBERNETES_GRACE)
    await api.delete_all("Pod", _account(root), gracePeriodSeconds=grace)


async def _left(api: Api, root: Manifest) -> list[Manifest]:
    """Pods that are the cluster's by their account, their owner or their labels."""
    meta = root["metadata"]
    with contextlib.suppress(BackendError):
        return [
            pod
            for pod in (await api.list("Pod"))["items"]
            if pod["spec"].get("serviceAccountName") == short(meta["name"])
            or meta["uid"] in (owner["uid"] for owner in pod["metadata"].get("ownerReferences", ()))
            or pod["metadata"].get("labels", {}).get(CLUSTER) == meta["name"]
        ]
    return []


def _why_left(pod: Manifest) -> str:
    meta = pod["metadata"]
    if finalizers := meta.get("finalizers"):
        return f"pod {meta['name']} has the finalizers {', '.join(finalizers)}, which somebody has to remove"
    return f"pod {meta['name']} has not ended"


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
