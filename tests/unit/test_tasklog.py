from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import practicus_provider
from practicus_provider.errors import BackendError, ConnectionConfigError, JobFailed, PracticusError, SpecError
from practicus_provider.lifecycle import Outcome
from practicus_provider.log import Level
from practicus_provider.operators.cluster import PracticusDeleteClusterOperator, PracticusSubmitJobOperator
from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.sensors.job import PracticusJobSensor
from practicus_provider.status import Reason, State, Verdict
from practicus_provider.tasklog import NoFramesOfOurs, into

OURS = str(Path(practicus_provider.__file__).parent)
CLUSTER = {"name": "c-1", "uid": "u"}
BAD = Outcome(Verdict(State.FAILED, Reason.ERROR, "driver-0 exited with code 1", log_tail=("x",)))


Entries = list[tuple[str | None, str, str]]


@pytest.fixture
def airflow() -> Iterator[Callable[[Level], Entries]]:
    """Sets structlog up as Airflow does, at a level; gives logger, level and text of what is written."""
    entries: Entries = []

    class Named:
        def __init__(self, name: str | None = None) -> None:
            self.name = name

        def __getattr__(self, method: str) -> Callable[..., None]:
            return lambda event: entries.append((self.name, method, event))

    def text(logger: Any, method: str, event: Any) -> str:
        return str(event["event"])

    def airflow(level: Level) -> Entries:
        kind = structlog.make_filtering_bound_logger(level)
        structlog.configure([text], kind, logger_factory=Named, cache_logger_on_first_use=False)
        return entries

    before = structlog.get_config()
    yield airflow
    structlog.configure(**before)


@pytest.mark.parametrize(
    ("level", "comes"),
    [
        (Level.DEBUG, [*Level]),
        (Level.INFO, [Level.INFO, *list(Level)[1:]]),
        (Level.WARNING, [Level.WARNING, Level.ERROR, Level.CRITICAL]),
        (Level.ERROR, [Level.ERROR, Level.CRITICAL]),
    ],
)
def test_a_replicas_lines_have_its_name_and_their_level_and_none_is_lost_where_airflow_logs_information(
    airflow, level, comes
):
    written, say = airflow(level), into(structlog.get_logger("task"))
    for said in Level:
        say("100 %s {x}", said, "driver-0")
    assert written == [("driver-0", shown.name.lower(), "100 %s {x}") for shown in comes]


def test_our_own_lines_are_the_tasks(airflow):
    written, say = airflow(Level.INFO), into(structlog.get_logger("task"))
    say("running: driver 1 running")
    say("it was preempted", Level.WARNING)
    assert written == [("task", "info", "running: driver 1 running"), ("task", "warning", "it was preempted")]


def frames(run: Callable[..., Any], kind: type[PracticusError], **arguments: Any) -> list[str]:
    """Files that the traceback of an error goes through."""
    with pytest.raises(kind) as raised:
        run(**arguments)
    return [frame.filename for frame in traceback.extract_tb(raised.value.__traceback__)]


def dask() -> PracticusDaskOperator:
    return PracticusDaskOperator(task_id="t", application="local:///job.py", practicus_conn_id="nowhere")


FAILS = {
    "a task that resumes": lambda: dask().resume_execution("execute_complete", {"event": BAD.to_json()}, {}),
    "a sensor that resumes": lambda: PracticusJobSensor(task_id="s", job=CLUSTER).execute_complete({}, BAD.to_json()),
}
REFUSES = {
    "a job": lambda: dask().execute({}),
    "a job on a cluster": lambda: PracticusSubmitJobOperator(
        task_id="t", cluster=CLUSTER, application="local:///job.py", practicus_conn_id="nowhere"
    ).execute({}),
    "a deletion": lambda: PracticusDeleteClusterOperator(
        task_id="t", cluster=CLUSTER, practicus_conn_id="nowhere"
    ).execute({}),
}


@pytest.mark.parametrize(
    ("run", "kind"),
    [
        *(pytest.param(run, JobFailed, id=name) for name, run in FAILS.items()),
        *(pytest.param(run, ConnectionConfigError, id=name) for name, run in REFUSES.items()),
    ],
)
def test_the_error_that_a_task_ends_with_shows_no_frames_of_ours(run, kind):
    assert not [file for file in frames(run, kind) if file.startswith(OURS)]


@pytest.mark.parametrize(
    "error", [JobFailed(BAD.verdict), SpecError("workers", 0, "give 1 or more"), BackendError("x")]
)
def test_an_error_of_ours_has_the_frames_of_who_calls_and_its_cause_keeps_its_own(error):
    @NoFramesOfOurs()
    def decorated() -> None:
        try:
            raise OSError("refused")
        except OSError as cause:
            raise error from cause

    with pytest.raises(type(error)) as raised:
        decorated()
    names = [[frame.name for frame in traceback.extract_tb(e.__traceback__)] for e in (raised.value, error.__cause__)]
    assert ("decorated" in names[0], names[1]) == (False, ["decorated"])


def test_what_is_no_error_of_ours_keeps_all_its_frames():
    @NoFramesOfOurs()
    def decorated() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as raised:
        decorated()
    assert [frame.name for frame in traceback.extract_tb(raised.value.__traceback__)][-1] == "decorated"
