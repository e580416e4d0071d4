"""``python -m benchmarks.lines --json``: what very many lines of jobs cost Airflow's triggerer.

Its supervisor takes what triggers log by 4 KiB, and between two of these it looks at its database, its events and its
failures (Airflow 3.3, ``TriggerRunnerSupervisor.run_once``): so the number of such turns is how long a job holds its
task after its end, and others theirs. The same lines are written by Airflow's logger as a job's of ours are, and an
entry each, as operators do that follow a log; then the supervisor's own reader takes both. For each:

``entries``  of the log
``bytes``    that come to the supervisor
``turns``    of it that they take
``written``  seconds of the processor of who writes them
``taken``    seconds of the supervisor's, without what it does between its turns
"""

from __future__ import annotations

import json
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks import command

LINE = "{} of a job that says what it is at, and how far"
SOURCE = "driver-0"


def main() -> None:
    """Print the figures of both."""
    parser = command.parser(__doc__)
    parser.add_argument("--lines", type=int, default=60_000)
    options = parser.parse_args()
    lines = [LINE.format(number) for number in range(options.lines)]
    with command.airflow_home(), tempfile.TemporaryDirectory() as folder:
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "INFO"
        report = {who: _measured(write, lines, Path(folder) / who) for who, write in WRITERS.items()}
    print(json.dumps({"lines": options.lines, **report}, indent=2))


def _ours(lines: list[str], log: Any) -> None:
    """As they come from one look at a log."""
    from practicus_provider.log import Entries, level_of
    from practicus_provider.tasklog import into

    entries = Entries(into(log))
    for line in lines:
        entries.add(line, level_of(line), SOURCE, time.monotonic())
    entries.flush()


def _one_by_one(lines: list[str], log: Any) -> None:
    for line in lines:
        log.info(line)


WRITERS: dict[str, Callable[[list[str], Any], None]] = {"ours": _ours, "an entry each": _one_by_one}


def _measured(write: Callable[[list[str], Any], None], lines: list[str], path: Path) -> dict[str, float]:
    import structlog
    from airflow.sdk.log import configure_logging

    with path.open("wb", buffering=0) as file:
        configure_logging(json_output=True, output=file, sending_to_supervisor=True)
        structlog.contextvars.bind_contextvars(trigger_id=1)
        began = time.process_time()
        write(lines, structlog.get_logger("airflow.triggers"))
        written = time.process_time() - began
    content = path.read_bytes()
    turns, taken = _taken(content, path.with_suffix(".log"))
    entries = content.count(b"\n")
    return {"entries": entries, "bytes": len(content), "turns": turns, "written": written, "taken": taken}


def _taken(content: bytes, log: Path) -> tuple[int, float]:
    """How many turns the supervisor's own reader takes, and seconds of the processor."""
    from types import SimpleNamespace

    from airflow.jobs.triggerer_job_runner import TriggerLoggingFactory, TriggerRunnerSupervisor
    from airflow.sdk.execution_time.supervisor import make_buffered_socket_reader

    factory = TriggerLoggingFactory(log_path=str(log), ti=None)  # type: ignore[arg-type]
    supervisor = SimpleNamespace(logger_cache={1: factory})
    taking = TriggerRunnerSupervisor._process_log_messages_from_subprocess(supervisor)  # type: ignore[arg-type]
    read, _ = make_buffered_socket_reader(taking, on_close=lambda _: None)
    ours, theirs = socket.socketpair()
    sending = threading.Thread(target=_send, args=(theirs.makefile("wb"), theirs, content))
    sending.start()
    turns, began = 0, time.process_time()
    while read(ours):
        turns += 1
    seconds = time.process_time() - began
    sending.join()
    return turns, seconds


def _send(file: BinaryIO, end: socket.socket, content: bytes) -> None:
    with file, end:
        file.write(content)


if __name__ == "__main__":
    main()
