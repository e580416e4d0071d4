"""The root Job of a cluster: which one a handle means, and how long it has run."""

from __future__ import annotations

from collections.abc import Mapping

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes.api import Api, Manifest
from practicus_provider.backends.kubernetes.facts import facts_of
from practicus_provider.backends.kubernetes.labels import CLUSTER, ROLE
from practicus_provider.backends.kubernetes.pod import time_of
from practicus_provider.errors import NotFound


async def root_of(api: Api, handle: Handle) -> Manifest:
    """As the server has it now.

    :raises NotFound: there is none, or another of its name.
    """
    root = await api.get("Job", handle.name)
    if root is None or root["metadata"]["uid"] != handle.uid:
        raise NotFound(f"there is no cluster {handle.name} ({handle.uid}) in namespace {api.namespace}")
    return root


def handle_of(root: Manifest) -> Handle:
    """What means that very root."""
    return Handle(root["metadata"]["name"], root["metadata"]["uid"])


def annotated(handle: Handle, annotations: Mapping[str, str]) -> Manifest:
    """A change of that very root; the server refuses it for another of its name."""
    return {"metadata": {"uid": handle.uid, "annotations": dict(annotations)}}


async def deciding_jobs(api: Api, root: Manifest) -> list[Manifest]:
    """The root and, where the role that decides has further parts, theirs."""
    roles = facts_of(root).deciding
    if len(roles) <= 1:
        return [root]
    found = await api.list("Job", labelSelector=f"{CLUSTER}={root['metadata']['name']},{ROLE} in ({','.join(roles)})")
    jobs: list[Manifest] = found["items"]
    return jobs


def age(api: Api, job: Manifest) -> float:
    """Seconds that its deadline has run."""
    started = job.get("status", {}).get("startTime")
    return api.now() - time_of(started) if started else 0.0


def ended_at(job: Manifest) -> str | None:
    """When its time to live began, well or not; None while it runs.

    Source: ``jobFinishTime`` in Kubernetes' ``pkg/controller/ttlafterfinished``. ``completionTime`` is a success's.
    """
    conditions = job.get("status", {}).get("conditions", ())
    ends = (one for one in conditions if one["type"] in ("Complete", "Failed") and one["status"] == "True")
    return next((str(one["lastTransitionTime"]) for one in ends), None)
