"""The one place where policy is: follow a cluster to its end, form the outcome, tear down.

One coroutine serves the task's own process and the trigger alike.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

from practicus_provider.aiotasks import stop
from practicus_provider.backends.base import Backend, Handle, Lease, Listing
from practicus_provider.errors import JobFailed, NotFound
from practicus_provider.log import PERIOD, Entries, Level, Say, level_of
from practicus_provider.plan import Plan
from practicus_provider.pricing import Meter, Tariff, cost, cost_line
from practicus_provider.result import taken
from practicus_provider.spec import JobSpec, StreamLogs, Teardown
from practicus_provider.status import PREEMPTIONS, Reason, State, Status, Verdict

KEEP = 3600.0
"""Seconds that a cluster stays where ``teardown`` says so; its own timeout may be sooner."""
LARGE = 100
"""Replicas of a cluster beyond which what has become of them is said every :data:`SAID_EVERY` seconds: each one that
starts or ends would be a line."""
SAID_EVERY = 1.0
GLANCE = 5.0
"""Seconds that a cluster which is removed in any case has to show itself once more, for its cost."""


@dataclass(frozen=True)
class Policy:
    """What to do with a cluster until its end. JSON-able, so that it travels in a trigger.

    :param start_deadline: seconds since the epoch by which all replicas that must run do.
    :param streamed: roles, or single replicas as ``role-index``, whose output becomes the task's log.
    :param teardown: what becomes of the cluster at its end; None leaves it alone (it is another task's).
    :param lease: seconds that the cluster may outlive whoever follows it; None: until its timeout; ``"keep"``: as it
        was.
    :param until_running: stop following as soon as the cluster runs; it then stays.
    :param attempt: which cluster of the task's this is, from 1 on, where it may have further ones after preemptions.
    :param attempts: how many it may have.
    :param adapter: name of the framework, for whoever counts jobs; None: of another task's job, which nobody counts.
    :param launched_at: seconds since the epoch, once all of it was submitted.
    :param tariff: what its replicas cost; None: nobody says.
    """

    start_deadline: float
    streamed: tuple[str, ...]
    teardown: Teardown | None = "always"
    lease: Lease = None
    until_running: bool = False
    attempt: int = 1
    attempts: int = 1
    adapter: str | None = None
    launched_at: float = 0.0
    tariff: Tariff | None = None

    @classmethod
    def of(
        cls, spec: JobSpec, plan: Plan, *, lease: Lease = None, until_running: bool = False, attempt: int = 1
    ) -> Policy:
        """The policy that a spec asks for."""
        now = time.time()
        return cls(
            start_deadline=now + spec.start_timeout,
            streamed=_streamed(plan, spec.stream_logs),
            teardown=spec.teardown,
            lease=lease,
            until_running=until_running,
            attempt=attempt,
            attempts=spec.preemption_retries + 1,
            adapter=plan.adapter,
            launched_at=now,
        )

    def next_attempt(self, verdict: Verdict) -> int | None:
        """The attempt that is due after that end; None: it is the task's own end."""
        return self.attempt + 1 if verdict.reason in PREEMPTIONS and self.attempt < self.attempts else None

    def removes(self, state: State) -> bool:
        """Whether the cluster goes once its job has ended so."""
        return _removes(self.teardown, state) and not (self.until_running and state is State.SUCCEEDED)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; :meth:`from_json` reads it back."""
        return asdict(self) | {"streamed": list(self.streamed)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Policy:
        """Inverse of :meth:`to_json`."""
        tariff = Tariff(**data["tariff"]) if data.get("tariff") else None
        return cls(**{**data, "streamed": tuple(data["streamed"]), "tariff": tariff})


def _streamed(plan: Plan, streamed: StreamLogs) -> tuple[str, ...]:
    """The coordinator is one replica, rank 0's where all of them run the application."""
    coordinator = plan.role(plan.coordinator)
    replicas = tuple(f"{coordinator.name}-{index}" for index in range(coordinator.replicas))
    match streamed:
        case "none":
            return ()
        case "all" if len(plan.roles) > 1:
            return tuple(role.name for role in plan.roles)
        case "all":
            return replicas
    return replicas[:1]


@dataclass(frozen=True)
class Outcome:
    """How it ended.

    :param result: JSON text that the application left as its result, or None.
    :param next_attempt: number of the attempt that is due, as this one was preempted; None: that was all.
    :param cluster: its name.
    :param seconds: phase (``pending``, ``run``, ``teardown``) -> how long it took, of those that there were.
    :param cost: what it has cost, earlier attempts included, as :func:`~practicus_provider.pricing.cost` says it; None:
        nobody says what anything costs.
    """

    verdict: Verdict
    result: str | None = None
    next_attempt: int | None = None
    cluster: str = field(default="", compare=False)
    seconds: Mapping[str, float] = field(default_factory=dict, compare=False)
    cost: Mapping[str, Any] | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able mapping; :meth:`from_json` reads it back."""
        return {
            "verdict": self.verdict.to_json(),
            "result": self.result,
            "next_attempt": self.next_attempt,
            "cluster": self.cluster,
            "seconds": dict(self.seconds),
            "cost": dict(self.cost) if self.cost else None,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Outcome:
        """Inverse of :meth:`to_json`."""
        return cls(**{**data, "verdict": Verdict.from_json(data["verdict"])})

    def value(self) -> Any:
        """What the application gave to ``set_result``, or None.

        :raises JobFailed: it did not go well.
        """
        if self.verdict.state is not State.SUCCEEDED:
            raise JobFailed(self.verdict)
        return None if self.result is None else json.loads(self.result)


class Memory(Protocol):
    """Keeps an outcome while its cluster, which alone showed it, goes: who has formed it may die before it is told."""

    async def keep(self, outcome: Outcome) -> None:
        """For whoever follows the same cluster next."""

    async def kept(self) -> Outcome | None:
        """What was kept of this very cluster."""


async def follow(backend: Backend, handle: Handle, policy: Policy, say: Say, memory: Memory | None = None) -> Outcome:
    """Watch a cluster to its end (or its start), stream its logs, form the verdict, tear down.

    Cancelling this leaves the cluster as it is: another may follow it. Why a job has failed is not said here, but by
    who ends the task: most often it is Airflow, which logs the error that a task ends with.

    :param memory: where another may follow it after this one has died.
    """
    async with backend.session():
        return await _follow(backend, handle, policy, say, memory)


async def _follow(backend: Backend, handle: Handle, policy: Policy, say: Say, memory: Memory | None) -> Outcome:
    record = _Record(handle, policy)
    try:
        status = await _watch(backend, handle, policy, say, record)
    except NotFound:
        message = f"cluster {handle.name} was deleted while its task waited for it"
        status = Status(State.CANCELLED, verdict=Verdict(State.CANCELLED, Reason.DELETED, message))
    verdict = status.verdict or _verdict(handle, status, policy)
    if verdict.reason is Reason.DELETED and memory and (kept := await memory.kept()):
        say("the job's end was seen by a process before this one, which removed the cluster")
        return kept
    verdict, result = taken(verdict, status.result)
    outcome, attempt = record.outcome(verdict, result), policy.next_attempt(verdict)
    if attempt:
        say(verdict.text(), Level.WARNING)
    elif verdict.state is State.SUCCEEDED:
        say(verdict.text())
    if outcome.cost:
        say(cost_line(outcome.cost))
    if verdict.reason is Reason.DELETED:
        return outcome
    if attempt:
        outcome = replace(outcome, result=None, next_attempt=attempt)
    if memory and (attempt or policy.removes(verdict.state)):
        with _warned(say, "what became of the job could not be kept for whoever follows it next"):
            await memory.keep(outcome)
    ended_at = time.time()
    if attempt:
        # Now, and not by whoever launches the next one: until then nobody would see to it.
        await tear_down(backend, handle, "always", verdict, say)
        say(f"the job starts anew: attempt {attempt} of {policy.attempts}, by preemption_retries")
    elif verdict.state is not State.SUCCEEDED or not policy.until_running:
        await tear_down(backend, handle, policy.teardown, verdict, say)
    else:
        if policy.lease is not None:  # it is for others now, and lives until its timeout
            async with contextlib.aclosing(backend.watch(handle, lease=None)) as statuses:
                await anext(statuses)
        return outcome
    return replace(outcome, seconds={**outcome.seconds, "teardown": time.time() - ended_at})


async def kill(backend: Backend, handle: Handle, policy: Policy, why: str, say: Say) -> Outcome:
    """Remove a cluster whose task was ended from outside, and say what it came to: at once, as the log may be closed
    before all is gone.

    :param why: as a sentence.
    """
    record = _Record(handle, policy)
    verdict = Verdict(State.CANCELLED, Reason.DELETED, f"{why}, so its cluster {handle.name} is removed")
    async with backend.session():
        with contextlib.suppress(NotFound, TimeoutError):
            async with asyncio.timeout(GLANCE), contextlib.aclosing(backend.watch(handle, lease="keep")) as statuses:
                await anext(record.of(statuses))
        outcome = record.outcome(verdict)
        say(verdict.text(), Level.WARNING)
        if outcome.cost:
            say(cost_line(outcome.cost))
        await backend.delete(handle)
    say(f"cluster {handle.name} is removed")
    return outcome


class _Record:
    """What one follower has seen of a cluster's life."""

    def __init__(self, handle: Handle, policy: Policy) -> None:
        self._handle = handle
        self._policy = policy
        self._launched_at = policy.launched_at or time.time()
        self._running_at: float | None = None
        self._meter = Meter()

    async def of(self, statuses: AsyncIterator[Status]) -> AsyncIterator[Status]:
        """The statuses, each taken note of."""
        async for status in statuses:
            self._see(status, time.time())
            yield status

    def _see(self, status: Status, now: float) -> None:
        if self._policy.tariff:
            self._meter.see(status.replicas, now)
        if self._running_at is None and status.state is not State.PENDING:
            started = [replica.started_at for replica in status.replicas]
            known = [at for at in started if at is not None]
            if len(known) == len(started):  # when it did, whoever follows it since
                self._running_at = min(now, max(known, default=now))

    def outcome(self, verdict: Verdict, result: str | None = None) -> Outcome:
        """Of a cluster that has just ended, or that runs, as was waited for."""
        now, policy = time.time(), self._policy
        running_at = now if self._running_at is None else self._running_at
        seconds = {"pending": max(0.0, running_at - self._launched_at)}
        if self._running_at is not None and not policy.until_running:
            seconds["run"] = max(0.0, now - running_at)
        spent = None
        if policy.tariff and not policy.until_running:  # it goes on: its cost is not known yet
            spent = cost(policy.tariff, self._meter.seconds(now))
        return Outcome(verdict, result, cluster=self._handle.name, seconds=seconds, cost=spent)


def _verdict(handle: Handle, status: Status, policy: Policy) -> Verdict:
    """Of a cluster that has none itself: it runs, as was waited for, or nobody knows what became of it."""
    if policy.until_running and status.state is State.RUNNING:
        return Verdict(State.SUCCEEDED, Reason.COMPLETED, f"cluster {handle.name} is running")
    message = f"the watch of cluster {handle.name} ended without a verdict; {status.summary()}"
    return Verdict(State.FAILED, Reason.CLUSTER_LOST, message)


def _removes(teardown: Teardown | None, state: State) -> bool:
    return teardown == "always" or (teardown == "on_success" and state is State.SUCCEEDED)


async def tear_down(backend: Backend, handle: Handle, teardown: Teardown | None, verdict: Verdict, say: Say) -> None:
    """Remove a cluster at its end, or let it stay for :data:`KEEP` seconds, as ``teardown`` says.

    Where that cannot be done it is said: how the job ended is known, and stays true.
    """
    if teardown is None:
        return
    if _removes(teardown, verdict.state):
        with _warned(say, f"cluster {handle.name} is left, and goes by itself some time after its end or its timeout"):
            await backend.delete(handle, wait=False)
            say(f"cluster {handle.name} is removed")
    else:
        with _warned(say, f"cluster {handle.name} may go sooner than teardown={teardown!r} says"):
            await backend.delete(handle, after=KEEP)
            say(f"cluster {handle.name} stays for {KEEP:g} s, as teardown={teardown!r} says")


@contextlib.contextmanager
def _warned(say: Say, what: str) -> Iterator[None]:
    """Have an error said, and no more: the outcome is known, and none that comes after it may take its place."""
    try:
        yield
    except Exception as error:
        say(f"{what}: {str(error) or repr(error)}", Level.WARNING)


TaskLife = Literal["lives", "over", "unknown"]
"""Of the task that a cluster was made for, as far as one Airflow knows."""
FAILED_TASK = ("failed", "upstream_failed", "skipped", "removed")
"""States in which a task of a running DAG run needs no cluster. A success may: others share what it made."""
Lives = Callable[[Sequence[Mapping[str, Any]]], Sequence[TaskLife]]
"""Says for the facts of tasks whether they are over."""


def life_of(run: str | None, task: str | None) -> TaskLife:
    """Whether a task still has a use for its cluster.

    :param run: state of its DAG run; None: there is no such run. It may be another Airflow's.
    :param task: state of the task instance.
    """
    if run is None:
        return "unknown"
    return "over" if run in ("success", "failed") or task in FAILED_TASK else "lives"


async def orphans(backend: Backend, lives: Lives) -> list[Listing]:
    """Clusters whose task is over, and that nobody wished to keep.

    The clusters are listed before their tasks are looked at: a task is over for a cluster that was there before.
    """
    found = [listing for listing in await backend.list() if not listing.released]
    known = lives([listing.task for listing in found])
    return [listing for listing, life in zip(found, known, strict=True) if life == "over"]


async def sweep(backend: Backend, found: Sequence[Listing], lives: Lives) -> list[Listing]:
    """Remove orphans; each task is looked at once more just before, as it may have been cleared."""
    removed = []
    for listing in found:
        if lives([listing.task]) == ["over"]:
            await backend.delete(listing.handle)
            removed.append(listing)
    return removed


async def _watch(backend: Backend, handle: Handle, policy: Policy, say: Say, record: _Record) -> Status:
    """The final status, or the first one in which all run; the logs are streamed until then."""
    streaming = asyncio.create_task(_stream(backend, handle, policy.streamed, say))
    watching = backend.watch(handle, lease=policy.lease, disposable=policy.removes(State.SUCCEEDED))
    try:
        async with contextlib.aclosing(watching) as told:
            statuses = record.of(told)
            status = await _until_running(statuses, policy, say)
            if not (status.state.final or policy.until_running):
                async for later in _told(statuses, status, say):
                    status = later
        if status.state.final and not _timed_out(status):  # the log of one that did not start has no end to wait for
            await asyncio.wait((streaming,))
        return status
    finally:
        await stop(streaming)


async def _until_running(statuses: AsyncIterator[Status], policy: Policy, say: Say) -> Status:
    last = Status(State.PENDING)
    try:
        async with contextlib.aclosing(_told(statuses, last, say)) as told:
            last = await anext(told, last)  # due whatever the time: it may run already
            if last.state is not State.PENDING:
                return last
            async with asyncio.timeout(policy.start_deadline - time.time()):
                async for last in told:
                    if last.state is not State.PENDING:
                        return last
    except TimeoutError:
        message = f"not all replicas that must run did in time; {last.summary()}"
        advice = "Raise start_timeout=, or look at the log of a replica that is pending."
        verdict = Verdict(State.FAILED, Reason.START_TIMEOUT, message, advice)
        return replace(last, state=State.FAILED, verdict=verdict)
    return last


def _timed_out(status: Status) -> bool:
    return status.verdict is not None and status.verdict.reason is Reason.START_TIMEOUT


async def _told(statuses: AsyncIterator[Status], last: Status, say: Say) -> AsyncGenerator[Status, None]:
    """The statuses, each said once where it reads differently from the last; of a large cluster the newest one, now and
    then."""
    said, loop = last.summary(), asyncio.get_running_loop()
    due = -math.inf
    waiting: asyncio.TimerHandle | None = None

    def tell() -> None:
        nonlocal said, due, waiting
        waiting = None
        if (summary := last.summary()) != said:
            said, due = summary, loop.time() + SAID_EVERY
            say(summary)

    try:
        async for status in statuses:
            same, last = status.state is last.state, status
            if same and len(status.replicas) > LARGE and loop.time() < due:
                waiting = waiting or loop.call_at(due, tell)
            else:
                if waiting:
                    waiting.cancel()
                tell()
            yield status
    finally:
        if waiting:
            waiting.cancel()


async def _stream(backend: Backend, handle: Handle, streamed: tuple[str, ...], say: Say) -> None:
    """The logs, to their ends; where they cannot be read on it is said at once, and the job goes on."""
    with _warned(say, "the log ends here"), contextlib.suppress(NotFound):
        await _read(backend, handle, streamed, say)


async def _read(backend: Backend, handle: Handle, streamed: tuple[str, ...], say: Say) -> None:
    if not streamed:
        return
    entries, loop = Entries(say), asyncio.get_running_loop()
    try:
        async with contextlib.aclosing(backend.logs(handle, streamed)) as lines:
            async for line in lines:
                source = f"{line.role}-{line.index}"
                text = line.text if len(streamed) == 1 else f"[{source}] {line.text}"
                if entries.add(text, level_of(line.text), source, loop.time()):
                    loop.call_later(PERIOD, entries.flush)
    finally:
        entries.flush()
