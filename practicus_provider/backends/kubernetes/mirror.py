"""The one watch of a namespace: what our clusters' objects are right now, for whoever waits on one of them.

All watchers in one event loop with the same access and namespace share it, so that a thousand waiting tasks cost as
many requests as one. It lists, watches from that resourceVersion, resumes after a cut, and lists again where the server
has forgotten (*Efficient detection of changes* in the Kubernetes API concepts).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from practicus_provider.aiotasks import stop
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.api import (
    BACKOFF,
    LONGEST_BACKOFF,
    PATIENCE,
    Api,
    ApiError,
    Manifest,
    connected,
)
from practicus_provider.backends.kubernetes.labels import MANAGED, cluster_of
from practicus_provider.backends.kubernetes.pod import Pod
from practicus_provider.backends.kubernetes.quota import largest
from practicus_provider.errors import BackendError
from practicus_provider.runtime.practicus_runtime.contract import LastWords

log = logging.getLogger(__name__)
SELECTOR = ",".join(f"{key}={value}" for key, value in MANAGED.items())
KINDS = {
    "Job": {"labelSelector": SELECTOR},
    "Pod": {"labelSelector": SELECTOR},
    "Event": {"fieldSelector": "type=Warning"},
}
"""What is watched."""
ALL = "all"
"""Who met an error that ends all watches."""
TOLD_BY_EVENTS = {"Job": ("FailedCreate",), "Pod": ("FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox")}
"""Reasons of events that are all that tells why a pod is not made, or does not start; others are not kept."""
NODES_KNOWN = 600.0
"""Seconds for which it is known how large nodes are."""
FOLLOWED = 500
"""Logs of one mirror's clusters that are followed at once. Each holds a connection, and what was read of it and not
taken; those of further clusters are read once one of these has ended, or at their pods' ends."""
READ = {
    "Job": ("activeDeadlineSeconds", "suspend"),
    "Pod": ("nodeName", "nodeSelector", "initContainers", "containers"),
}
"""What is read of a ``spec``; what is not is not kept, as it takes most of the room of an object that only waits."""
READ_OF_CONTAINER = ("name", "image", "resources")
WATCH_SECONDS = 600
"""How long the server keeps one watch open (``timeoutSeconds``)."""
WATCH_SILENCE = 150.0
"""Seconds without a word after which a watch counts as cut, though nothing has closed it: the server sends a bookmark
about every minute (``defaultBookmarkFrequency`` in ``k8s.io/apiserver``, ``pkg/storage/cacher``)."""

DELETION = ("deletionTimestamp", "deletionGracePeriodSeconds")
"""What metadata say of a deletion that was asked for."""


class Changes(asyncio.Event):
    """Set whenever an object of a cluster changes; clear it before you look.

    :ivar pods: names of the pods that have changed, or of which an event tells something new; in that order. Whoever
        has looked at one takes it out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.pods: dict[str, None] = {}

    def note(self, kind: str, name: str) -> None:
        """That object has changed; of no kind: somebody has told something of that pod."""
        if kind == "Pod":
            self.pods[name] = None
        self.set()


class Mirror:
    """The objects of our clusters in one namespace. Use it by :func:`mirror_of`."""

    def __init__(self, access: Access, namespace: str) -> None:
        self.api: Api
        self._errors: dict[str, BackendError] = {}  # kind, or ALL -> what its watch met; each clears its own
        self.access = access
        self.namespace = namespace
        self._objects: dict[str, dict[str, Manifest]] = {kind: {} for kind in KINDS}
        self._groups: dict[str, dict[str, dict[str, Manifest]]] = {kind: {} for kind in KINDS}
        self._versions: dict[str, str] = {}
        self._seen: dict[str, float] = {}  # kind -> when its last watch ended
        self._waiting: defaultdict[str, set[Changes]] = defaultdict(set)
        self._told: defaultdict[str, dict[str, LastWords]] = defaultdict(dict)
        self._over: defaultdict[str, dict[str, Manifest]] = defaultdict(dict)
        self._listed = {kind: asyncio.Event() for kind in KINDS}
        self.streams = asyncio.Semaphore(FOLLOWED)
        self._largest: Mapping[str, str] = {}
        self._largest_until = -math.inf

    def job(self, name: str) -> Manifest | None:
        """A Job."""
        return self._objects["Job"].get(name)

    def pod(self, cluster: str, name: str) -> Manifest | None:
        """A pod of a cluster; also one that is gone since, but was seen to end as well as it had told."""
        found = self._groups["Pod"].get(cluster, {}).get(name)
        return found or self._over.get(cluster, {}).get(name)

    def jobs(self, cluster: str) -> list[Manifest]:
        """The Jobs of one cluster."""
        return list(self._groups["Job"].get(cluster, {}).values())

    def events(self, uid: str) -> list[Manifest]:
        """What went wrong with one object, or as pods of a Job were made; in order."""
        found = self._groups["Event"].get(uid, {}).values()
        return sorted(found, key=lambda event: str(event.get("lastTimestamp")))

    @property
    def largest(self) -> Mapping[str, str] | None:
        """Resource -> the most of it that one node has; empty where we may not see nodes; None: it is to be asked."""
        return self._largest if time.monotonic() < self._largest_until else None

    async def look_at_nodes(self) -> None:
        """Ask for :attr:`largest`. It explains what the scheduler says, so it is done without if need be."""
        self._largest_until = time.monotonic() + NODES_KNOWN
        with contextlib.suppress(BackendError):
            self._largest = largest(await self.api.nodes())

    def tell(self, cluster: str, pod: str, last_words: LastWords) -> None:
        """Somebody has read how a pod ended in its log, where that stands before the server knows."""
        self._told[cluster][pod] = last_words
        self._wake(cluster, "", pod)

    def told(self, cluster: str) -> Mapping[str, LastWords]:
        """Pod -> its last words, of those that somebody told."""
        return self._told.get(cluster, {})

    async def listed(self) -> None:
        """Wait until everything was seen once.

        :raises BackendError: it cannot be.
        """
        for event in self._listed.values():
            await event.wait()
        self.check()

    def check(self) -> None:
        """Raise what keeps us from seeing anything.

        :raises BackendError: the server refuses, or has been out of reach for :data:`PATIENCE`.
        """
        for error in self._errors.values():
            raise error

    @contextlib.contextmanager
    def changes(self, cluster: str) -> Iterator[Changes]:
        """What changes of one cluster; its pods count as changed at first."""
        changes = Changes()
        self.add(cluster, changes)
        try:
            yield changes
        finally:
            self.remove(cluster, changes)

    def add(self, cluster: str, changes: Changes) -> None:
        """Have somebody's noted, as :meth:`changes` does, until :meth:`remove`."""
        self._waiting[cluster].add(changes)
        changes.pods.update(dict.fromkeys(self._groups["Pod"].get(cluster, ())))

    def remove(self, cluster: str, changes: Changes) -> None:
        """See :meth:`add`."""
        self._waiting[cluster].discard(changes)
        if not self._waiting[cluster]:
            del self._waiting[cluster]
            self._told.pop(cluster, None)
            self._over.pop(cluster, None)

    async def run(self) -> None:
        """Keep the mirror until cancelled."""
        try:
            async with connected(self.access, self.namespace, PATIENCE) as self.api:
                watches = [asyncio.create_task(self._keep(kind)) for kind in KINDS]
                try:
                    await asyncio.gather(*watches)
                finally:
                    await stop(*watches)
        except BackendError as error:
            self._fail(ALL, error)
        except Exception as error:  # a defect of ours must not leave those who wait waiting
            log.exception("the watch of namespace %s broke", self.namespace)
            self._fail(ALL, BackendError(f"the watch of namespace {self.namespace} broke: {error!r}"))

    async def _keep(self, kind: str) -> None:
        delay, loop = BACKOFF, asyncio.get_running_loop()
        self._seen[kind] = loop.time()
        while True:
            began = loop.time()
            trouble: BackendError | None = None
            try:
                if kind not in self._versions:
                    await self._list(kind)
                await self._watch(kind)
            except ApiError as error:
                if error.status == 410:
                    self._versions.pop(kind, None)
                    continue
                if error.status == 403 and kind == "Event":  # they only explain what the others show
                    self._listed[kind].set()
                    return
                trouble = error
            except BackendError as error:
                trouble = error
            except (OSError, TimeoutError) as error:
                trouble = BackendError(f"the Kubernetes API server is out of reach: {error}")
            if self._seen[kind] >= began:  # there was a watch
                delay = BACKOFF
            elif trouble and (not self._listed[kind].is_set() or loop.time() - self._seen[kind] > PATIENCE):
                self._fail(kind, trouble)
            await asyncio.sleep(delay * random.uniform(0.5, 1.5))
            delay = min(2 * delay, LONGEST_BACKOFF)

    def _fail(self, who: str, error: BackendError) -> None:
        self._errors[who] = error
        for event in (*self._listed.values(), *(each for those in self._waiting.values() for each in those)):
            event.set()

    async def _list(self, kind: str) -> None:
        """Page by page, as if each object that is new or has changed were an event: so others have their turn
        meanwhile, and of thousands that wait few are woken."""
        there: set[str] = set()
        async for page in self.api.pages(kind, **KINDS[kind]):
            for item in filter(_kept, page["items"]):
                name = item["metadata"]["name"]
                there.add(name)
                before = self._objects[kind].get(name)
                if before is None or _version(item) != _version(before):
                    self._put(kind, self._as_told(kind, item))
                    self._wake(*self._concerns(kind, item))
        for name in self._objects[kind].keys() - there:
            concerned = self._concerns(kind, self._objects[kind][name])
            self._drop(kind, name)
            self._wake(*concerned)
        self._versions[kind] = page["metadata"]["resourceVersion"]
        self._listed[kind].set()

    async def _watch(self, kind: str) -> None:
        query = {
            **KINDS[kind],
            "resourceVersion": self._versions[kind],
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_SECONDS),
        }
        async with self.api.watch(kind, silence=WATCH_SILENCE, **query) as events:
            self._errors.pop(kind, None)
            try:
                async for event in events:
                    self._take(kind, event)
            finally:
                self._seen[kind] = asyncio.get_running_loop().time()

    def _take(self, kind: str, event: Manifest) -> None:
        item = event["object"]
        if event["type"] == "ERROR":
            raise ApiError(str(item.get("message")), int(item.get("code", 500)), str(item.get("reason", "")))
        self._versions[kind] = item["metadata"]["resourceVersion"]
        if event["type"] == "BOOKMARK" or not _kept(item):
            return
        read = self._as_told(kind, item)
        if event["type"] == "DELETED":
            self._drop(kind, item["metadata"]["name"])
            if kind == "Pod":
                self._remember(read)
        else:
            self._put(kind, read)
        self._wake(*self._concerns(kind, item))

    def _as_told(self, kind: str, item: Manifest) -> Manifest:
        """What we read of an object. Its deletion is as it was first told: once that is over it has the time of the end
        (Kubernetes 1.34, ``markAsDeleting`` in ``k8s.io/apiserver``, ``pkg/registry/generic/registry``)."""
        read = _read(kind, item)
        before = self._objects[kind].get(item["metadata"]["name"], {}).get("metadata", {})
        if before.get("uid") == item["metadata"].get("uid"):
            read["metadata"].update((key, before[key]) for key in DELETION if key in before)
        return read

    def _put(self, kind: str, item: Manifest) -> None:
        name = item["metadata"]["name"]
        self._drop(kind, name)
        self._objects[kind][name] = item
        self._groups[kind].setdefault(_group_of(item), {})[name] = item

    def _drop(self, kind: str, name: str) -> None:
        if (item := self._objects[kind].pop(name, None)) is None:
            return
        key = _group_of(item)
        del self._groups[kind][key][name]
        if not self._groups[kind][key]:
            del self._groups[kind][key]

    def _remember(self, pod: Manifest) -> None:
        """Of one that is gone: others of its cluster may not have ended yet."""
        cluster, name, ended = cluster_of(pod), pod["metadata"]["name"], Pod(pod).ended
        words = self.told(cluster).get(name, LastWords())
        if ended and ended.get("exitCode") == 0 and words.end.exit_code == 0:
            self._over[cluster][name] = pod

    def _concerns(self, kind: str, item: Manifest) -> tuple[str, str, str]:
        """The cluster that an object belongs to, its kind and its name; of an event, of what that is about."""
        about = item.get("involvedObject")
        if about is None:
            return cluster_of(item), kind, item["metadata"]["name"]
        name = about.get("name", "")
        found = self._objects[about["kind"]].get(name)
        return cluster_of(found) if found else "", about["kind"], name

    def _wake(self, cluster: str, kind: str, name: str) -> None:
        for changes in self._waiting.get(cluster, ()):
            changes.note(kind, name)


def _kept(item: Manifest) -> bool:
    about = item.get("involvedObject")
    return about is None or item.get("reason") in TOLD_BY_EVENTS.get(about.get("kind"), ())


def _read(kind: str, item: Manifest) -> Manifest:
    """What we read of an object."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    if kind not in READ:
        return {**item, "metadata": metadata}
    spec = {key: item["spec"][key] for key in READ[kind] if key in item["spec"]}
    for containers in ("initContainers", "containers"):
        if containers in spec:
            spec[containers] = [{key: one[key] for key in READ_OF_CONTAINER if key in one} for one in spec[containers]]
    return {**item, "metadata": metadata, "spec": spec}


def _version(item: Manifest) -> str:
    return str(item["metadata"]["resourceVersion"])


def _group_of(item: Manifest) -> str:
    """What it is looked up by: its cluster; of an event, the uid of what that is about."""
    about = item.get("involvedObject")
    return cluster_of(item) if about is None else str(about.get("uid"))


@dataclass
class _Shared:
    mirror: Mirror
    task: asyncio.Task[None]
    users: int = 0


_shared: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[tuple[Access, str], _Shared]] = WeakKeyDictionary()


@contextlib.asynccontextmanager
async def mirror_of(access: Access, namespace: str) -> AsyncIterator[Mirror]:
    """The mirror that all in this event loop share; kept for as long as somebody uses it.

    :raises BackendError: the namespace cannot be seen.
    """
    table = _shared.setdefault(asyncio.get_running_loop(), {})
    key = (access, namespace)
    if key not in table:
        mirror = Mirror(access, namespace)
        table[key] = _Shared(mirror, asyncio.create_task(mirror.run()))
    shared = table[key]
    shared.users += 1
    try:
        await shared.mirror.listed()
        yield shared.mirror
    finally:
        shared.users -= 1
        if not shared.users:
            del table[key]
            await stop(shared.task)


@contextlib.asynccontextmanager
async def api_of(access: Access, namespace: str) -> AsyncIterator[Api]:
    """The connection of the mirror, where somebody uses one; else a new one."""
    if (access, namespace) in _shared.get(asyncio.get_running_loop(), {}):
        async with mirror_of(access, namespace) as mirror:
            yield mirror.api
    else:
        async with connected(access, namespace) as api:
            yield api
