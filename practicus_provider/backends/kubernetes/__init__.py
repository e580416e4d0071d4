"""Replicas as pods of one namespace, by core APIs alone: no CRD, no operator, no cluster-admin.

See :mod:`.render` for a cluster's objects. Nothing of ours runs in the cluster but the replicas themselves: the root
Job's deadline, its time to live and ownership end what we do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import secrets
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from practicus_provider.backends.base import Backend, Connection, Handle, Lease, Listing, LogLine, Usage, cleared_since
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.advice import advice
from practicus_provider.backends.kubernetes.api import Api, ApiError, Manifest, connected, segment
from practicus_provider.backends.kubernetes.facts import Unreadable, cursor_of, facts_of, told_by
from practicus_provider.backends.kubernetes.forward import PROTOCOL, PortForward
from practicus_provider.backends.kubernetes.inventory import listing, listings, status_of
from practicus_provider.backends.kubernetes.labels import (
    CLUSTER,
    COMPLETE,
    CURSOR,
    DIGEST,
    FACTS,
    MANAGED,
    RELEASED,
    ROLE,
)
from practicus_provider.backends.kubernetes.leases import leased, part
from practicus_provider.backends.kubernetes.logs import Reader
from practicus_provider.backends.kubernetes.metrics import usage_of
from practicus_provider.backends.kubernetes.mirror import SELECTOR, api_of, mirror_of
from practicus_provider.backends.kubernetes.pod import Pod, time_of
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.quota import exceeded
from practicus_provider.backends.kubernetes.rbac import NEEDED, OPTIONAL
from practicus_provider.backends.kubernetes.removal import end, remove
from practicus_provider.backends.kubernetes.render import Manifests, render
from practicus_provider.backends.kubernetes.roots import age, annotated, ended_at, handle_of, root_of
from practicus_provider.backends.kubernetes.watching import dispose, final, observations
from practicus_provider.errors import BackendError, NotFound, ReplicaError
from practicus_provider.plan import Plan, Port
from practicus_provider.pricing import Pricing
from practicus_provider.status import State, Status

CREATE_PATIENCE = 30.0
"""Seconds that the API server may be out of reach as a cluster is made: a restart's time."""


@dataclass(frozen=True)
class KubernetesBackend(Backend):
    """:class:`~practicus_provider.backends.base.Backend` on Kubernetes.

    :param access: how the API server is reached.
    :param site: where and how pods run.
    :param pricing: what they cost.
    """

    access: Access
    site: Site
    pricing: Pricing | None = None
    name: ClassVar[str] = "kubernetes"
    pods: ClassVar[bool] = True

    def session(self) -> AbstractAsyncContextManager[object]:
        """See :meth:`Backend.session`. What is shared is the mirror, and its connection."""
        return mirror_of(self.access, self.site.namespace)

    async def create(
        self,
        name: str,
        plan: Plan,
        *,
        task: Mapping[str, Any],
        lease: float | None = None,
        parent: Handle | None = None,
    ) -> Handle:
        """See :meth:`Backend.create`. The root comes first, suspended; it starts once all else is there."""
        async with connected(self.access, self.site.namespace, CREATE_PATIENCE) as api:
            above = await root_of(api, parent) if parent else None
            manifests = render(name, plan, self.site, task, lease=lease, parent=above)
            while True:
                try:
                    root = await api.create(manifests.root)
                except ApiError as error:
                    if error.reason != "AlreadyExists":
                        raise
                    found = await api.get("Job", name)
                    if found is None:
                        continue
                    if not await self._adoptable(api, found, manifests):
                        await remove(api, found)
                        continue
                    root = found
                if _half_made(root):
                    await self._start(api, root, manifests)
                return handle_of(root)

    async def watch(
        self, handle: Handle, *, lease: Lease = "keep", disposable: bool = False
    ) -> AsyncGenerator[Status, None]:
        """See :meth:`Backend.watch`. It reads the mirror that all watchers of the namespace share."""
        async with mirror_of(self.access, self.site.namespace) as mirror, leased(mirror, handle, lease):
            last: Status | None = None
            disposed: set[str] = set()
            async for observation in observations(mirror, handle):
                if disposable:
                    await dispose(mirror, handle, observation.done, disposed)
                if observation.status.state.final:
                    yield await final(mirror, handle, observation)
                    return
                if observation.status != last:
                    yield observation.status
                last = observation.status

    async def logs(
        self, handle: Handle, sources: Collection[str], *, whole: bool = False
    ) -> AsyncGenerator[LogLine, None]:
        """See :meth:`Backend.logs`."""
        async with mirror_of(self.access, self.site.namespace) as mirror:
            root = await root_of(mirror.api, handle)
            before, over = ({}, {}) if whole else (cursor_of(root), told_by(root))
            cursor = dict(before)
            reader = Reader(mirror, handle, sources, before, over)
            try:
                async with contextlib.aclosing(reader.read(observations(mirror, handle))) as found:
                    async for read in found:
                        cursor[read.pod] = read.place
                        if read.line is not None:
                            yield read.line
                        elif not whole:  # all its lines are with whoever follows: that end may be kept
                            mirror.tell(handle.name, read.pod, read.last_words)
            except BaseException:  # whoever comes next goes on from there
                if cursor != before and not whole:
                    await part(mirror, handle, lambda api: _remember(api, handle, cursor))
                raise
            now = mirror.job(handle.name)
            kept = told_by(now) if now else {}
            if not whole and any(place != before.get(pod) for pod, place in cursor.items() if pod not in kept):
                with contextlib.suppress(BackendError):
                    await _remember(mirror.api, handle, cursor)

    async def delete(self, handle: Handle, *, after: float = 0, wait: bool = True) -> None:
        """See :meth:`Backend.delete`."""
        async with api_of(self.access, self.site.namespace) as api:
            try:
                root = await root_of(api, handle)
            except NotFound:
                return
            if after > 0:
                await self._release(api, root, after)
            elif wait:
                await remove(api, root)
            else:
                await end(api, root)

    async def list(self) -> list[Listing]:
        """See :meth:`Backend.list`."""
        async with connected(self.access, self.site.namespace) as api:
            return await listings(api)

    async def find(self, name: str) -> Listing:
        """See :meth:`Backend.find`."""
        async with connected(self.access, self.site.namespace) as api:
            return await listing(api, name)

    async def usage(self) -> Mapping[str, Mapping[str, Usage]] | None:
        """See :meth:`Backend.usage`. It is the metrics API's to know, where there is one and we may ask it."""
        async with connected(self.access, self.site.namespace) as api:
            try:
                return usage_of((await api.list("PodMetrics", labelSelector=SELECTOR))["items"])
            except NotFound:
                return None
            except ApiError as error:
                if error.status in (403, 404):
                    return None
                raise

    def preview(
        self, name: str, plan: Plan, *, task: Mapping[str, Any], lease: float | None = None
    ) -> Sequence[Manifest]:
        """See :meth:`Backend.preview`. The manifests, but for the owner, who has no uid yet."""
        manifests = render(name, plan, self.site, task, lease=lease, parent=None)
        return [manifests.root, *manifests.others, *([manifests.secret] if manifests.secret else [])]

    async def try_out(self, preview: Sequence[Manifest]) -> Sequence[str]:
        """What the API server has against a preview, here and now: rights, admission, quotas; empty: nothing.

        It is a dry run on the server: nothing is created.
        """
        problems = []
        async with connected(self.access, self.site.namespace) as api:
            try:
                await self.check()
            except BackendError as error:
                problems.append(str(error))
            for manifest in preview:
                try:
                    await api.create(manifest, dryRun="All")
                except ApiError as error:
                    if error.reason != "AlreadyExists":
                        problems.append(f"{manifest['kind']} {manifest['metadata']['name']}: {error}")
            try:
                problems += exceeded((await api.list("ResourceQuota"))["items"], preview)
            except ApiError as error:
                problems.append(f"the namespace's quotas cannot be read, so they were not looked at: {error}")
        return problems

    async def connect(self, handle: Handle, port: Port) -> Connection:
        """See :meth:`Backend.connect`. By the kubelet of the pod's node, past the cluster's NetworkPolicy."""
        async with contextlib.AsyncExitStack() as stack:
            api = await stack.enter_async_context(connected(self.access, self.site.namespace))
            root = await root_of(api, handle)
            role = facts_of(root).roles.get(port.role)
            number = role.ports.get(port.name) if role else None
            if number is None:
                raise ReplicaError(f"cluster {handle.name} has no port {port.name!r} of a role {port.role!r}")
            found = await api.list("Pod", labelSelector=f"{CLUSTER}={handle.name},{ROLE}={port.role}")
            pods = [pod for pod in map(Pod, found["items"]) if pod.started and not pod.ended and not pod.leaving]
            if not pods:
                raise ReplicaError(
                    f"no {port.role} of cluster {handle.name} runs, so nobody listens at its port {number}"
                )
            first = min(pods, key=lambda pod: pod.index).name
            socket = await api.websocket(f"pods/{segment(first)}/portforward", PROTOCOL, ports=str(number))
            stack.push_async_callback(socket.close)
            return PortForward(socket, stack.pop_all())

    async def check(self) -> str:
        """See :meth:`Backend.check`. Asks the server whether we may do all that a cluster needs."""
        async with connected(self.access, self.site.namespace) as api:
            refused = {
                resource: [f"{verb} {resource}" for verb in verbs if not await api.may(verb, resource)]
                for resource, verbs in NEEDED.items()
            }
            lost = {why: refused.pop(resource) for resource, why in OPTIONAL.items()}
            if must := [right for rights in refused.values() for right in rights]:
                raise BackendError(
                    f"in namespace {self.site.namespace} this user may not {', '.join(must)}; "
                    "give it the namespaced Role of the documentation"
                )
            without = (f"; it may not {' or '.join(rights)}, so {why}" for why, rights in lost.items() if rights)
            where = f"replicas run as pods in namespace {self.site.namespace} of {api.host}{''.join(without)}"
            return "; ".join([where, *await advice(api)])

    # ---- roots

    async def _adoptable(self, api: Api, root: Manifest, manifests: Manifests) -> bool:
        """Whether what has our name is ours, is of use, and is whole or can be completed.

        :raises BackendError: it is somebody else's.
        """
        meta = root["metadata"]
        if not MANAGED.items() <= meta.get("labels", {}).items() or FACTS not in meta.get("annotations", {}):
            raise BackendError(
                f"there is a Job {meta['name']} in namespace {self.site.namespace} that is not ours; remove it, or set "
                "the connection's extra 'namespace' to another"
            )
        if "deletionTimestamp" in meta or RELEASED in meta["annotations"]:
            return False
        try:
            made_for = facts_of(root).task
        except Unreadable:
            return False  # nobody can follow it any more
        if cleared_since(made_for, facts_of(manifests.root).task):
            return False
        if _half_made(root):
            same: bool = meta["annotations"].get(DIGEST) == manifests.root["metadata"]["annotations"][DIGEST]
            return same
        return (await status_of(api, root)).state not in (State.FAILED, State.CANCELLED)

    async def _start(self, api: Api, root: Manifest, manifests: Manifests) -> None:
        """Create what the root needs, then let it go."""
        others = manifests.owned(root["metadata"]["uid"])
        try:
            if secret := manifests.keyed(root["metadata"]["uid"], secrets.token_hex()):
                await _create_once(api, secret)
            await asyncio.gather(*(api.apply(manifest) for manifest in others if manifest["kind"] not in LATER))
            await asyncio.gather(*(api.apply(manifest) for manifest in others if manifest["kind"] in LATER))
            await api.patch("Job", root["metadata"]["name"], manifests.start)
        except BackendError:
            with contextlib.suppress(BackendError):  # out of reach, say: what is left is suspended, and starts nothing
                await remove(api, root)
            raise

    async def _release(self, api: Api, root: Manifest, after: float) -> None:
        """Leave it for so long, but to nobody.

        One that runs has a deadline then; and as long again to live after its end, since that may come at any time, or
        has come, and the Job controller has yet to say so.
        """
        if ended := ended_at(root):
            spec = {"ttlSecondsAfterFinished": math.ceil(api.now() - time_of(ended) + after)}
        else:
            deadline = math.ceil(max(1, age(api, root) + after))
            spec = {"ttlSecondsAfterFinished": math.ceil(after), "activeDeadlineSeconds": deadline}
        change = annotated(handle_of(root), {RELEASED: "true"})
        await api.patch("Job", root["metadata"]["name"], {**change, "spec": spec})


async def _remember(api: Api, handle: Handle, cursor: Mapping[str, str]) -> None:
    await api.patch("Job", handle.name, annotated(handle, {CURSOR: json.dumps(cursor)}))


def _half_made(root: Manifest) -> bool:
    """Whether its creator has not let it go yet, and died, or is at it."""
    return bool(root["spec"].get("suspend")) and COMPLETE not in root["metadata"].get("annotations", {})


LATER = ("RoleBinding", "Job", "Pod")
"""Kinds that come when what they need is there: what runs, and a binding, which only the binder of an existing Role may
make who is no administrator."""


async def _create_once(api: Api, secret: Manifest) -> None:
    """Create it; of several creators all take what the first one has made up."""
    try:
        await api.create(secret)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
