from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from practicus_provider import lifecycle
from practicus_provider.adapters import make_plan
from practicus_provider.backends.base import Backend, Connection, Handle, Lease, Listing, LogLine
from practicus_provider.errors import BackendError, JobFailed, NotFound
from practicus_provider.lifecycle import KEEP, Outcome, Policy, tear_down
from practicus_provider.log import Level, Say
from practicus_provider.plan import Plan, Port
from practicus_provider.pricing import Tariff
from practicus_provider.spec import JobSpec
from practicus_provider.status import Reason, ReplicaStatus, State, Status, Verdict
from tests.said import Said

HANDLE = Handle("c-1", "uid")
FAR = 1e12
POLICY = Policy(start_deadline=FAR, streamed=("driver",))

PENDING = Status(State.PENDING, (ReplicaStatus("driver", 0, State.PENDING),))
RUNNING = Status(State.RUNNING, (ReplicaStatus("driver", 0, State.RUNNING),))
DONE = Status(
    State.SUCCEEDED,
    (ReplicaStatus("driver", 0, State.SUCCEEDED),),
    Verdict(State.SUCCEEDED, Reason.COMPLETED, "driver-0 exited with code 0"),
    result='{"rows": 3}',
)
BROKEN = Status(
    State.FAILED,
    (ReplicaStatus("driver", 0, State.FAILED),),
    Verdict(State.FAILED, Reason.ERROR, "driver-0 exited with code 1", replica="driver-0", exit_code=1),
)
FOREVER = "forever"
GONE = "gone"


@dataclass
class Scripted(Backend):
    """Plays a script: statuses (and seconds between them) one by one; log lines, each there from that step on.

    :ivar deleted: the arguments ``after`` of every deletion.
    """

    statuses: list[Status | float | str]
    lines: list[tuple[int, LogLine]] = field(default_factory=list)
    deleted: list[float] = field(default_factory=list)
    leases: list[Lease] = field(default_factory=list)
    disposable: list[bool] = field(default_factory=list)
    listings: list[Listing] = field(default_factory=list)
    watchers: int = 0
    now: int = -1
    taken: int = 0

    async def create(self, name: str, plan: Plan, **how: Any) -> Handle:
        return HANDLE

    async def watch(
        self, handle: Handle, *, lease: Lease = "keep", disposable: bool = False
    ) -> AsyncGenerator[Status, None]:
        self.leases.append(lease)
        self.disposable.append(disposable)
        self.watchers += 1
        try:
            for status in self.statuses:
                self.now += 1
                for _ in range(10):
                    await asyncio.sleep(0)
                match status:
                    case "forever":
                        await asyncio.Event().wait()
                    case float():
                        await asyncio.sleep(status)
                    case "gone":
                        raise NotFound(f"there is no cluster {handle.name}")
                    case Status():
                        yield status
        finally:
            self.watchers -= 1

    async def logs(
        self, handle: Handle, roles: Collection[str], *, whole: bool = False
    ) -> AsyncGenerator[LogLine, None]:
        while True:
            ended = self.now >= len(self.statuses) - 1 and self.statuses[-1] != FOREVER
            while self.taken < len(self.lines) and self.lines[self.taken][0] <= self.now:
                self.taken += 1
                line = self.lines[self.taken - 1][1]
                if line.role in roles:
                    yield line
            if ended:
                return
            await asyncio.sleep(0)

    def preview(self, name: str, plan: Plan, **how: Any) -> Any:
        raise NotImplementedError

    async def delete(self, handle: Handle, *, after: float = 0, wait: bool = True) -> None:
        assert handle == HANDLE
        self.deleted.append(after)

    async def list(self) -> list[Listing]:
        return self.listings

    async def find(self, name: str) -> Listing:
        raise NotFound(name)

    async def connect(self, handle: Handle, port: Port) -> Connection:
        raise NotFound(handle.name)

    async def check(self) -> str:
        return ""


@dataclass
class Kept:
    """A memory.

    :ivar deleted: how many deletions its backend had been asked for as it was told to keep something.
    """

    backend: Scripted
    outcome: Outcome | None = None
    deleted: list[int] = field(default_factory=list)

    async def keep(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.deleted.append(len(self.backend.deleted))

    async def kept(self) -> Outcome | None:
        return self.outcome


async def follow(backend: Backend, policy: Policy, say: Say = print, memory: Kept | None = None) -> Outcome:
    """As the real one, but what waits for ever fails."""
    async with asyncio.timeout(2):
        return await lifecycle.follow(backend, HANDLE, policy, say, memory)


def line(text: str, role: str = "driver", index: int = 0) -> LogLine:
    return LogLine(role, index, text)


async def test_a_success_is_followed_to_its_end_and_its_cluster_is_removed():
    backend, said = Scripted([PENDING, RUNNING, DONE]), Said()
    outcome = await follow(backend, POLICY, said)
    assert outcome == Outcome(DONE.verdict, '{"rows": 3}')
    assert outcome.value() == {"rows": 3}
    assert said == [
        "pending: driver 1 pending",
        "running: driver 1 running",
        "succeeded: driver 1 succeeded",
        "Completed: driver-0 exited with code 0",
        "cluster c-1 is removed",
    ]
    assert (backend.deleted, backend.watchers) == ([0], 0)


async def test_a_failure_is_an_outcome_that_raises_its_verdict():
    outcome = await follow(Scripted([RUNNING, BROKEN]), POLICY)
    assert outcome == Outcome(BROKEN.verdict)
    with pytest.raises(JobFailed, match=r"^Error: driver-0 exited with code 1$") as error:
        outcome.value()
    assert error.value.verdict == BROKEN.verdict


@pytest.mark.parametrize(
    ("teardown", "end", "deleted"),
    [
        ("always", DONE, [0]),
        ("always", BROKEN, [0]),
        ("on_success", DONE, [0]),
        ("on_success", BROKEN, [KEEP]),
        ("never", DONE, [KEEP]),
        ("never", BROKEN, [KEEP]),
        (None, DONE, []),
        (None, BROKEN, []),
    ],
)
async def test_what_becomes_of_the_cluster_is_as_teardown_says(teardown, end, deleted):
    backend, said = Scripted([RUNNING, end]), Said()
    await follow(backend, replace(POLICY, teardown=teardown), said)
    assert backend.deleted == deleted
    assert [text for text in said if text.startswith("cluster")] == {
        (): [],
        (0,): ["cluster c-1 is removed"],
        (KEEP,): [f"cluster c-1 stays for 3600 s, as teardown={teardown!r} says"],
    }[tuple(deleted)]


@pytest.mark.parametrize(
    ("policy", "disposable"),
    [
        (POLICY, True),
        (replace(POLICY, teardown="on_success"), True),
        (replace(POLICY, teardown="never"), False),
        (replace(POLICY, teardown=None), False),
        (replace(POLICY, until_running=True), False),
    ],
)
async def test_replicas_may_go_at_their_good_end_where_the_cluster_does_too(policy, disposable):
    backend = Scripted([RUNNING, DONE])
    await follow(backend, policy)
    assert backend.disposable[0] is disposable


async def test_a_cluster_that_does_not_start_in_time_fails_with_what_is_pending():
    status = Status(
        State.PENDING, (ReplicaStatus("driver", 0, State.RUNNING), ReplicaStatus("worker", 0, State.PENDING))
    )
    backend = Scripted([status, FOREVER])
    outcome = await follow(backend, replace(POLICY, start_deadline=0.0))
    assert outcome == Outcome(
        Verdict(
            State.FAILED,
            Reason.START_TIMEOUT,
            "not all replicas that must run did in time; pending: driver 1 running; worker 1 pending",
            "Raise start_timeout=, or look at the log of a replica that is pending.",
        )
    )
    assert (backend.deleted, backend.watchers) == ([0], 0)


async def test_the_log_of_a_cluster_that_does_not_start_in_time_is_read_to_its_end(monkeypatch):
    monkeypatch.setattr(lifecycle.time, "time", lambda: 0.0)
    backend, said = Scripted([PENDING, FOREVER], [(0, line("cannot reach the coordinator"))]), Said()
    await follow(backend, replace(POLICY, start_deadline=0.1), said)
    assert said.count("cannot reach the coordinator") == 1


async def test_a_cluster_that_runs_already_is_followed_though_the_time_to_start_is_over():
    outcome = await follow(Scripted([RUNNING, DONE]), replace(POLICY, start_deadline=0.0))
    assert outcome.verdict == DONE.verdict


async def test_the_time_to_start_does_not_concern_a_cluster_that_runs(monkeypatch):
    monkeypatch.setattr(lifecycle.time, "time", lambda: 0.0)
    outcome = await follow(Scripted([RUNNING, 0.1, DONE]), replace(POLICY, start_deadline=0.05))
    assert outcome.verdict == DONE.verdict


def taken(reason: Reason) -> Status:
    return replace(BROKEN, verdict=Verdict(State.FAILED, reason, "driver-0 was taken", replica="driver-0"))


@pytest.mark.parametrize("reason", [Reason.EVICTED, Reason.PREEMPTED, Reason.NODE_LOST])
@pytest.mark.parametrize("teardown", ["always", "on_success", "never"])
async def test_what_was_preempted_is_removed_at_once_and_is_due_again(reason, teardown):
    backend, said = Scripted([PENDING, RUNNING, taken(reason)]), Said()
    outcome = await follow(backend, replace(POLICY, teardown=teardown, attempts=3), said)
    assert (outcome, backend.deleted) == (Outcome(taken(reason).verdict, next_attempt=2), [0])
    assert said[-3:] == [
        f"{reason}: driver-0 was taken",
        "cluster c-1 is removed",
        "the job starts anew: attempt 2 of 3, by preemption_retries",
    ]
    assert said.levels[f"{reason}: driver-0 was taken"] is Level.WARNING


@pytest.mark.parametrize(
    ("status", "attempt"), [(taken(Reason.EVICTED), 3), (BROKEN, 1), (DONE, 1), (taken(Reason.OOM_KILLED), 1)]
)
async def test_what_failed_otherwise_or_too_often_is_the_tasks_own_end(status, attempt):
    backend = Scripted([PENDING, RUNNING, status])
    outcome = await follow(backend, replace(POLICY, teardown="never", attempt=attempt, attempts=3))
    assert (outcome.next_attempt, backend.deleted) == (None, [KEEP])


async def test_each_log_line_is_said_once_and_the_last_ones_before_the_end():
    lines = [(0, line("starting")), (1, line("working")), (1, line("still")), (2, line("bye"))]
    backend, said = Scripted([PENDING, RUNNING, DONE], lines), Said()
    await follow(backend, POLICY, said)
    assert [text for text in said if text in ("starting", "working", "still", "bye")] == [
        "starting",
        "working",
        "still",
        "bye",
    ]
    assert said.index("bye") < said.index("Completed: driver-0 exited with code 0")


async def test_very_many_lines_are_all_said_in_few_entries_and_before_the_end():
    lines = [(0, line(f"line {number}")) for number in range(2000)]
    backend, said = Scripted([RUNNING, 0.5, DONE], lines), Said()
    await follow(backend, POLICY, said)
    entries = [text for text in said if text.startswith("line")]
    assert "\n".join(entries).split("\n") == [text.text for _, text in lines]
    assert len(entries) < 200
    assert said.index(entries[-1]) < said.index("Completed: driver-0 exited with code 0")


async def test_a_line_has_the_level_that_it_says_and_is_its_replicas():
    lines = [(0, line("WARN Foo: hot")), (0, line("ERROR: cold", "worker", 1))]
    said, log = Said(), [*lines, (0, line("hello"))]
    await follow(Scripted([RUNNING, DONE], log), replace(POLICY, streamed=("driver", "worker")), said)
    levels = {"[driver-0] WARN Foo: hot": Level.WARNING, "[worker-1] ERROR: cold": Level.ERROR}
    assert said.levels == dict.fromkeys(said, Level.INFO) | levels
    assert {text: source for text, source in said.sources.items() if source} == {
        "[driver-0] WARN Foo: hot": "driver-0",
        "[worker-1] ERROR: cold": "worker-1",
        "[driver-0] hello": "driver-0",
    }


@pytest.mark.parametrize("status", [BROKEN, taken(Reason.EVICTED)])
async def test_why_a_job_has_failed_is_for_who_ends_the_task_to_say(status):
    said = Said()
    outcome = await follow(Scripted([RUNNING, status]), POLICY, said)
    assert outcome == Outcome(status.verdict)
    assert said == ["running: driver 1 running", "failed: driver 1 failed", "cluster c-1 is removed"]


async def test_lines_of_several_roles_say_whose_they_are():
    lines = [(0, line("a")), (0, line("b", "worker", 1)), (0, line("c", "other"))]
    backend, said = Scripted([RUNNING, DONE], lines), Said()
    await follow(backend, replace(POLICY, streamed=("driver", "worker")), said)
    assert [text for text in said if text[-1] in "abc" and " " in text[-3:]] == ["[driver-0] a", "[worker-1] b"]


async def test_no_log_is_read_where_none_is_wanted():
    backend = Scripted([RUNNING, DONE], [(0, line("a"))])
    await follow(backend, replace(POLICY, streamed=()))
    assert backend.taken == 0


async def test_a_status_that_reads_like_the_last_is_not_said_again():
    said = Said()
    await follow(Scripted([PENDING, PENDING, RUNNING, RUNNING, DONE]), POLICY, said)
    assert said[:3] == ["pending: driver 1 pending", "running: driver 1 running", "succeeded: driver 1 succeeded"]


def large(running: int, state: State = State.PENDING) -> Status:
    """A large cluster, of which so many run."""
    states = [State.RUNNING] * running + [State.PENDING] * (200 - running)
    return Status(state, tuple(ReplicaStatus("worker", index, each) for index, each in enumerate(states)))


async def test_of_a_large_cluster_each_new_state_is_said_and_not_each_replica_that_starts(monkeypatch):
    monkeypatch.setattr(lifecycle, "SAID_EVERY", FAR)
    said = Said()
    await follow(Scripted([*map(large, range(200)), large(200, State.RUNNING), DONE]), POLICY, said)
    expected = ["pending: worker 200 pending", "running: worker 200 running", "succeeded: driver 1 succeeded"]
    assert said[:3] == expected


async def test_what_has_become_of_a_large_cluster_by_then_is_said_after_a_time_though_nothing_changes(monkeypatch):
    monkeypatch.setattr(lifecycle, "SAID_EVERY", 0.05)
    said = Said()
    await follow(Scripted([*map(large, range(100)), 0.2, DONE]), POLICY, said)
    assert said[said.index("pending: worker 99 running, 101 pending") + 1] == "succeeded: driver 1 succeeded"


@pytest.mark.parametrize("before", [[], [PENDING], [RUNNING]])
async def test_a_cluster_that_is_gone_is_a_failure_and_not_a_success(before):
    backend = Scripted([*before, GONE])
    outcome = await follow(backend, POLICY)
    assert outcome == Outcome(
        Verdict(State.CANCELLED, Reason.DELETED, "cluster c-1 was deleted while its task waited for it")
    )
    with pytest.raises(JobFailed, match="was deleted while its task waited"):
        outcome.value()
    assert backend.deleted == []


DELETED = Status(State.CANCELLED, verdict=Verdict(State.CANCELLED, Reason.DELETED, "the cluster was deleted"))
PREEMPTED = Status(State.FAILED, verdict=Verdict(State.FAILED, Reason.PREEMPTED, "worker-0 was preempted"))


@pytest.mark.parametrize("end", [GONE, DELETED], ids=["gone", "going"])
@pytest.mark.parametrize("first", [DONE, BROKEN, PREEMPTED], ids=["success", "failure", "preemption"])
async def test_who_follows_after_one_that_died_as_it_tore_down_finds_what_that_one_found(first, end):
    backend, policy = Scripted([RUNNING, first]), replace(POLICY, attempts=2)
    memory = Kept(backend)
    outcome = await follow(backend, policy, memory=memory)
    assert (memory.deleted, backend.deleted) == ([0], [0])
    again = Scripted([RUNNING, end])
    assert await follow(again, policy, memory=memory) == outcome
    assert again.deleted == []


@pytest.mark.parametrize("policy", [replace(POLICY, teardown="never"), replace(POLICY, until_running=True)])
async def test_of_a_cluster_that_stays_nothing_is_kept(policy):
    backend = Scripted([RUNNING, DONE])
    memory = Kept(backend)
    await follow(backend, policy, memory=memory)
    assert memory.deleted == []


@pytest.mark.parametrize("before", [[], [PENDING], [RUNNING]])
async def test_a_watch_that_ends_without_a_verdict_is_a_failure_and_not_a_success(before):
    outcome = await follow(Scripted([*before]), POLICY)
    assert outcome.verdict.state is State.FAILED
    assert outcome.verdict.reason is Reason.CLUSTER_LOST


@pytest.mark.parametrize("before", [PENDING, RUNNING])
async def test_cancelling_leaves_the_cluster_alone(before):
    backend = Scripted([before, FOREVER], [(0, line("a"))])
    following = asyncio.create_task(follow(backend, POLICY))
    while backend.now < 1:
        await asyncio.sleep(0)
    following.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await following
    assert following.cancelled()
    assert (backend.deleted, backend.watchers) == ([], 0)


class LastWords(Scripted):
    """Its logs take a while to end; the watch does not.

    :ivar saying: whether they are about to.
    :ivar said: whether they have.
    """

    saying = False
    said = False

    async def logs(
        self, handle: Handle, roles: Collection[str], *, whole: bool = False
    ) -> AsyncGenerator[LogLine, None]:
        try:
            async for line in super().logs(handle, roles, whole=whole):
                yield line
        finally:
            self.saying = True
            for _ in range(100):
                await asyncio.sleep(0)
            self.said = True


def test_as_a_whole_event_loop_ends_the_logs_may_say_their_last_words():
    backend = LastWords([RUNNING, FOREVER])

    async def begin() -> None:
        following.append(asyncio.create_task(follow(backend, POLICY)))
        while backend.now < 1:
            await asyncio.sleep(0)

    following: list[asyncio.Task[Outcome]] = []
    asyncio.run(begin())
    assert (following[0].cancelled(), backend.said) == (True, True)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize(
    ("statuses", "policy", "said"),
    [
        ([RUNNING, DONE], POLICY, False),
        ([PENDING, FOREVER], replace(POLICY, start_deadline=0.0), True),
        ([RUNNING, FOREVER], replace(POLICY, until_running=True, lease=5.0), True),
    ],
    ids=["over", "not started in time", "running, as was waited for"],
)
async def test_who_is_cancelled_as_the_log_ends_leaves_the_cluster_alone(statuses, policy, said, times):
    backend = LastWords(statuses)
    following = asyncio.create_task(follow(backend, policy))
    while not backend.saying:
        await asyncio.sleep(0)
    for _ in range(times):
        following.cancel()
        await asyncio.sleep(0)
    await asyncio.wait((following,))
    assert (following.cancelled(), backend.said) == (True, said)
    assert (backend.deleted, backend.watchers, backend.leases) == ([], 0, [policy.lease])


async def test_who_only_waits_for_the_start_stops_there_and_removes_nothing():
    backend, said = Scripted([PENDING, RUNNING, FOREVER]), Said()
    outcome = await follow(backend, replace(POLICY, until_running=True), said)
    assert outcome == Outcome(Verdict(State.SUCCEEDED, Reason.COMPLETED, "cluster c-1 is running"))
    assert outcome.value() is None
    assert (said[-1], backend.deleted, backend.watchers) == ("Completed: cluster c-1 is running", [], 0)


async def test_a_cluster_that_is_for_others_lives_on_without_whoever_waited_for_its_start():
    backend = Scripted([PENDING, RUNNING, FOREVER])
    await follow(backend, replace(POLICY, until_running=True, lease=5.0))
    assert backend.leases == [5.0, None]


async def test_a_cluster_that_fails_before_it_runs_is_removed_by_who_waits_for_its_start():
    backend = Scripted([PENDING, BROKEN])
    outcome = await follow(backend, replace(POLICY, until_running=True))
    assert (outcome, backend.deleted) == (Outcome(BROKEN.verdict), [0])


# ---- what fails after the end


class Faulty(Scripted):
    """Neither deletes anything nor ends its logs well.

    :ivar error: what it fails with.
    """

    error: Exception = BackendError("no way there")

    async def delete(self, handle: Handle, *, after: float = 0, wait: bool = True) -> None:
        await super().delete(handle, after=after, wait=wait)
        raise self.error

    async def logs(
        self, handle: Handle, roles: Collection[str], *, whole: bool = False
    ) -> AsyncGenerator[LogLine, None]:
        async for line in super().logs(handle, roles, whole=whole):
            yield line
        raise self.error


class Torn(Scripted):
    """Its logs break after the first line."""

    async def logs(
        self, handle: Handle, roles: Collection[str], *, whole: bool = False
    ) -> AsyncGenerator[LogLine, None]:
        async for line in super().logs(handle, roles, whole=whole):
            yield line
            raise ValueError("Chunk too big")


async def test_a_log_that_cannot_be_read_on_is_said_at_once_and_the_job_goes_on():
    said = Said()
    outcome = await follow(Torn([RUNNING, 0.1, DONE], [(0, line("a")), (0, line("b"))]), POLICY, said)
    assert outcome.verdict == DONE.verdict
    words = [text for text in said if text in ("a", "b") or "log ends" in text or text.startswith("succeeded")]
    assert words == ["a", "the log ends here: Chunk too big", "succeeded: driver 1 succeeded"]


@pytest.mark.parametrize("error", [BackendError("no way there"), OSError("no way there"), ZeroDivisionError()])
@pytest.mark.parametrize("end", [DONE, BROKEN])
@pytest.mark.parametrize(
    ("teardown", "what"),
    [
        ("always", "cluster c-1 is left, and goes by itself some time after its end or its timeout"),
        ("never", "cluster c-1 may go sooner than teardown='never' says"),
    ],
)
async def test_what_became_of_the_job_stays_true_where_nothing_after_it_works(error, end, teardown, what):
    backend, said = Faulty([RUNNING, end]), Said()
    backend.error = error
    outcome = await follow(backend, replace(POLICY, teardown=teardown), said)
    assert outcome == Outcome(end.verdict, end.result)
    words = str(error) or repr(error)
    assert [text for text in said if words in text] == [f"the log ends here: {words}", f"{what}: {words}"]
    assert len(backend.deleted) == 1


async def test_what_was_preempted_is_due_again_where_its_cluster_could_not_be_removed():
    backend = Faulty([RUNNING, taken(Reason.EVICTED)])
    outcome = await follow(backend, replace(POLICY, attempts=2))
    assert outcome == Outcome(taken(Reason.EVICTED).verdict, next_attempt=2)


@dataclass
class Forgetful(Kept):
    """A memory that cannot keep anything."""

    async def keep(self, outcome: Outcome) -> None:
        raise OSError("no room")


async def test_a_cluster_is_removed_also_where_its_outcome_could_not_be_kept():
    backend, said = Scripted([RUNNING, DONE]), Said()
    outcome = await follow(backend, POLICY, said, Forgetful(backend))
    assert (outcome, backend.deleted) == (Outcome(DONE.verdict, DONE.result), [0])
    assert said[-2:] == [
        "what became of the job could not be kept for whoever follows it next: no room",
        "cluster c-1 is removed",
    ]


@pytest.mark.parametrize("lease", [None, 5.0])
async def test_the_cluster_has_the_policys_lease_from_now_on(lease):
    backend = Scripted([DONE])
    await follow(backend, replace(POLICY, lease=lease))
    assert backend.leases == [lease]


async def test_tearing_down_is_also_for_who_did_not_follow():
    backend, said = Scripted([]), Said()
    await tear_down(backend, HANDLE, "always", BROKEN.verdict, said)
    assert (backend.deleted, said) == ([0], ["cluster c-1 is removed"])


@pytest.mark.parametrize(
    "policy",
    [
        POLICY,
        Policy(1.5, ("a", "b"), "never", 5.0, True),
        Policy(1.5, (), None, attempt=2, attempts=3),
        Policy(1.5, (), adapter="dask", launched_at=0.5, tariff=Tariff("USD", {"a": 1.5}, {"a": 60.0})),
    ],
)
def test_a_policy_is_equal_after_its_way_through_json(policy):
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy


@pytest.mark.parametrize("outcome", [Outcome(DONE.verdict, "[1]"), Outcome(BROKEN.verdict, next_attempt=2)])
def test_an_outcome_is_equal_after_its_way_through_json(outcome):
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


@pytest.mark.parametrize(
    ("stream_logs", "streamed"),
    [("coordinator", ("driver-0",)), ("all", ("coordinator", "worker", "driver")), ("none", ())],
)
def test_the_policy_is_what_the_spec_asks_for(monkeypatch, stream_logs, streamed):
    monkeypatch.setattr(lifecycle.time, "time", lambda: 1000.0)
    spec = JobSpec.of(adapter="dask", start_timeout=60, teardown="never", stream_logs=stream_logs)
    plan = make_plan(spec, ("x",))
    since = {"adapter": "dask", "launched_at": 1000.0}
    assert Policy.of(spec, plan, lease=5.0) == Policy(1060.0, streamed, "never", 5.0, False, **since)
    assert Policy.of(spec, plan, until_running=True) == Policy(1060.0, streamed, "never", None, True, **since)


def test_a_job_may_be_preempted_as_often_as_its_spec_says_and_one_attempt_more_is_made():
    spec = JobSpec.of(adapter="dask", preemption_retries=2)
    policy = Policy.of(spec, make_plan(spec, ("x",)), attempt=2)
    assert (policy.attempt, policy.attempts) == (2, 3)


@pytest.mark.parametrize(
    ("stream_logs", "streamed"),
    [("coordinator", ("worker-0",)), ("all", ("worker-0", "worker-1", "worker-2")), ("none", ())],
)
def test_of_ranks_the_first_is_streamed_or_each_of_them_by_name(stream_logs, streamed):
    spec = JobSpec.of(adapter="torch", workers=3, stream_logs=stream_logs)
    assert Policy.of(spec, make_plan(spec, ("x",))).streamed == streamed


# ---- how long it took, and what it cost


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that it is; each look at it takes no time."""
    now = [1000.0]
    monkeypatch.setattr(lifecycle.time, "time", lambda: now[0])
    return now


@dataclass
class Timed(Scripted):
    """As scripted, and each status at its time."""

    clock: list[float] = field(default_factory=list)
    at: list[float] = field(default_factory=list)

    async def watch(self, handle: Handle, **how: Any) -> AsyncGenerator[Status, None]:
        async for status in super().watch(handle, **how):
            self.clock[0] = self.at[self.now]
            yield status

    async def delete(self, handle: Handle, **how: Any) -> None:
        await super().delete(handle, **how)
        self.clock[0] += 2


def ran(role: str, index: int, start: float | None, end: float | None = None) -> ReplicaStatus:
    state = State.PENDING if start is None else State.RUNNING if end is None else State.SUCCEEDED
    return ReplicaStatus(role, index, state, started_at=start, ended_at=end)


TARIFF = Tariff("USD", {"driver": 3.6, "worker": 36.0})
MEASURED = replace(POLICY, adapter="dask", launched_at=1000.0, tariff=TARIFF)
DRIVER, WORKER = ran("driver", 0, 1010.0), ran("worker", 0, 1005.0)
LIFE = [
    Status(State.PENDING, (ran("driver", 0, None), WORKER)),
    Status(State.RUNNING, (DRIVER, WORKER, ran("worker", 1, 1012.0))),
    Status(State.RUNNING, (DRIVER, WORKER)),  # the second one is elastic, and has left
    replace(DONE, replicas=(ran("driver", 0, 1010.0, 1040.0), WORKER)),
]
TIMES = [1006.0, 1020.0, 1030.0, 1041.0]


async def test_a_followed_cluster_says_how_long_its_phases_took(clock):
    outcome = await follow(Timed(LIFE, clock=clock, at=TIMES), MEASURED)
    assert outcome.seconds == {"pending": 12.0, "run": 29.0, "teardown": 2.0}


async def test_who_follows_a_cluster_from_its_middle_on_knows_since_when_it_runs(clock):
    outcome = await follow(Timed(LIFE[2:], clock=clock, at=TIMES[2:]), MEASURED)
    assert outcome.seconds == {"pending": 10.0, "run": 31.0, "teardown": 2.0}


async def test_a_cluster_that_does_not_run_has_only_been_pending(clock):
    backend = Timed([LIFE[0], replace(BROKEN, replicas=(ran("driver", 0, None), WORKER))], clock=clock, at=TIMES)
    assert (await follow(backend, MEASURED)).seconds == {"pending": 20.0, "teardown": 2.0}


async def test_who_waits_for_the_start_alone_measures_that_alone(clock):
    outcome = await follow(Timed(LIFE, clock=clock, at=TIMES), replace(MEASURED, until_running=True))
    assert (outcome.seconds, outcome.cost) == ({"pending": 12.0}, None)


async def test_the_cost_is_that_of_each_replica_for_as_long_as_it_ran_and_is_said(clock):
    said = Said()
    outcome = await follow(Timed(LIFE, clock=clock, at=TIMES), MEASURED, said)
    seconds = {"driver": 30.0, "worker": 36.0 + 18.0}
    assert outcome.cost == {"currency": "USD", "total": 0.57, "seconds": seconds}
    assert "cost: 0.5700 USD (worker 54 s, driver 30 s)" in said
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))).cost == outcome.cost


async def test_what_an_attempt_before_has_cost_is_part_of_it(clock):
    tariff = replace(TARIFF, before={"driver": 10.0})
    outcome = await follow(Timed(LIFE, clock=clock, at=TIMES), replace(MEASURED, tariff=tariff))
    assert outcome.cost == {"currency": "USD", "total": 0.58, "seconds": {"driver": 40.0, "worker": 54.0}}


async def test_where_nobody_says_what_anything_costs_nothing_is_said(clock):
    said = Said()
    outcome = await follow(Timed(LIFE, clock=clock, at=TIMES), replace(MEASURED, tariff=None), said)
    assert (outcome.cost, [line for line in said if "cost" in line]) == (None, [])


# ---- what is left over


@pytest.mark.parametrize(
    ("run", "task", "life"),
    [
        (None, None, "unknown"),
        ("success", "success", "over"),
        ("failed", None, "over"),
        ("running", "success", "lives"),
        ("running", "failed", "over"),
        ("running", "skipped", "over"),
        ("running", "removed", "over"),
        ("running", "upstream_failed", "over"),
        *(("running", state, "lives") for state in ("running", "deferred", "queued", "up_for_retry", None)),
        ("queued", "restarting", "lives"),
    ],
)
def test_a_task_is_over_if_no_try_of_it_and_nobody_after_it_can_use_its_cluster(run, task, life):
    assert lifecycle.life_of(run, task) == life


def listing(run: str, *, released: bool = False) -> Listing:
    return Listing(HANDLE, Status(State.RUNNING), {"run_id": run}, 0.0, released)


def lives(tasks: Sequence[Mapping[str, Any]]) -> list[lifecycle.TaskLife]:
    return [task["run_id"] for task in tasks]


async def test_orphans_are_clusters_whose_task_is_over_and_that_nobody_keeps():
    found = [listing("lives"), listing("over"), listing("unknown"), listing("over", released=True)]
    assert await lifecycle.orphans(Scripted([], listings=found), lives) == [listing("over")]


async def test_a_task_that_was_cleared_since_keeps_its_cluster():
    backend = Scripted([])
    assert await lifecycle.sweep(backend, [listing("over")], lambda tasks: ["lives"]) == []
    assert backend.deleted == []
    assert await lifecycle.sweep(backend, [listing("over")], lives) == [listing("over")]
    assert backend.deleted == [0]
