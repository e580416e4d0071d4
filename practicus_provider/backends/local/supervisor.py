"""What the process that holds a local cluster does, from its start (see :mod:`.daemon`) to its end.

It outlives the task that started it, starts the replicas, decides the outcome, tells whoever watches, and ends with all
of them when it is told to, when the cluster's time is over, or when nobody has watched for as long as its lease allows.
The replicas' launchers hold one end of a pipe to it: should it die, they die.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
import signal
import socket
import time
import traceback
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

from practicus_provider.aiotasks import stop
from practicus_provider.backends.base import Handle
from practicus_provider.backends.codec import load_plan
from practicus_provider.backends.local import control
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.peers import trespasser
from practicus_provider.backends.local.ports import LOOPBACK, PortReservations
from practicus_provider.backends.local.processes import kill_descendants, kill_marked
from practicus_provider.backends.local.replica import GRACE, Replica, Surroundings
from practicus_provider.errors import BackendError
from practicus_provider.judge import NEARBY, Case, End, judge
from practicus_provider.overdue import out_of_time, with_last_lines
from practicus_provider.plan import Plan, Port, Role
from practicus_provider.runtime.practicus_runtime.contract import LATEST, REQUEST_LIMIT, Env, Scale, parsed
from practicus_provider.status import Reason, State, Status, Verdict, explain_exit

GRACE_SERVING = 0.5
"""Seconds between SIGTERM and SIGKILL where the job is over: what merely served it has nothing left to save."""
KEEP_ENDED = 60.0
"""Seconds that a cluster waits for its deletion after its job ended; K8s' ``ttlSecondsAfterFinished``."""
READY_POLL = 0.05
NOT_YOURS = "cluster {} takes no requests from a process of cluster {}: ask from Airflow, or from within its own job"


class Supervisor:
    """One cluster's life."""

    def __init__(self, folder: ClusterFolder) -> None:
        self.folder = folder
        config = folder.config()
        self.plan: Plan = load_plan(config["plan"])
        own = {name: config[name] for name in ("python", "key", "log_limit") if name in config}
        self.around = Surroundings(folder, config["uid"], config["task"], self.plan, **own)
        self.parent = Handle(**config["parent"]) if config["parent"] else None
        self.deadline: float = config["created_at"] + self.plan.timeout
        self.lease: float | None = config["lease"]
        self.reservations = PortReservations()
        self.ports: dict[str, dict[str, int]] = {}
        self.replicas: dict[str, Replica] = {}
        self.next_index = {role.name: role.replicas for role in self.plan.roles}
        self.ends: list[End] = []
        self.doomed: Verdict | None = None
        self.status = Status(State.PENDING)
        self.watchers: set[asyncio.Queue[Status]] = set()
        self.changed = asyncio.Event()
        self.close_at = self.deadline
        self.due = math.inf
        self.closing = False
        self.jobs: set[asyncio.Task[None]] = set()

    def prepare(self) -> None:
        """Take the ports, and say that it is there: what fails until here is told to whoever starts us.

        :raises BackendError: no port is to be had.
        :raises OSError: it cannot be written.
        """
        self._assign_ports()
        self.folder.write("status.json", self.status.to_json())

    async def run(self, listener: socket.socket) -> None:
        """Serve until the cluster is over; then leave nothing."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.close_now)
        server = await asyncio.start_unix_server(self._serve, sock=listener, limit=REQUEST_LIMIT)
        try:
            self._renew_lease()
            for role in self.plan.roles:
                for index in range(role.replicas):
                    self._start(role, index)
            if self.parent:
                self._spawn(self._follow_parent(self.parent))
            await self._until_over()
        except BackendError as error:
            self._finish(Verdict(State.FAILED, Reason.ERROR, str(error)))
        finally:
            await self._close()
            server.close()

    def close_now(self) -> None:
        """End the cluster, whatever it is doing."""
        self._close_in(0)

    # ---- the cluster's end

    async def _until_over(self) -> None:
        while (left := self.close_at - time.time()) > 0:
            self.changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, self.due - time.time())):
                    await self.changed.wait()
            self._judge()
        self._judge()

    def _close_in(self, seconds: float) -> None:
        self.close_at = min(time.time() + seconds, self.deadline)
        self.changed.set()

    async def _close(self) -> None:
        """Stop every replica, end what escaped, and free the disk and the ports."""
        only_serves = self.status.state.final and all(replica.status.state.final for replica in self._deciding())
        self._finish(Verdict(State.CANCELLED, Reason.DELETED, "the cluster was deleted"))
        self.closing = True
        grace = GRACE_SERVING if only_serves else self.around.grace
        for end, patience in ((Replica.stop, grace), (Replica.kill, GRACE)):
            left = [replica for replica in self.replicas.values() if not replica.ended.is_set()]
            for replica in left:
                end(replica)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    for replica in left:
                        await replica.ended.wait()
        await asyncio.to_thread(kill_marked, Env.CLUSTER, self.around.uid)
        await asyncio.to_thread(kill_descendants)
        shutil.rmtree(self.folder.path / "replicas", ignore_errors=True)
        self.reservations.close()
        if self.folder.released.exists() or (self.status.verdict and self.status.verdict.reason is Reason.ABANDONED):
            with contextlib.suppress(OSError):
                self.folder.retire()  # nobody will come for it
        await stop(*self.jobs)

    def _finish(self, verdict: Verdict) -> None:
        """The outcome; the first one counts."""
        if self.status.state.final:
            return
        deciding = self._deciding()
        result = self.folder.result(deciding[0].name) if verdict.state is State.SUCCEEDED else None
        self.status = replace(self.status, state=verdict.state, verdict=verdict, ended_at=time.time(), result=result)
        self._publish()
        for replica in deciding:
            replica.stop()
        self._close_in(KEEP_ENDED)

    # ---- replicas

    def _deciding(self) -> list[Replica]:
        return [replica for replica in self.replicas.values() if self.plan.decisive(replica.role)]

    def _start(self, role: Role, index: int) -> None:
        own = self.ports[role.name] if index == 0 else {name: self.reservations.take() for name in role.launch.ports}

        def port_of(port: Port) -> int:
            # All replicas share one address here, so each has ports of its own; elsewhere the role's are the first's.
            return (self.ports[port.role] if port.first or port.role != role.name else own)[port.name]

        replica = Replica(role, index, self.around, port_of)
        self.replicas[replica.name] = replica
        self._spawn(self._attend(replica))

    async def _attend(self, replica: Replica) -> None:
        """One replica from start to end, and what that means for the job."""
        try:
            async for status in replica.run():
                if status.state.final:
                    self._ended(replica)
                else:
                    self._spawn(self._mark_running(replica))
        except (OSError, ValueError) as error:  # Python's own refusals, as of a NUL, are of the latter kind
            self.doomed = replica.cannot_start(error)
            self._judge()
        finally:
            await asyncio.to_thread(kill_marked, Env.REPLICA, replica.mark)
            replica.ended.set()
        if replica.role.elastic and not self.status.state.final:
            del self.replicas[replica.name]
            self._publish()

    async def _mark_running(self, replica: Replica) -> None:
        ready = replica.role.launch.ready
        if ready is not None:
            await _accepts(replica.port_of(Port(replica.role.name, ready)))
        if replica.status.state is State.PENDING and not self.status.state.final:
            replica.status = replace(replica.status, state=State.RUNNING)
            initial = [r for r in self.replicas.values() if r.index < r.role.replicas]
            if all(r.status.state is State.RUNNING for r in initial):
                self.status = replace(self.status, state=State.RUNNING)
            self._publish()

    def _ended(self, replica: Replica) -> None:
        """What one replica's end means for the job."""
        if self.closing or self.status.state.final:
            return
        self.ends.append(End(replica.status, time.time()))
        if not self._judge():
            self._publish()

    def _judge(self) -> bool:
        """Whether the job is over, by all that is known now; else it is looked at again once it may be."""
        if self.closing or self.status.state.final:
            self.due = math.inf
            return True
        now, deciding = time.time(), self._deciding()
        decision = judge(
            Case(
                self.plan.decides,
                self.plan.roles,
                self.ends,
                NEARBY,
                awaits=not all(replica.status.state.final for replica in deciding),
                doomed=self.doomed,
                late=self._late() if now >= self.deadline else None,
            )
        )
        if now < decision.due:
            if decision.due != self.due:
                self.due = decision.due
                self.changed.set()
            return False
        verdict = decision.verdict
        if verdict is None and decision.end is not None:
            ended = decision.end.replica
            decides = self.plan.decisive(self.plan.role(ended.role))
            tail = self.folder.tail(ended.name)
            verdict = explain_exit(ended, tail=tail, decides=decides, lacks=self.around.lacks)
        if verdict is not None:
            self.due = math.inf
            self._finish(verdict)
        return True

    def _late(self) -> Verdict:
        """The verdict where the cluster's time is over."""
        replicas = [replica.status for replica in self.replicas.values()]
        late = out_of_time(self.plan.timeout, replicas, {replica.role.name for replica in self._deciding()})
        names = filter(None, (late.replica, late.suspect))
        return with_last_lines(late, {name: self.folder.tail(name) for name in names})

    async def _follow_parent(self, parent: Handle) -> None:
        """End with the shared cluster that this job runs on."""
        path = self.folder.path.parent / parent.name
        with contextlib.suppress(OSError):
            async with control.request(path / "control", {"do": "watch", "lease": "keep"}) as answers:
                async for answer in answers:
                    if State(answer["state"]).final:
                        break
        message = f"the shared cluster {parent.name} ended while the job was running on it"
        self._finish(Verdict(State.FAILED, Reason.CLUSTER_LOST, message))

    def _assign_ports(self) -> None:
        if self.parent:
            self.ports |= ClusterFolder(self.folder.path.parent / self.parent.name).read("ports.json")
        for role in self.plan.roles:
            self.ports[role.name] = {name: self.reservations.take() for name in role.launch.ports}
        self.folder.write("ports.json", self.ports)

    # ---- who watches, and what they may ask

    def _publish(self) -> None:
        self.status = replace(self.status, replicas=tuple(r.status for r in self.replicas.values()))
        with contextlib.suppress(OSError):  # a disk that is full; who watches is told all the same
            self.folder.write("status.json", self.status.to_json())
        for queue in self.watchers:
            queue.put_nowait(self.status)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # asyncio's streams log a connection's task that ends cancelled, as it does with the cluster, as an error.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError), contextlib.closing(writer):
            request = await _request(reader)  # first: else who asks may miss why it is refused
            if (other := trespasser(writer.get_extra_info("socket"))) is not None:
                await _answer(writer, {"error": NOT_YOURS.format(self.folder.path.name, other)})
                return
            if scale := Scale.from_json(request):
                await _answer(writer, self._scale(scale))
            match request:
                case {"do": "watch", "lease": None | "keep" as lease}:
                    await self._watched(reader, writer, lease)
                case {"do": "watch", "lease": int() | float() as lease} if 0 <= lease <= LATEST:
                    await self._watched(reader, writer, lease)
                case {"do": "delete", "after": int() | float() as after} if 0 < after <= LATEST:
                    self._close_in(after)
                    await _answer(writer, {})
                case {"do": "delete", "after": int() | float() as after} if after <= 0:
                    self.close_now()
                    await _left(reader)  # who asked for it sees the end of this process, and so of the connection

    async def _watched(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, lease: Any) -> None:
        if lease != "keep":
            self.lease = lease
        queue: asyncio.Queue[Status] = asyncio.Queue()
        queue.put_nowait(self.status)
        self.watchers.add(queue)
        feed = self._spawn(_feed(queue, writer))
        try:
            await _left(reader)
        finally:
            self.watchers.discard(queue)
            self._renew_lease()
            await stop(feed)

    def _renew_lease(self) -> None:
        """With the last watcher gone, the lease's time runs."""
        if not self.watchers and self.lease is not None and not self.status.state.final:
            self._spawn(self._expire(self.lease))

    async def _expire(self, lease: float) -> None:
        await asyncio.sleep(lease)
        if not self.watchers and self.lease is not None:
            message = f"nobody has watched the cluster for {lease:g} s: its task is over"
            self._finish(Verdict(State.CANCELLED, Reason.ABANDONED, message))
            self.close_now()

    def _scale(self, asked: Scale) -> dict[str, str]:
        role_name, replicas = asked
        role = next((role for role in self.plan.roles if role.name == role_name), None)
        if role is None or role.elastic is None:
            return {"error": f"{role_name!r} is not an elastic role of this cluster"}
        if not role.elastic.min <= replicas <= role.elastic.max:
            return {"error": f"{replicas} replicas are outside {role.elastic.min} to {role.elastic.max}"}
        if self.closing or self.status.state.final:
            return {"error": "the cluster is ending"}
        live = [r for r in self.replicas.values() if r.role is role and not r.status.state.final]
        try:
            for _ in range(len(live), replicas):
                self._start(role, self.next_index[role_name])
                self.next_index[role_name] += 1
        except BackendError as error:
            return {"error": str(error)}
        self._publish()
        return {}

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        job = asyncio.create_task(work)
        self.jobs.add(job)
        job.add_done_callback(self._settled)
        return job

    def _settled(self, job: asyncio.Task[None]) -> None:
        """A defect of ours ends the cluster with its traceback; it must not leave one that waits for ever."""
        self.jobs.discard(job)
        if not job.cancelled() and (error := job.exception()) is not None:
            lines = tuple(line for text in traceback.format_exception(error) for line in text.splitlines())
            self._finish(Verdict(State.FAILED, Reason.SUPERVISOR_LOST, f"internal error: {error!r}", log_tail=lines))
            self.close_now()


async def _request(reader: asyncio.StreamReader) -> object:
    """What somebody asks for; None: it is no request."""
    try:
        return parsed(await reader.readline(), REQUEST_LIMIT)
    except ValueError:  # it is longer than what one may be
        return None


async def _left(reader: asyncio.StreamReader) -> None:
    """Until the other side has gone, whatever it says before."""
    while await reader.read(REQUEST_LIMIT):
        pass


async def _feed(queue: asyncio.Queue[Status], writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while True:
            await _answer(writer, (await queue.get()).to_json())


async def _answer(writer: asyncio.StreamWriter, data: dict[str, Any]) -> None:
    writer.write(json.dumps(data).encode() + b"\n")
    await writer.drain()


async def _accepts(port: int) -> None:
    while True:
        try:
            _, writer = await asyncio.open_connection(LOOPBACK, port)
        except OSError:
            await asyncio.sleep(READY_POLL)
        else:
            writer.close()
            return
