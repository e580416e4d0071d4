"""Who trains in an elastic job, round by round, without a process or a clock."""

from __future__ import annotations

from typing import Any

import pytest
from practicus_runtime.contract import End, Limits
from practicus_runtime.membership import Group, Member, Phase


class Job:
    """A group whose members' orders are kept, at a time that the test says."""

    def __init__(
        self, *, stops: bool = True, minimum: int = 2, maximum: int = 3, slots: int = 1, **limits: Any
    ) -> None:
        rest = {"max_restarts": 1, "join_timeout": 60.0, "last_call_timeout": 10.0} | limits
        self.group = Group(Limits(minimum, maximum, **rest), stops=stops)
        self.slots = slots
        self.now = 0.0
        self.orders: dict[str, list[dict[str, Any]]] = {}

    def come(self, *names: str) -> None:
        for name in names:
            orders = self.orders[name] = []
            tell = lambda orders=orders, **order: orders.append(order)  # noqa: E731
            self.group.join(Member(name, f"host-of-{name}", 29500, self.slots, tell), self.now)
        self.group.step(self.now)

    def go(self, *names: str) -> None:
        for name in names:
            self.group.leave(name)
        self.group.step(self.now)

    def free(self, *names: str) -> None:
        for name in names:
            self.group.free(name)
        self.group.step(self.now)

    def fail(self, name: str, rank: int, at: float = 1.0, number: int | None = None) -> None:
        self.group.fail(name, End(None if number else 1, number, rank=rank, at=at), [])
        self.group.step(self.now)

    def finish(self, *names: str) -> None:
        for name in names:
            self.group.finish(name, f"result of {name}")
        self.group.step(self.now)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        self.group.step(self.now)

    def last(self, name: str) -> dict[str, Any]:
        return self.orders[name][-1]

    @property
    def seen(self) -> tuple[int, list[str], Phase]:
        return self.group.round, self.group.present, self.group.phase


def running(**how: Any) -> Job:
    """Three members in their first round."""
    job = Job(**how)
    job.come("worker-0", "worker-1", "worker-2")
    assert job.seen == (1, ["worker-0", "worker-1", "worker-2"], Phase.RUNNING)
    return job


# ---- rounds begin


def test_all_that_may_come_begin_at_once_with_their_ranks_in_order():
    job = running(slots=2)
    token = job.group.members["worker-1"].token
    assert job.last("worker-1") == {
        "do": "run",
        "round": 1,
        "rank": 2,
        "world": 6,
        "index": 1,
        "members": 3,
        "master": ["host-of-worker-0", 29500],
        "max_restarts": 1,
        "token": token,
    }
    assert len({member.token for member in job.group.members.values()}) == 3


def test_as_many_as_must_be_there_wait_for_others_until_the_last_call_is_over():
    job = Job()
    job.come("worker-0", "worker-1")
    job.wait(9)
    assert job.seen == (0, [], Phase.GATHERING)
    job.wait(1)
    assert job.seen == (1, ["worker-0", "worker-1"], Phase.RUNNING)


def test_too_few_wait_for_others_and_fail_with_their_number():
    job = Job()
    job.come("worker-0")
    job.wait(59)
    assert job.group.phase is Phase.GATHERING
    job.wait(1)
    assert job.group.why == "there are 1 of at least 2 workers, and no other has come within 60 s"
    assert job.last("worker-0") == {"do": "end"}


def test_a_name_joins_once_and_nobody_joins_a_job_that_is_over():
    job = running()
    with pytest.raises(PermissionError, match="worker-0 cannot join"):
        job.come("worker-0")
    job.finish("worker-0", "worker-1", "worker-2")
    with pytest.raises(PermissionError, match="worker-3 cannot join"):
        job.come("worker-3")


# ---- rounds end


def test_a_job_ends_well_once_all_of_a_round_have_and_its_result_is_rank_0s():
    job = running()
    job.finish("worker-1", "worker-2")
    assert (job.group.phase, job.group.wanted) == (Phase.RUNNING, 0)
    job.finish("worker-0")
    assert (job.group.phase, job.group.why, job.group.result) == (Phase.OVER, "", "result of worker-0")


def test_one_that_leaves_after_all_of_its_ranks_ended_well_is_not_lost():
    job = running()
    job.finish("worker-0", "worker-1")
    job.go("worker-1")
    job.finish("worker-2")
    assert (job.group.phase, job.group.why) == (Phase.OVER, "")


def test_with_torch_a_loss_stops_all_and_the_rest_go_on_in_a_round_of_their_own():
    job = running()
    job.go("worker-0")
    assert job.last("worker-1") == {"do": "stop", "gently": False}
    assert job.group.wanted == 3
    job.free("worker-1", "worker-2")
    job.wait(10)
    assert job.seen == (2, ["worker-1", "worker-2"], Phase.RUNNING)
    assert (job.last("worker-1")["rank"], job.last("worker-2")["rank"]) == (0, 1)
    assert job.group.restarts == 0


def test_who_takes_a_lost_ones_place_comes_after_those_who_stayed():
    job = running()
    job.go("worker-0")
    job.free("worker-1", "worker-2")
    job.come("worker-10")
    assert job.seen == (2, ["worker-1", "worker-2", "worker-10"], Phase.RUNNING)


def test_one_that_has_a_lost_ones_name_is_new_all_the_same():
    """As where the newest pod is removed by force; with Horovod, what it has learnt would replace all else."""
    job = running(stops=False)
    job.go("worker-0")
    job.come("worker-0")
    job.free("worker-1", "worker-2")
    assert job.seen == (2, ["worker-1", "worker-2", "worker-0"], Phase.RUNNING)


def test_one_that_has_a_lost_ones_name_interrupts_those_who_went_on():
    job = Job(minimum=1, maximum=2)
    job.come("worker-0", "worker-1")
    job.go("worker-1")
    job.free("worker-0")
    job.wait(10)
    assert job.seen == (2, ["worker-0"], Phase.RUNNING)
    job.come("worker-1")
    assert job.last("worker-0") == {"do": "stop", "gently": True}


def test_one_that_joins_interrupts_a_round_gently():
    job = Job()
    job.come("worker-0", "worker-1")
    job.wait(10)
    job.come("worker-2")
    assert job.last("worker-0") == {"do": "stop", "gently": True}
    job.free("worker-0", "worker-1")
    assert job.seen == (2, ["worker-0", "worker-1", "worker-2"], Phase.RUNNING)
    assert job.group.restarts == 0


def test_those_who_join_one_after_the_other_interrupt_a_round_once():
    job = Job(minimum=1, maximum=5)
    job.come("worker-0")
    job.wait(10)
    job.come("worker-1")
    job.wait(9)
    job.come("worker-2")
    assert job.group.phase is Phase.RUNNING
    job.wait(1)
    assert job.group.phase is Phase.BREAKING


def test_nobody_is_interrupted_by_one_who_has_joined_and_left_again():
    job = Job(minimum=1, maximum=5)
    job.come("worker-0")
    job.wait(10)
    job.come("worker-1")
    job.go("worker-1")
    job.wait(100)
    assert job.seen == (1, ["worker-0"], Phase.RUNNING)


def test_one_that_joins_as_others_end_well_waits_for_the_end():
    job = Job()
    job.come("worker-0", "worker-1")
    job.wait(10)
    job.finish("worker-0")
    job.come("worker-2")
    job.finish("worker-1")
    assert (job.group.phase, job.last("worker-2")) == (Phase.OVER, {"do": "end"})


# ---- failures


def test_a_rank_that_fails_has_all_begin_anew_as_often_as_the_job_allows():
    job = running()
    for _ in range(2):
        job.fail("worker-1", 1)
        job.free("worker-0", "worker-2")
    assert job.group.why == "rank 1 (worker-1) failed, and max_restarts=1"
    assert job.seen == (2, ["worker-0", "worker-1", "worker-2"], Phase.OVER)


@pytest.mark.parametrize(
    ("failures", "first"),
    [
        ([("worker-0", 0, 2.0, None), ("worker-1", 1, 1.0, None)], 1),
        ([("worker-0", 0, 1.0, None), ("worker-1", 1, 2.0, 9)], 1),
        ([("worker-0", 0, 1.0, None), ("worker-1", 1, 2.0, 15)], 0),
    ],
    ids=["earlier", "killed", "terminated"],
)
def test_the_cause_is_the_failure_that_came_first_however_it_was_heard_of(failures, first):
    job = running(max_restarts=0)
    for failure in failures:
        job.fail(*failure)
    job.free("worker-2")
    assert (job.group.cause.end.rank, job.group.cause.end.replica) == (first, f"worker-{first}")


def test_ranks_that_fail_because_a_member_was_lost_do_not_count():
    job = running(max_restarts=0)
    job.fail("worker-1", 1)
    job.go("worker-0")
    job.fail("worker-2", 2)
    job.wait(10)
    assert job.seen == (2, ["worker-1", "worker-2"], Phase.RUNNING)


def test_a_failure_that_leaves_too_few_is_named_in_the_end():
    job = running(stops=False)
    job.fail("worker-1", 1)
    job.go("worker-1")
    job.go("worker-2")
    job.free("worker-0")
    job.wait(60)
    assert job.group.why.startswith("there are 1 of at least 2 workers")
    assert job.group.cause.end.rank == 1


# ---- Horovod's rules


def test_with_horovod_a_loss_stops_nobody_and_all_come_back():
    job = running(stops=False)
    job.go("worker-0")
    assert [job.last(name)["do"] for name in ("worker-1", "worker-2")] == ["run", "run"]
    job.free("worker-2", "worker-1")
    job.come("worker-3")
    assert job.seen == (2, ["worker-1", "worker-2", "worker-3"], Phase.RUNNING)


def test_with_horovod_rank_0_alone_is_told_that_others_have_joined():
    job = Job(stops=False)
    job.come("worker-0", "worker-1")
    job.wait(10)
    job.come("worker-2")
    assert (job.last("worker-0"), job.last("worker-1")["do"]) == ({"do": "notice", "round": 1}, "run")


def test_with_horovod_nobody_begins_anew_without_those_that_have_ended_well():
    job = running(stops=False)
    job.finish("worker-0")
    job.fail("worker-1", 1)
    job.go("worker-1")
    job.free("worker-2")
    assert job.group.why == "rank 1 (worker-1) failed after others had ended well"


def test_with_horovod_ranks_that_give_up_again_and_again_end_the_job():
    job = running(stops=False)
    for _ in range(2):
        job.free("worker-0", "worker-1", "worker-2")
    assert job.group.why == "ranks gave up a round, and max_restarts=1"
