"""Replicas as process groups on this machine, each cluster under a supervisor of its own.

The same adapters as on Kubernetes: to try a DAG, to test it, to debug a job. Everything of a cluster lies in one folder
(see :mod:`.folder`), which this user alone may read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from practicus_provider.backends.base import Backend, Connection, Handle, Lease, Listing, LogLine, cleared_since
from practicus_provider.backends.codec import dump_plan, load_plan
from practicus_provider.backends.local import control
from practicus_provider.backends.local.control import GONE
from practicus_provider.backends.local.creation import start, write_new
from practicus_provider.backends.local.folder import UNREADABLE, ClusterFolder, unreadable
from practicus_provider.backends.local.logs import Reader
from practicus_provider.backends.local.ports import LOOPBACK
from practicus_provider.backends.local.processes import kill_marked
from practicus_provider.backends.local.refusals import refused
from practicus_provider.backends.local.replica import LOG_LIMIT
from practicus_provider.backends.local.volumes import prepare_volumes
from practicus_provider.errors import BackendError, NotFound, ReplicaError
from practicus_provider.names import is_dns_label
from practicus_provider.plan import Plan, Port
from practicus_provider.pricing import Pricing
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.status import Reason, State, Status, Verdict
from practicus_provider.tail import TAIL_LINES

AT_ONCE = 100
"""Lines of a log that are read at once."""
LOG_POLL = 0.1
"""Seconds between two looks at the log files that somebody reads."""
STOP_PATIENCE = 15.0
"""Seconds that a supervisor has to end its cluster before it counts as hung, and is killed."""
_LOCK_POLL = 0.01
_Answer = TypeVar("_Answer")
_KILLED = Verdict(
    State.FAILED,
    Reason.SUPERVISOR_LOST,
    "the cluster's supervisor was killed, and its replicas with it",
    "Something on this machine killed it; the kernel's log (dmesg) says whether memory ran out.",
)
_HUNG = Verdict(
    State.FAILED,
    Reason.SUPERVISOR_LOST,
    "the cluster's time was over, and its supervisor did not end it: it hung, and was killed with its replicas",
    "Something may have stopped it (SIGSTOP), or the machine has slept.",
)


@dataclass(frozen=True)
class LocalBackend(Backend):
    """:class:`~practicus_provider.backends.base.Backend` on this machine.

    :param root: folder that holds every cluster's folder; made if absent.
    :param python: the replicas' Python.
    :param ttl: seconds that the folder of an ended cluster, its logs in it, is kept.
    :param pythons: adapter -> the Python of its replicas, before ``python``.
    :param pricing: what replicas cost.
    :param log_limit: bytes of each replica's log that stay on disk: of a longer one its beginning and its end.
    """

    root: Path
    python: str = sys.executable
    ttl: float = 24 * 3600
    pythons: Mapping[str, str] = field(default_factory=dict)
    pricing: Pricing | None = None
    log_limit: int = LOG_LIMIT
    name: ClassVar[str] = "local"

    async def create(
        self,
        name: str,
        plan: Plan,
        *,
        task: Mapping[str, Any],
        lease: float | None = None,
        parent: Handle | None = None,
    ) -> Handle:
        """See :meth:`Backend.create`."""
        if plan.pod.secrets:
            variable = next(iter(plan.pod.secrets))
            raise BackendError(f"the local backend has no secrets: give {variable} in env=, or run on Kubernetes")
        self._prepare_root()
        with refused(f"create cluster {name} in {self.root}"):
            prepare_volumes(plan.volumes, self.root)
            self._sweep()
            folder = ClusterFolder(self.root / name)
            while True:
                if not folder.exists() and (made := self._write_new(folder, plan, task, lease, parent)):
                    await start(folder)
                    return made  # also if it has failed meanwhile: that is how this job ends
                with contextlib.suppress(FileNotFoundError, NotFound):
                    handle = folder.handle()
                    if not folder.released.exists() and await self._adoptable(folder, task):
                        return handle
                    await self.delete(handle)

    async def watch(
        self, handle: Handle, *, lease: Lease = "keep", disposable: bool = False
    ) -> AsyncGenerator[Status, None]:
        """See :meth:`Backend.watch`. The supervisor pushes; its hanging up is its death, or its silence at the end."""
        with refused(f"watch cluster {handle.name}"):
            folder = self._folder(handle)
            give_up = folder.deadline() + folder.grace() + STOP_PATIENCE
            with contextlib.suppress(*GONE, TimeoutError):
                async with control.request(folder.control, {"do": "watch", "lease": lease}) as answers:
                    while answer := await _before(give_up, anext(answers, None)):
                        status = Status.from_json(answer)
                        yield status
                        if status.state.final:
                            return
            yield await asyncio.to_thread(self._last_word, handle)

    async def logs(
        self, handle: Handle, sources: Collection[str], *, whole: bool = False
    ) -> AsyncGenerator[LogLine, None]:
        """See :meth:`Backend.logs`."""
        before: dict[str, int] = {} if whole else self._folder(handle).read("cursor.json")
        reader = Reader(sources, before, self.log_limit)
        while True:
            folder = self._folder(handle)
            stamp, ended = folder.stamp(), folder.state().final or not folder.supervised()
            try:
                for number, line in enumerate(reader.lines(folder, time.monotonic(), whole=ended)):
                    if line is not None:
                        yield line
                    if line is None or number % AT_ONCE == 0:  # others of this process have their turn
                        await asyncio.sleep(0)
            finally:
                if reader.taken != before and not whole:
                    before = reader.taken
                    with contextlib.suppress(OSError):  # it is gone, or its disk is full
                        folder.write("cursor.json", before)
            if ended:
                return
            await asyncio.sleep(LOG_POLL)
            while folder.stamp() == stamp and not _is_over(reader.due()) and folder.supervised():
                await asyncio.sleep(LOG_POLL)

    async def delete(self, handle: Handle, *, after: float = 0, wait: bool = True) -> None:
        """See :meth:`Backend.delete`. The logs stay for ``ttl`` seconds below ``ended/``."""
        try:
            folder = self._folder(handle)
        except NotFound:
            return
        with refused(f"delete cluster {handle.name}"), contextlib.suppress(FileNotFoundError):
            if after > 0:
                folder.released.touch()
            try:
                async with asyncio.timeout(folder.grace() + STOP_PATIENCE):
                    await _dismiss(folder, after)
            except TimeoutError:
                folder.kill_supervisor()
            if after > 0:
                return
            await asyncio.to_thread(kill_marked, Env.CLUSTER, handle.uid)
            for job in self._listings():
                if ClusterFolder(self.root / job.handle.name).config()["parent"] == handle.to_json():
                    await self.delete(job.handle)
            async with self._root_lock():
                with contextlib.suppress(NotFound):
                    self._folder(handle).retire()

    async def list(self) -> list[Listing]:
        """See :meth:`Backend.list`."""
        return list(self._listings())

    async def find(self, name: str) -> Listing:
        """See :meth:`Backend.find`."""
        if is_dns_label(name):  # else it may lead out of the root
            with contextlib.suppress(OSError, ValueError):
                return _listing(ClusterFolder(self.root / name))
        raise NotFound(f"there is no cluster {name} in {self.root}")

    def preview(self, name: str, plan: Plan, *, task: Mapping[str, Any], lease: float | None = None) -> Any:
        """See :meth:`Backend.preview`. The plan as the cluster's folder has it, and the files' sizes."""
        sizes = {path: f"{len(content)} bytes" for path, content in plan.files.items()}
        return {"name": name, "task": dict(task), "lease": lease, "files": sizes, "plan": dump_plan(plan)}

    async def connect(self, handle: Handle, port: Port) -> Connection:
        """See :meth:`Backend.connect`."""
        number = self._folder(handle).read("ports.json").get(port.role, {}).get(port.name)
        if number is None:
            raise ReplicaError(f"cluster {handle.name} has no port {port.name!r} of a role {port.role!r}")
        try:
            return _Stream(*await asyncio.open_connection(LOOPBACK, number))
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise ReplicaError(f"{port.role}-0 does not answer at its port {number}: {reason}") from error

    async def check(self) -> str:
        """See :meth:`Backend.check`."""
        self._prepare_root()
        for extra, python in (("python", self.python), *(("pythons", python) for python in self.pythons.values())):
            if shutil.which(python) is None:
                raise BackendError(f"the replicas' Python {python!r} cannot be executed; mend the extra {extra!r}")
        of_adapters = "".join(f", those of {adapter} with {python}" for adapter, python in self.pythons.items())
        return f"replicas run on this machine with {self.python}{of_adapters}; their folders are in {self.root}"

    # ---- folders

    def _folder(self, handle: Handle) -> ClusterFolder:
        folder = ClusterFolder(self.root / handle.name)
        with contextlib.suppress(FileNotFoundError):
            if is_dns_label(handle.name) and folder.handle() == handle:
                return folder
        raise NotFound(f"there is no cluster {handle.name} ({handle.uid}) in {self.root}")

    def _listings(self) -> Iterator[Listing]:
        for path in sorted(self.root.glob("*/cluster.json")):
            folder = ClusterFolder(path.parent)
            try:
                yield _listing(folder)
            except FileNotFoundError:
                pass  # it has just gone
            except UNREADABLE as error:
                bare = Listing(Handle(path.parent.name, ""), Status(State.UNKNOWN), {}, path.lstat().st_mtime)
                yield replace(bare, trouble=unreadable(path, error))

    def _prepare_root(self) -> None:
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)  # one that was there is shared as its owner wishes
            (self.root / "ended").mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            raise BackendError(
                f"cannot write to {self.root}: {error.strerror}; set the connection's extra 'root' to a folder that "
                "this user may write to"
            ) from error

    def _write_new(
        self,
        folder: ClusterFolder,
        plan: Plan,
        task: Mapping[str, Any],
        lease: float | None,
        parent: Handle | None,
    ) -> Handle | None:
        """See :func:`.creation.write_new`."""
        config = {
            "uid": uuid.uuid4().hex[:16],
            "plan": dump_plan(plan),
            "task": dict(task),
            "lease": lease,
            "parent": parent.to_json() if parent else None,
            "python": self.pythons.get(plan.adapter, self.python),
            "key": secrets.token_hex(),
            "log_limit": self.log_limit,
            "created_at": time.time(),
        }
        return write_new(folder, config, plan.files, plan.executable)

    def _sweep(self) -> None:
        """Remove what ended longer ago than ``ttl``."""
        for path in (*self.root.glob("ended/*"), *self.root.glob("*/cluster.json"), *self.root.glob(".new-*")):
            folder = ClusterFolder(path.parent if path.name == "cluster.json" else path)
            with contextlib.suppress(FileNotFoundError):
                status = folder.path / "status.json"
                since = (status if status.exists() else folder.path).stat().st_mtime
                if time.time() - since > self.ttl and not folder.supervised():
                    shutil.rmtree(folder.path, ignore_errors=True)

    # ---- supervisors

    async def _adoptable(self, folder: ClusterFolder, task: Mapping[str, Any]) -> bool:
        """Whether the cluster lives, or ended well; one that was written but never started is started now."""
        if cleared_since(folder.config()["task"], task):
            return False
        if folder.status() is None:
            await start(folder)
        async with contextlib.aclosing(self.watch(folder.handle())) as statuses:
            try:
                status = await _before(time.time() + STOP_PATIENCE, anext(statuses))
            except TimeoutError:
                raise BackendError(
                    f"cluster {folder.path.name} is there, but its supervisor does not answer within "
                    f"{STOP_PATIENCE:g} s: go on once it does, or delete the cluster"
                ) from None
        return status.state not in (State.FAILED, State.CANCELLED)

    def _last_word(self, handle: Handle) -> Status:
        """The final status of a cluster whose supervisor is gone or hung, and an end to what it left."""
        folder, give_up = self._folder(handle), time.monotonic() + STOP_PATIENCE
        while not (folder.state().final or time.monotonic() >= give_up) and folder.supervised():
            time.sleep(_LOCK_POLL)  # it is ending
        status = folder.status() or Status(State.UNKNOWN)
        if status.state.final:
            return status
        verdict = _HUNG if folder.supervised() else _KILLED
        folder.kill_supervisor()
        kill_marked(Env.CLUSTER, handle.uid)
        folder = self._folder(handle)  # or it was deleted meanwhile
        verdict = replace(verdict, log_tail=tuple(folder.tail("supervisor")[-TAIL_LINES:]))
        status = Status(State.FAILED, status.replicas, verdict, time.time())
        with contextlib.suppress(OSError):  # a disk that is full, which may be the cause
            folder.write("status.json", status.to_json())
        return status

    @contextlib.asynccontextmanager
    async def _root_lock(self) -> AsyncIterator[None]:
        """Held while a name changes hands."""
        guard, give_up = ClusterFolder(self.root), time.monotonic() + STOP_PATIENCE
        while (descriptor := guard.lock()) is None:
            if time.monotonic() >= give_up:
                raise BackendError(f"{guard.path / 'lock'} is held for {STOP_PATIENCE:g} s: a process of ours hangs")
            await asyncio.sleep(_LOCK_POLL)
        try:
            yield
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class _Stream(Connection):
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def read(self) -> bytes:
        try:
            return await self.reader.read(1 << 16)
        except OSError as error:
            raise ReplicaError(f"the connection broke: {error.strerror}") from error

    async def write(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError as error:
            raise ReplicaError(f"the connection broke: {error.strerror}") from error

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def _before(give_up: float, answer: Awaitable[_Answer]) -> _Answer:
    """:raises TimeoutError: it has not come by then, seconds since the epoch."""
    async with asyncio.timeout(give_up - time.time()):
        return await answer


def _listing(folder: ClusterFolder) -> Listing:
    config = folder.config()
    plan, status = load_plan(config["plan"]), folder.status() or Status(State.PENDING)
    resources = {role.name: role.resources for role in plan.roles}
    return Listing(
        folder.handle(),
        status,
        config["task"],
        created_at=config["created_at"],
        released=folder.released.exists(),
        links=plan.links,
        adapter=plan.adapter,
        coordinator=plan.coordinator,
        resources=resources,
    )


async def _dismiss(folder: ClusterFolder, after: float) -> None:
    """Have the supervisor end its cluster, now or later; returns once it has heard, or is gone."""
    with contextlib.suppress(OSError):
        async with control.request(folder.control, {"do": "delete", "after": after}) as answers:
            async for _ in answers:
                pass
    while after == 0 and folder.path.exists() and folder.supervised():
        await asyncio.sleep(_LOCK_POLL)


def _is_over(due: float | None) -> bool:
    return due is not None and time.monotonic() >= due
