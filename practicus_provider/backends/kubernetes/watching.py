"""A cluster watched to its end by the mirror of its namespace, with what only the logs of its pods hold."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from collections.abc import AsyncIterator, Collection
from dataclasses import replace

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes.api import Api
from practicus_provider.backends.kubernetes.causes import lacking
from practicus_provider.backends.kubernetes.facts import facts_of
from practicus_provider.backends.kubernetes.following import following
from practicus_provider.backends.kubernetes.labels import TOLD
from practicus_provider.backends.kubernetes.logs import LAST_PATIENCE, tail
from practicus_provider.backends.kubernetes.mirror import Mirror
from practicus_provider.backends.kubernetes.observe import Observation
from practicus_provider.backends.kubernetes.pod import Pod
from practicus_provider.backends.kubernetes.roots import annotated, root_of
from practicus_provider.errors import BackendError
from practicus_provider.overdue import with_last_lines
from practicus_provider.runtime.practicus_runtime.contract import RESULT_MARK
from practicus_provider.status import Reason, State, Status, Verdict, with_tail
from practicus_provider.tail import LINES_READ

DELETED = Verdict(State.CANCELLED, Reason.DELETED, "the cluster was deleted")


async def observations(mirror: Mirror, handle: Handle) -> AsyncIterator[Observation]:
    """What the mirror shows of a cluster, now and at each change; the last one is final."""
    seen = False
    with following(mirror, handle.name) as looks, looks.changes() as changed:
        while True:
            wakes = math.inf
            changed.clear()
            mirror.check()
            root = mirror.job(handle.name)
            here = root is not None and root["metadata"]["uid"] == handle.uid
            if not here and not seen:
                await root_of(mirror.api, handle)  # it may be newer than the mirror
            elif root is None or not here or "deletionTimestamp" in root["metadata"]:
                yield Observation(Status(State.CANCELLED, verdict=DELETED))
                return
            else:
                seen = True
                observation = await looks.look(root)
                if not await _suspended(mirror.api, handle, observation):
                    wakes = looks.wakes  # also if that passes while this is taken
                    yield observation
                    if observation.status.state.final:
                        return
            await looks.changed(changed, wakes)


async def _suspended(api: Api, handle: Handle, observation: Observation) -> bool:
    """Whether a failure is that of a pod which goes because somebody has suspended the root.

    The watch of pods may be ahead of that of Jobs.
    """
    failed = observation.failed
    if failed is None or not failed.leaving or not observation.status.state.final:
        return False
    return bool((await root_of(api, handle))["spec"].get("suspend"))


async def dispose(mirror: Mirror, handle: Handle, done: Collection[Pod], disposed: set[str]) -> None:
    """Delete pods that have said all: the kubelet then looks at their containers, and tells of their exit codes, at
    once, where it would notice by itself within a second (its pod lifecycle event generator's period).

    What they said is kept first: whoever watches next, should we die now, has it from nowhere else.
    """
    if all(pod.uid in disposed for pod in done):
        return
    disposed.update(pod.uid for pod in done)
    with contextlib.suppress(BackendError):
        words = json.dumps({pod: words.to_json() for pod, words in mirror.told(handle.name).items()})
        await mirror.api.patch("Job", handle.name, annotated(handle, {TOLD: words}))
        await asyncio.gather(*(mirror.api.delete("Pod", pod.name, preconditions={"uid": pod.uid}) for pod in done))


async def final(mirror: Mirror, handle: Handle, observation: Observation) -> Status:
    """With what only the logs hold: the last lines of a failure, a long result."""
    status, api = observation.status, mirror.api
    if observation.late and status.verdict is not None:
        pods = observation.late.items()
        tails = {name: await tail(api, pod.name, pod.uid, LINES_READ, pod.log_container) for name, pod in pods}
        return replace(status, verdict=with_last_lines(status.verdict, tails))
    if observation.failed is not None and status.verdict is not None:
        failed = observation.failed
        lines = await tail(api, failed.name, failed.uid, LINES_READ, failed.log_container)
        root = mirror.job(handle.name)
        lacks = lacking(failed, facts_of(root)) if root else {}
        return replace(status, verdict=with_tail(status.verdict, lines, lacks))
    if observation.result_in is not None:
        pod, count = observation.result_in
        read = await tail(api, pod.name, pod.uid, count, patience=LAST_PATIENCE)
        lines = [line for line in read if line.startswith(RESULT_MARK)]
        if len(lines) != count:
            raise BackendError(
                f"the result of {pod.name} is lost: its log cannot be read, or was rotated before it was"
            )
        return replace(status, result="".join(line.removeprefix(RESULT_MARK) for line in lines))
    return status
