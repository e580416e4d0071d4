"""What every backend does: eleven verbs, written once, async. ``tests/contract`` holds each backend to it."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal

from practicus_provider.errors import BackendError
from practicus_provider.plan import Plan, Port
from practicus_provider.pricing import Pricing
from practicus_provider.spec import Resources
from practicus_provider.status import State, Status


@dataclass(frozen=True)
class Handle:
    """The JSON-able name of a cluster, or of a job on a shared one.

    :param name: unique on the backend at any one time.
    :param uid: unique for ever: a cluster that replaced another of the same name has another uid.
    """

    name: str
    uid: str

    def to_json(self) -> dict[str, str]:
        """A JSON-able mapping; ``Handle(**mapping)`` reads it back."""
        return asdict(self)


def cleared_since(made_for: Mapping[str, Any], task: Mapping[str, Any]) -> bool:
    """Whether a task was cleared after the cluster of its name was made, by the facts of both."""
    return bool(made_for.get("first_try") != task.get("first_try"))


@dataclass(frozen=True)
class LogLine:
    """One line of a replica's output, without its newline."""

    role: str
    index: int
    text: str


@dataclass(frozen=True)
class Listing:
    """One cluster, as :meth:`Backend.list` and :meth:`Backend.find` show it.

    :param status: as the backend last saw it. Only :meth:`Backend.watch` knows a failure's last lines and a result.
    :param task: the task instance that it was made for, as given to :meth:`Backend.create`.
    :param created_at: seconds since the epoch.
    :param released: whether it stays for a while only, by its task's wish (see :meth:`Backend.delete`).
    :param leaving: whether it was deleted, and what ran of it is ending.
    :param links: its plan's.
    :param adapter: its framework's.
    :param coordinator: the role whose log is the job's, as :attr:`~practicus_provider.plan.Plan.coordinator` says.
    :param resources: role -> of one replica; of those that an older version of ours has made, none.
    :param trouble: why nothing else is known of it, as a sentence; empty if that is.
    """

    handle: Handle
    status: Status
    task: Mapping[str, Any]
    created_at: float
    released: bool = False
    leaving: bool = False
    links: Mapping[str, Port] = field(default_factory=dict)
    adapter: str = ""
    coordinator: str = ""
    resources: Mapping[str, Resources] = field(default_factory=dict)
    trouble: str = ""

    @property
    def state(self) -> State:
        """The cluster's."""
        return self.status.state


@dataclass(frozen=True)
class Usage:
    """What a replica uses now.

    :param cpu: cores.
    :param memory: bytes.
    """

    cpu: float
    memory: float


class Connection(ABC):
    """Bytes to and from a port of a replica."""

    @abstractmethod
    async def read(self) -> bytes:
        """What has come, at least one byte; none once the replica has closed the connection.

        :raises BackendError: it broke, or nobody listens at the port.
        """

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Send it; returns once more can be taken, so that a slow replica slows down whoever writes.

        :raises BackendError: as :meth:`read`.
        """

    @abstractmethod
    async def close(self) -> None:
        """End it, for the replica too."""


Lease = float | None | Literal["keep"]
"""Seconds that a cluster may live after its last watcher has gone; None: until its timeout; ``"keep"``: as it was."""


class Backend(ABC):
    """A place where replicas run.

    :cvar name: as a connection's extra ``backend`` has it.
    :cvar pods: whether replicas are pods, so that a framework may make some itself.
    :ivar pricing: what replicas cost there; None: nobody says.
    """

    name: ClassVar[str] = ""
    pods: ClassVar[bool] = False
    pricing: Pricing | None = None

    def session(self) -> AbstractAsyncContextManager[object]:
        """What verbs that are called meanwhile may share, such as a connection. They need none.

        :raises BackendError: there is no reaching the backend.
        """
        return contextlib.nullcontext()

    @abstractmethod
    async def create(
        self,
        name: str,
        plan: Plan,
        *,
        task: Mapping[str, Any],
        lease: float | None = None,
        parent: Handle | None = None,
    ) -> Handle:
        """Create the cluster, or adopt the one of that name.

        One that lives, or that ended and was not yet released (see :meth:`delete`), is adopted if it has not failed
        and its task was not cleared since; any other is replaced. Two callers at once get the same cluster.

        :param task: JSON-able facts of the task instance, as ``practicus_runtime.context()`` tells them. Clearing a
            task changes its ``first_try``.
        :param lease: seconds the cluster may live without a watcher; None: until its timeout.
        :param parent: the shared cluster that ``plan.outside`` refers to; this one ends with it.
        :raises BackendError: nothing was created.
        """

    @abstractmethod
    def watch(self, handle: Handle, *, lease: Lease = "keep", disposable: bool = False) -> AsyncGenerator[Status, None]:
        """The status now, then each change; ends after a final state. Never polls on behalf of one watcher.

        :param lease: the cluster's from now on.
        :param disposable: the cluster is removed once it has succeeded; so the replicas that decide may go as soon as
            they have, if that lets us know sooner.
        :raises NotFound: there is no such cluster (any more).
        """

    @abstractmethod
    def logs(self, handle: Handle, sources: Collection[str], *, whole: bool = False) -> AsyncGenerator[LogLine, None]:
        """Lines of replicas as they are written; ends when they ended and all was read.

        The place in the log belongs to the cluster: whoever comes next, also in another process, goes on after the
        last line that was taken.

        :param sources: roles, for all of their replicas, or single ones as ``role-index``.
        :param whole: from the first line on, for one who merely looks: the place stays.
        :raises NotFound: there is no such cluster (any more).
        """

    @abstractmethod
    async def delete(self, handle: Handle, *, after: float = 0, wait: bool = True) -> None:
        """Remove the cluster, and all that runs on it. Absent is fine.

        :param after: seconds to keep it; until then it runs, but is released: no longer adopted by :meth:`create`.
        :param wait: until nothing of it is left; else until it is certain that nothing will be.
        """

    @abstractmethod
    async def list(self) -> list[Listing]:
        """Every cluster and job that is there."""

    @abstractmethod
    async def find(self, name: str) -> Listing:
        """The cluster of that name.

        :raises NotFound: there is none (any more).
        """

    async def usage(self) -> Mapping[str, Mapping[str, Usage]] | None:
        """Cluster -> ``role-index`` -> what that replica uses, where that is known; None: nobody measures it.

        :raises BackendError: it cannot be asked.
        """
        return None

    @abstractmethod
    def preview(self, name: str, plan: Plan, *, task: Mapping[str, Any], lease: float | None = None) -> Any:
        """What :meth:`create` would send or write, as JSON-able data."""

    async def try_out(self, preview: Any) -> Sequence[str]:
        """What stands against creating that, a problem a string."""
        try:
            await self.check()
        except BackendError as error:
            return [str(error)]
        return []

    @abstractmethod
    async def connect(self, handle: Handle, port: Port) -> Connection:
        """Connect from outside the cluster to a port that a role's first replica listens at, on loopback at least.

        :raises NotFound: there is no such cluster (any more).
        :raises BackendError: it has no such port, or that replica does not run. Where nobody listens, this raises or
            the first :meth:`Connection.read` does.
        """

    @abstractmethod
    async def check(self) -> str:
        """A sentence that says where replicas run.

        :raises BackendError: they could not; the message says what is missing.
        """
