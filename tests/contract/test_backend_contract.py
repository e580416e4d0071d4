"""What every backend promises."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from practicus_provider.backends.base import Backend, Connection, Handle, Listing, LogLine
from practicus_provider.errors import BackendError, NotFound
from practicus_provider.plan import Here, Host, Plan, Port
from practicus_provider.spec import Elastic, Resources
from practicus_provider.status import Reason, State, Verdict
from tests.judged import JUDGED, Judged
from tests.plans import PATIENCE, SLEEP, TASK, asking, created, end, page, plan, read, role, server, until

SUCCEED = "import practicus_runtime as p; p.set_result({'answer': 42})"
FAIL = "raise ValueError('no such column: delay')"


async def test_a_job_that_ends_well_succeeds_with_its_result(backend: Backend) -> None:
    async with created(backend, "job", plan(role("driver", SUCCEED))) as handle:
        status = await end(backend, handle)
    assert status.verdict == Verdict(State.SUCCEEDED, Reason.COMPLETED, "driver-0 ended", exit_code=0)
    assert (status.state, status.result) == (State.SUCCEEDED, '{"answer": 42}')
    assert [(r.name, r.state, r.exit_code) for r in status.replicas] == [("driver-0", State.SUCCEEDED, 0)]


async def test_a_job_without_a_result_has_none(backend: Backend) -> None:
    async with created(backend, "job", plan(role("driver", "pass"))) as handle:
        assert (await end(backend, handle)).result is None


async def test_a_job_that_fails_says_its_exit_code_and_the_traceback(backend: Backend) -> None:
    async with created(backend, "job", plan(role("driver", FAIL))) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert (verdict.reason, verdict.message, verdict.exit_code) == (Reason.ERROR, "driver-0 exited with code 1", 1)
    assert verdict.log_tail[0] == "Traceback (most recent call last):"
    assert verdict.log_tail[-1] == "ValueError: no such column: delay"


async def test_a_job_that_is_killed_says_by_which_signal(backend: Backend) -> None:
    code = "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)"
    async with created(backend, "job", plan(role("driver", code))) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert (verdict.reason, verdict.signal, verdict.exit_code) == (Reason.KILLED, "SIGSEGV", None)
    assert verdict.message == "driver-0 was killed by SIGSEGV"


async def test_a_command_that_does_not_exist_fails_with_its_name(backend: Backend) -> None:
    from practicus_provider.plan import Launch, Role

    async with created(backend, "job", plan(Role("driver", Launch(("no-such-program",))))) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert verdict.exit_code == 127
    assert verdict.log_tail == ("cannot start no-such-program: No such file or directory",)


async def test_what_the_system_does_not_start_fails_with_its_words_and_is_created_once(backend: Backend) -> None:
    longest = role("driver", "pass", env={"LONG": "x" * (128 << 10)})
    async with asyncio.timeout(PATIENCE), created(backend, "job", plan(longest)) as handle:
        verdict = (await end(backend, handle)).verdict
        assert [listing.handle for listing in await backend.list()] == [handle]
    assert verdict is not None
    assert verdict.state is State.FAILED
    assert "argument list too long" in verdict.text().lower()


async def test_a_replica_reaches_another_one_by_reference_once_that_is_ready(backend: Backend) -> None:
    greet = Port("coordinator", "greet")
    code = "import os, socket; print(socket.create_connection(os.environ['AT'].split(':')).makefile().readline())"
    driver = role("driver", code, env={"AT": (Host("coordinator"), ":", greet)}, after=(greet,))
    async with created(backend, "job", plan(driver, server())) as handle:
        assert (await end(backend, handle)).state is State.SUCCEEDED
        assert (await read(backend, handle, "driver"))[0] == LogLine("driver", 0, "hello")


async def test_a_port_that_nobody_opens_is_waited_for_as_long_as_the_start_may_take_and_then_is_the_verdict(
    backend: Backend,
) -> None:
    greet = Port("coordinator", "greet")
    deaf = role("coordinator", SLEEP, ports={"greet": 9000})
    async with created(
        backend, "job", plan(deaf, role("driver", "print('up')", after=(greet,)), start_timeout=1.5)
    ) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert (verdict.reason, verdict.replica, verdict.exit_code) == (Reason.UNREACHABLE, "driver-0", 69)
    assert "s for coordinator-0 (" in verdict.message
    assert verdict.message.endswith(") in vain: connection refused")
    (said,) = verdict.log_tail
    assert said.startswith("gave up waiting for coordinator-0 (")


async def test_a_replica_is_told_its_place_its_task_and_its_files(backend: Backend) -> None:
    code = (
        "import practicus_runtime as p, pathlib, sys, os; c = p.context();"
        "print(c.role, c.index, c.dag_id, pathlib.Path(sys.argv[1]).read_text(), pathlib.Path('made/x').read_text(),"
        "sys.argv[2:], os.path.samefile(os.getcwd(), sys.argv[3]))"
    )
    text = 'it\'s "${HOME}" `id` $(id)'
    driver = role("driver", code, (Here.APP, "/data.txt"), Here.INDEX, Here.SCRATCH, text, files={"made/x": "made"})
    async with created(backend, "job", plan(driver, files={"data.txt": b"shipped"})) as handle:
        assert (await end(backend, handle)).state is State.SUCCEEDED
        line = (await read(backend, handle, "driver"))[0].text
    assert line.startswith("driver 0 d shipped made ['0', ")
    assert line.endswith(f"{text!r}] True")


async def test_a_users_search_path_does_not_hide_the_applications_and_ours(backend: Backend) -> None:
    code = "import practicus_runtime, shipped, sys; print('/of/the/user' in sys.path)"
    driver = role("driver", code, env={"PYTHONPATH": "/of/the/user"})
    async with created(backend, "job", plan(driver, files={"shipped.py": b""})) as handle:
        assert (await end(backend, handle)).state is State.SUCCEEDED
        assert await read(backend, handle, "driver") == [LogLine("driver", 0, "True")]


async def test_airflows_own_settings_and_secrets_do_not_reach_a_replica(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "secret")
    monkeypatch.setenv("AIRFLOW_CONN_DATABASE", "secret")
    code = "import os; print([name for name in os.environ if 'AIRFLOW' in name])"
    async with created(backend, "job", plan(role("driver", code))) as handle:
        await end(backend, handle)
        assert [line.text for line in await read(backend, handle, "driver")] == ["[]"]


async def test_the_cluster_runs_once_all_replicas_run(backend: Backend) -> None:
    async with created(backend, "cluster", plan(server(), decides=None)) as handle:
        status = await until(backend, handle, lambda status: status.state is State.RUNNING)
        assert [replica.state for replica in status.replicas] == [State.RUNNING]


# ---- failure ends the job at once


HAPPENS = {name: judged for name, judged in JUDGED.items() if judged.happens}


@pytest.mark.parametrize("judged", HAPPENS.values(), ids=HAPPENS)
async def test_a_job_ends_as_the_table_of_all_cases_says_and_by_the_replica_that_it_names(
    backend: Backend, judged: Judged
) -> None:
    async with created(backend, "job", judged.plan) as handle:
        status = await end(backend, handle)
    assert status.verdict is not None
    assert status.verdict.reason is judged.reason
    if judged.reason is Reason.COMPLETED:
        assert [replica.state for replica in status.replicas] == [State.SUCCEEDED] * len(judged.ends)
    else:
        code = next(told.code for told in judged.ends if told.replica == judged.cause)
        alike = {told.replica for told in judged.ends if told.code == code}  # of which any may be the one
        assert (status.verdict.replica in alike, status.verdict.exit_code) == (True, code)


async def test_a_cluster_that_outlives_its_timeout_ends_with_that_verdict_and_what_the_driver_wrote_last(
    backend: Backend,
) -> None:
    async with created(backend, "job", plan(role("driver", "print('at work'); " + SLEEP), timeout=10.0)) as handle:
        status = await end(backend, handle)  # in that time it has started and written a line, on either backend
    assert status.verdict == Verdict(
        State.FAILED,
        Reason.DEADLINE_EXCEEDED,
        "the cluster's time was over after 10 s, its timeout",
        "If its last lines show it at work, raise timeout=, or make the job faster. "
        "If not, look at what it waited for.",
        replica="driver-0",
        log_tail=("at work",),
    )


# ---- logs


async def test_every_line_is_read_once_also_by_a_reader_that_comes_later(backend: Backend) -> None:
    code = "import time\nfor i in range(200): print('line', i, flush=True); time.sleep(0.005)\nprint('end', end='')"
    async with created(backend, "job", plan(role("driver", code))) as handle:
        lines = []
        async with contextlib.aclosing(backend.logs(handle, ["driver"])) as stream:
            async for line in stream:
                lines.append(line.text)
                if len(lines) == 50:
                    break
        lines += [line.text for line in await read(backend, handle, "driver")]
        assert lines == [*(f"line {i}" for i in range(200)), "end"]
        assert await read(backend, handle, "driver") == []


async def test_a_line_that_does_not_end_is_cut_and_the_log_goes_on(backend: Backend) -> None:
    code = "import sys\nprint('a')\nfor _ in range(50): sys.stdout.write('x' * 100_000)\nprint(); print('b')"
    async with created(backend, "job", plan(role("driver", code))) as handle:
        assert (await end(backend, handle)).state is State.SUCCEEDED
        before, long, after = [line.text for line in await read(backend, handle, "driver")]
    assert (before, after) == ("a", "b")
    assert re.fullmatch(r"x+ \(\.\.\. \d+ bytes of this line are left out \.\.\.\) x+", long)
    assert len(long) < 2_000_000


async def test_a_bar_that_redraws_itself_is_a_few_lines_and_does_not_stand_before_others(backend: Backend) -> None:
    code = (
        "import sys, practicus_runtime as p\n"
        "for step in range(5000):\n"
        "    sys.stdout.write(f'\\r{step:4}|####')\n"
        "    if step % 1000 == 999: p.progress(step / 5000)\n"
        "sys.stdout.write('\\rdone \\n')"
    )
    async with created(backend, "job", plan(role("driver", code))) as handle:
        assert (await end(backend, handle)).state is State.SUCCEEDED
        lines = [line.text for line in await read(backend, handle, "driver")]
    assert len(lines) < 100
    assert [line for line in lines if "|" not in line] == [*(f"[progress {at:4.0%}]" for at in BARS), "done"]
    assert all(re.fullmatch(r" *\d+\|#*", line) for line in lines if "|" in line)


BARS = [step / 5000 for step in range(999, 5000, 1000)]


async def test_only_the_roles_that_are_asked_for_are_read(backend: Backend) -> None:
    both = plan(role("worker", "print('w'); " + SLEEP), role("driver", "import time; time.sleep(0.3); print('d')"))
    async with created(backend, "job", both) as handle:
        assert await read(backend, handle, "driver") == [LogLine("driver", 0, "d")]


# ---- create or adopt


async def test_two_creators_at_once_get_one_cluster(backend: Backend) -> None:
    job = plan(role("driver", SLEEP))
    handles = await asyncio.gather(*(backend.create("job", job, task=TASK) for _ in range(4)))
    assert len(set(handles)) == 1
    assert [listing.handle for listing in await backend.list()] == [handles[0]]
    await backend.delete(handles[0])


async def test_all_replicas_of_a_cluster_know_its_key_whoever_created_it_and_those_of_another_do_not(
    backend: Backend,
) -> None:
    code = "import hashlib, os; key = os.environ['MINE']; assert len(key) >= 32; "
    code += "print(hashlib.sha256(key.encode()).hexdigest())"
    job = plan(role("driver", code, replicas=2, env={"MINE": Here.KEY}))
    said = []
    for name in ("one", "other"):
        handles = await asyncio.gather(*(backend.create(name, job, task=TASK) for _ in range(4)))
        assert (await end(backend, handles[0])).state is State.SUCCEEDED
        said.append({line.text for line in await read(backend, handles[0], "driver")})
        await backend.delete(handles[0])
    assert [len(keys) for keys in said] == [1, 1]
    assert said[0] != said[1]


async def test_a_live_cluster_is_adopted_and_a_finished_one_too(backend: Backend) -> None:
    async with created(backend, "job", plan(role("driver", SUCCEED))) as handle:
        assert await backend.create("job", plan(role("driver", FAIL)), task=TASK) == handle
        await end(backend, handle)
        assert await backend.create("job", plan(role("driver", FAIL)), task=TASK) == handle
        assert (await end(backend, handle)).result == '{"answer": 42}'


async def test_a_failed_cluster_is_replaced(backend: Backend) -> None:
    first = await backend.create("job", plan(role("driver", FAIL)), task=TASK)
    await end(backend, first)
    async with created(backend, "job", plan(role("driver", SUCCEED))) as second:
        assert second.name == first.name
        assert second.uid != first.uid
        assert (await end(backend, second)).state is State.SUCCEEDED
        with pytest.raises(NotFound, match=f"there is no cluster job \\({first.uid}\\)"):
            await end(backend, first)


async def test_several_creators_of_a_job_that_fails_at_once_create_no_more_than_one_each(backend: Backend) -> None:
    job = plan(role("driver", FAIL))
    async with asyncio.timeout(PATIENCE):
        handles = await asyncio.gather(*(backend.create("job", job, task=TASK) for _ in range(3)))
        [listing] = await backend.list()
        assert listing.handle in handles
        assert (await end(backend, listing.handle)).state is State.FAILED
    await backend.delete(listing.handle)


async def test_a_released_cluster_runs_on_but_is_not_adopted(backend: Backend) -> None:
    first = await backend.create("job", plan(role("driver", SLEEP)), task=TASK)
    await backend.delete(first, after=300)
    assert (await until(backend, first, lambda status: True)).state is not State.CANCELLED
    async with created(backend, "job", plan(role("driver", SLEEP))) as second:
        assert second.uid != first.uid


async def test_a_released_cluster_ends_when_its_time_is_over(backend: Backend) -> None:
    async with created(backend, "job", plan(role("driver", SLEEP))) as handle:
        await backend.delete(handle, after=0.5)
        assert (await end(backend, handle)).state is State.CANCELLED


# ---- the end


async def test_a_deleted_cluster_is_gone_and_deleting_it_again_is_fine(backend: Backend) -> None:
    handle = await backend.create("job", plan(role("driver", SLEEP)), task=TASK)
    assert [(listing.handle, listing.task) for listing in await backend.list()] == [(handle, TASK)]
    await backend.delete(handle)
    await backend.delete(handle)
    assert await backend.list() == []
    with pytest.raises(NotFound):
        await end(backend, handle)
    with pytest.raises(NotFound):
        await read(backend, handle, "driver")


async def test_a_cluster_that_is_not_there_is_not_found(backend: Backend) -> None:
    with pytest.raises(NotFound, match=r"^there is no cluster nobody in "):
        await backend.find("nobody")


@pytest.mark.parametrize("path", ["{}/../{}", "../root/{}", "../{}", "..", "."])
async def test_a_path_is_no_cluster_s_name_wherever_it_leads(backend: Backend, path: str) -> None:
    async with created(backend, "job", plan(role("driver", SLEEP))) as handle:
        name = path.format(handle.name, handle.name)
        with pytest.raises(NotFound, match=r"^there is no"):
            await backend.find(name)
        with pytest.raises(NotFound, match=r"^there is no"):
            await read(backend, Handle(name, handle.uid), "driver")


async def test_a_cluster_is_replaced_once_its_task_was_cleared(backend: Backend) -> None:
    first = await backend.create("job", plan(role("driver", SLEEP)), task=TASK | {"first_try": 1})
    async with created(backend, "job", plan(role("driver", SLEEP)), task=TASK | {"first_try": 2}) as second:
        assert second != first
        assert [listing.handle for listing in await backend.list()] == [second]


async def test_who_merely_looks_at_a_log_takes_no_line_from_the_task(backend: Backend) -> None:
    async with created(backend, "job", plan(role("driver", "print('a'); print('b')"))) as handle:
        await end(backend, handle)
        lines = [LogLine("driver", 0, text) for text in ("a", "b")]
        assert [line async for line in backend.logs(handle, ["driver"], whole=True)] == lines
        assert await read(backend, handle, "driver") == lines
        assert [line async for line in backend.logs(handle, ["driver"], whole=True)] == lines
        assert await read(backend, handle, "driver") == []


async def test_the_log_of_a_cluster_that_is_deleted_meanwhile_ends(backend: Backend) -> None:
    handle = await backend.create("job", plan(role("driver", f"print('at work', flush=True); {SLEEP}")), task=TASK)
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(backend.logs(handle, ["driver"])) as lines:
        assert await anext(lines) == LogLine("driver", 0, "at work")
        await backend.delete(handle)
        with contextlib.suppress(NotFound):
            assert [line async for line in lines] == []


ENDS = (("well", "pass"), ("badly", "raise SystemExit(3)"))
KEPT = 8.0
"""Seconds after which a cluster that is said to stay must be there."""


async def test_a_cluster_that_its_task_keeps_is_listed_as_such(backend: Backend) -> None:
    handle = await backend.create("job", plan(role("driver", SLEEP)), task=TASK)
    await backend.delete(handle, after=600)
    assert [listing.released for listing in await backend.list()] == [True]
    await backend.delete(handle)


async def test_a_cluster_is_kept_whether_its_job_failed_or_not(backend: Backend) -> None:
    handles = [
        await backend.create(name, plan(role("driver", f"print({name!r}); {code}")), task=TASK) for name, code in ENDS
    ]
    ends = [(await end(backend, handle)).state for handle in handles]
    for handle in handles:
        await backend.delete(handle, after=600)
    await asyncio.sleep(KEPT)
    assert [(await backend.find(handle.name)).state for handle in handles] == ends
    for handle in handles:
        said = [line.text async for line in backend.logs(handle, ["driver"], whole=True)]
        assert said[0] == handle.name
        await backend.delete(handle)


async def test_what_is_deleted_without_waiting_is_gone_soon_and_its_name_is_free_at_once(backend: Backend) -> None:
    handle = await backend.create("job", plan(role("driver", SLEEP)), task=TASK)
    await until(backend, handle, lambda status: status.state is State.RUNNING)
    await backend.delete(handle, wait=False)
    assert all(listing.leaving for listing in await backend.list())
    async with created(backend, "job", plan(role("driver", SLEEP))) as other:
        assert other != handle
        with pytest.raises(NotFound):
            await end(backend, handle)


@pytest.mark.parametrize("disposable", [True, False])
async def test_the_end_of_a_job_is_the_same_whether_its_replicas_may_go_or_not(
    backend: Backend, disposable: bool
) -> None:
    says = "import practicus_runtime as p; p.set_result([1]); print('last line')"
    async with created(backend, "job", plan(role("driver", says))) as handle:
        reading = asyncio.create_task(read(backend, handle, "driver"))
        async with asyncio.timeout(PATIENCE):
            status = [status async for status in backend.watch(handle, disposable=disposable)][-1]
        assert (status.state, status.result) == (State.SUCCEEDED, "[1]")
        assert await reading == [LogLine("driver", 0, "last line")]
        again = await end(backend, handle)  # as by whoever comes after a watcher that died before it told
        assert (again.state, again.result) == (State.SUCCEEDED, "[1]")


async def test_whoever_watches_sees_the_deletion_as_a_cancellation(backend: Backend) -> None:
    handle = await backend.create("job", plan(role("driver", SLEEP)), task=TASK)
    watching = asyncio.create_task(end(backend, handle))
    await until(backend, handle, lambda status: status.state is State.RUNNING)
    await asyncio.sleep(0)
    await backend.delete(handle)
    status = await watching
    assert status.verdict == Verdict(State.CANCELLED, Reason.DELETED, "the cluster was deleted")


@pytest.mark.parametrize(
    "job",
    [plan(role("driver", SLEEP)), plan(role("driver", ""), replace(role("driver2", SLEEP), part_of="driver"))],
    ids=["while its one role runs", "while a further part runs"],
)
async def test_a_cluster_that_nobody_watches_ends_with_its_lease(backend: Backend, job: Plan) -> None:
    handle = await backend.create("job", job, task=TASK, lease=60.0)
    async with contextlib.aclosing(backend.watch(handle, lease=0.5)) as statuses:
        await anext(statuses)
    async with asyncio.timeout(PATIENCE):
        while await backend.list():
            await asyncio.sleep(0.05)


async def test_a_cluster_that_is_watched_outlives_its_lease(backend: Backend) -> None:
    async with (
        created(backend, "job", plan(role("driver", SLEEP)), lease=0.5) as handle,
        contextlib.aclosing(backend.watch(handle)) as statuses,
    ):
        await anext(statuses)
        await until(backend, handle, lambda status: status.state is State.RUNNING)
        await asyncio.sleep(1.0)
        assert (await until(backend, handle, lambda status: True)).state is State.RUNNING


# ---- elastic roles

ELASTIC = role("worker", SLEEP, elastic=Elastic(1, 3))


async def test_an_elastic_role_grows_to_what_the_one_that_spawns_it_asks_for(backend: Backend) -> None:
    driver = asking("worker", 3)
    async with created(backend, "job", plan(ELASTIC, driver)) as handle:
        status = await until(
            backend, handle, lambda s: sum(r.state is State.RUNNING and r.role == "worker" for r in s.replicas) == 3
        )
        assert [r.name for r in status.replicas if r.role == "worker"] == ["worker-0", "worker-1", "worker-2"]


@pytest.mark.parametrize("name", ["driver", "ghost"])
async def test_scaling_what_is_not_elastic_is_refused(backend: Backend, name: str) -> None:
    async with created(backend, "job", plan(ELASTIC, asking(name, 2))) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    assert verdict.log_tail[-1] == f"{name!r} is not an elastic role of this cluster"


async def test_an_elastic_replica_that_leaves_does_not_end_the_job(backend: Backend) -> None:
    leaving = role("worker", "import time; time.sleep(0.3)", replicas=2, elastic=Elastic(1, 3))
    async with created(backend, "job", plan(leaving, role("driver", "import time; time.sleep(1.5)"))) as handle:
        await until(backend, handle, lambda s: [r.role for r in s.replicas] == ["driver"])
        assert (await end(backend, handle)).state is State.SUCCEEDED


# ---- jobs on a shared cluster


async def test_a_job_on_a_shared_cluster_reaches_it_and_leaves_it_running(backend: Backend) -> None:
    greet = Port("coordinator", "greet")
    code = "import sys, socket; print(socket.create_connection(sys.argv[1:]).makefile().readline(), end='')"
    whole = plan(server(), role("driver", code, Host("coordinator"), greet, after=(greet,)))
    async with created(backend, "cluster", whole.serving()) as cluster:
        for name in ("first", "second"):
            async with created(backend, name, whole.deciding(), parent=cluster) as job:
                assert (await end(backend, job)).state is State.SUCCEEDED
                assert await read(backend, job, "driver") == [LogLine("driver", 0, "hello")]
        assert (await until(backend, cluster, lambda status: True)).state is State.RUNNING


async def test_a_shared_cluster_takes_its_jobs_with_it(backend: Backend) -> None:
    whole = plan(server(), role("driver", SLEEP))
    cluster = await backend.create("cluster", whole.serving(), task=TASK)
    job = await backend.create("job", whole.deciding(), task=TASK, parent=cluster)
    await until(backend, job, lambda status: status.state is State.RUNNING)
    watching = asyncio.create_task(end(backend, job))
    await asyncio.sleep(0.2)
    await backend.delete(cluster)
    status = await watching
    assert status.verdict is not None
    assert status.verdict.reason in (Reason.CLUSTER_LOST, Reason.DELETED)
    assert await backend.list() == []


async def test_a_cluster_that_never_was_is_not_found(backend: Backend) -> None:
    with pytest.raises(NotFound, match="there is no cluster ghost"):
        await end(backend, Handle("ghost", "0"))
    assert await backend.list() == []


async def test_the_listing_says_state_and_task(backend: Backend) -> None:
    async with created(backend, "job", plan(role("driver", SLEEP))) as handle:
        await until(backend, handle, lambda status: status.state is State.RUNNING)
        [listing] = await backend.list()
        known = {"adapter": "test", "coordinator": "driver", "resources": {"driver": Resources()}}
        assert listing == Listing(handle, listing.status, TASK, listing.created_at, **known)
        assert [(replica.name, replica.state) for replica in listing.status.replicas] == [("driver-0", State.RUNNING)]
        assert listing.state is State.RUNNING
        assert abs(listing.created_at - time.time()) < PATIENCE
        assert await backend.find("job") == listing


# ---- from outside of the cluster

PAGE = Port("coordinator", "page")


@contextlib.asynccontextmanager
async def connected(backend: Backend, handle: Handle) -> AsyncIterator[Connection]:
    """A connection to the page, once it is served."""
    async with asyncio.timeout(PATIENCE):
        while True:
            connection = None
            with contextlib.suppress(BackendError):
                connection = await backend.connect(handle, PAGE)
                await connection.write(b"hello")
                if await connection.read():
                    break
            if connection is not None:
                await connection.close()
            await asyncio.sleep(0.1)
    try:
        yield connection
    finally:
        await connection.close()


async def test_what_a_replica_serves_on_loopback_is_reached_from_outside(backend: Backend) -> None:
    async with (
        created(backend, "cluster", plan(page(), decides=None)) as handle,
        connected(backend, handle) as connection,
    ):
        await connection.write(b"again")
        assert await connection.read() == b"again"


async def test_a_connection_carries_much_and_who_writes_waits_for_who_reads(backend: Backend) -> None:
    block, counts = bytes(range(256)) * 256, {"sent": 0, "read": 0}

    async def send(connection: Connection) -> None:
        while True:
            await connection.write(block)
            counts["sent"] += len(block)

    async def stalled() -> None:
        before = -1
        while counts["sent"] != before:
            before = counts["sent"]
            await asyncio.sleep(0.5)

    async with (
        created(backend, "cluster", plan(page(), decides=None)) as handle,
        connected(backend, handle) as connection,
        asyncio.timeout(3 * PATIENCE),
    ):
        sending = asyncio.create_task(send(connection))
        await stalled()
        expected = counts["sent"]
        while counts["read"] < expected:
            data = await connection.read()
            start = counts["read"] % len(block)
            assert data == (block * (len(data) // len(block) + 2))[start : start + len(data)]
            counts["read"] += len(data)
        sending.cancel()


async def test_who_closes_a_connection_closes_it_for_the_replica(backend: Backend) -> None:
    async with created(backend, "cluster", plan(page(), decides=None)) as handle:
        async with connected(backend, handle):
            pass
        async with asyncio.timeout(PATIENCE), contextlib.aclosing(backend.logs(handle, ["coordinator"])) as lines:
            assert await anext(lines) == LogLine("coordinator", 0, "closed")


async def test_the_reason_why_a_port_is_not_reached_is_said(backend: Backend) -> None:
    async with created(backend, "cluster", plan(page(), decides=None)) as handle:
        async with connected(backend, handle):
            pass
        with pytest.raises(BackendError, match=r"(?i)connection refused"):
            await (await backend.connect(handle, Port("coordinator", "nobody"))).read()
        for port in (Port("coordinator", "other"), Port("worker", "page")):
            message = f"cluster cluster has no port '{port.name}' of a role '{port.role}'"
            with pytest.raises(BackendError, match=message):
                await backend.connect(handle, port)
        with pytest.raises(NotFound):
            await backend.connect(Handle("cluster", "another"), PAGE)


async def test_a_cluster_is_found_by_its_name_with_the_pages_it_serves(backend: Backend) -> None:
    async with created(backend, "cluster", plan(page(), decides=None, links={"Page": PAGE})) as handle:
        await until(backend, handle, lambda status: status.state is State.RUNNING)
        [listing] = await backend.list()
        assert (listing.links, await backend.find("cluster")) == ({"Page": PAGE}, listing)
    with pytest.raises(NotFound, match="there is no cluster cluster in "):
        await backend.find("cluster")
