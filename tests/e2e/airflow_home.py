"""A real Airflow for tests: ``airflow standalone`` in a home of its own, and its REST API."""

from __future__ import annotations

import contextlib
import html
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

REPO = Path(__file__).parents[2]
PATIENCE = 120.0
"""Seconds after which what a test waits for has failed to happen."""
LOCKED = 15.0
"""Seconds that the API server waits for who writes to SQLite; all others wait longer (``config/``). Longer than by
default (5 s), as who writes many DAGs on a busy machine keeps others out; and no longer than need be, as that server
may wait for itself. It writes its audit log on the event loop (``airflow.api_fastapi.logging.decorators``),
which another of its requests may need to end its own transaction."""
CONFIG = REPO / "tests" / "e2e" / "config"
TRIES = 5
"""Of a request that finds it locked."""
LOCAL = {"backend": "local"}


def settings(home: Path, dags: Path, extra: Mapping[str, Any]) -> dict[str, str]:
    """Environment of an Airflow that lives in ``home`` alone; ``extra`` is the connection's."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AIRFLOW")}
    return clean | {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db?timeout={LOCKED:g}",
        "AIRFLOW_CONN_PRACTICUS_DEFAULT": json.dumps({"conn_type": "practicus", "extra": dict(extra)}),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(CONFIG),
    }


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def eventually(what: str, met: Callable[[], Any], patience: float = PATIENCE) -> Any:
    """The first true value of ``met()``. The longer it takes, the less often it is looked for: each look costs work."""
    begin = time.monotonic()
    while not (value := met()):
        waited = time.monotonic() - begin
        assert waited < patience, f"not within {patience:g} s: {what}"
        time.sleep(min(2.0, 0.1 + waited / 10))
    return value


@dataclass
class Airflow:
    """A running ``airflow standalone``."""

    home: Path
    env: dict[str, str]
    url: str
    process: subprocess.Popen[bytes]
    token: str = ""

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request to the REST API; another if SQLite was locked, so that nothing came of it."""
        request = urllib.request.Request(
            f"{self.url}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.token}",
                "Content-Type": "application/json",
                "Accept": "application/json",
            },
        )
        for left in reversed(range(TRIES)):
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    text = answer.read()
                break
            except urllib.error.HTTPError as error:
                words = error.read().decode()
                error.add_note(words)
                if not left or "database is locked" not in words:
                    raise
        return json.loads(text) if text else None

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """Unpause and run a DAG, as a user does in the UI."""
        self.unpause(dag_id)
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        self.call("POST", f"/api/v2/dags/{dag_id}/dagRuns", body)

    def unpause(self, dag_id: str) -> None:
        """Let its runs start."""
        eventually(f"DAG {dag_id} is parsed", lambda: self.found(f"/api/v2/dags/{dag_id}"))
        self.call("PATCH", f"/api/v2/dags/{dag_id}", {"is_paused": False})

    def found(self, path: str) -> Any:
        """The answer, or None for 404."""
        try:
            return self.call("GET", path)
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise

    def task(self, dag_id: str, run_id: str, task_id: str = "job") -> dict[str, Any]:
        """A task instance."""
        return self.call("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")

    def await_state(self, dag_id: str, run_id: str, *states: str, task_id: str = "job") -> str:
        """Wait until the task instance is in one of these states."""
        return eventually(
            f"{dag_id}.{task_id} is {' or '.join(states)}",
            lambda: (state := self.task(dag_id, run_id, task_id)["state"]) in states and state,
        )

    def await_run(self, dag_id: str, run_id: str, patience: float = 3 * PATIENCE) -> str:
        """The state in which a DAG run ends."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"
        return eventually(
            f"{dag_id} ends",
            lambda: (state := self.call("GET", path)["state"]) in ("success", "failed") and state,
            patience,
        )

    def entries(self, dag_id: str, run_id: str, task_id: str = "job", attempt: int = 1) -> list[dict[str, Any]]:
        """The task's log as the UI gets it."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}?full_content=true"
        return self.call("GET", path)["content"]

    def log(self, dag_id: str, run_id: str, task_id: str = "job", attempt: int = 1) -> list[str]:
        """The task's log as the UI shows it, but for the frames of errors."""
        return [text for entry in self.entries(dag_id, run_id, task_id, attempt) for text in texts(entry)]

    def xcom(self, dag_id: str, run_id: str, task_id: str = "job", key: str = "return_value") -> Any:
        """An XCom's value."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/{key}?deserialize=true"
        return self.call("GET", path)["value"]

    def cli(self, *args: str) -> str:
        """An ``airflow`` command's output."""
        done = subprocess.run(["airflow", *args], env=self.env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def component(self, name: str) -> psutil.Process:
        """One of standalone's processes: ``triggerer``, ``scheduler``, ..."""
        children = psutil.Process(self.process.pid).children()
        live = (child for child in children if child.status() != psutil.STATUS_ZOMBIE)
        return next(child for child in live if name in child.cmdline())

    @contextlib.contextmanager
    def another(self, component: str, *options: str) -> Iterator[psutil.Process]:
        """One more of such processes."""
        with (self.home / f"{component}.log").open("ab") as log:
            command = ["airflow", component, *options]
            process = subprocess.Popen(command, env=self.env, stdout=log, stderr=log, cwd=self.home)
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait(30)

    def clusters(self) -> list[Path]:
        """Folders of the clusters that are there."""
        return [path.parent for path in (self.home / "practicus").glob("*/cluster.json")]

    def replicas(self) -> list[int]:
        """Processes of any cluster of this Airflow."""
        root, found = str(self.home / "practicus"), []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("PRACTICUS_CONTROL", "").startswith(root):
                    found.append(process.pid)
        return found

    def nothing_left(self, within: float = 10.0) -> None:
        """Wait until no cluster and no process is left."""
        eventually("nothing of a cluster is left", lambda: not self.clusters() and not self.replicas(), within)


def framed(page: str) -> str:
    """The path of what a page of ours has in its frame."""
    found = re.search('<iframe [^>]*src="([^"]+)"', page)
    assert found, page
    return html.unescape(found[1])


def texts(entry: Mapping[str, Any]) -> list[str]:
    """The lines of an entry of a log, and the errors in it."""
    errors = entry.get("error_detail") or ()
    return [*str(entry["event"]).splitlines(), *(f"{error['exc_type']}: {error['exc_value']}" for error in errors)]


def beside_others() -> tuple[int, dict[str, str]]:
    """The API server's port, and the environment of an Airflow that is not alone on the machine: it has ports that are
    free, and time to start."""
    api, worker_logs, trigger_logs = free_ports(3)
    return api, {
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{api}/execution/",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(worker_logs),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(trigger_logs),
        # The API server makes its routes at the first request of a task, which after 5 s, and some tries, would fail.
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
    }


@contextlib.contextmanager
def running(
    home: Path,
    dag_folders: list[Path],
    extra: Mapping[str, Any] = LOCAL,
    *,
    all_admins: bool = True,
    more: Mapping[str, str] | None = None,
) -> Iterator[Airflow]:
    """``airflow standalone`` with these folders' DAGs; its log is printed if it does not come up.

    :param all_admins: whether who has not logged in may do everything.
    :param more: of its environment.
    """
    dags = home / "dags"
    for folder in dag_folders:
        shutil.copytree(folder, dags, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    api, own = beside_others()
    env = settings(home, dags, extra) | {
        **own,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__EXPOSE_STACKTRACE": "True",  # a test that fails says why, and a request that found SQLite locked
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": str(all_admins),
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",  # nobody edits them
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
        **(more or {}),
    }
    with (home / "standalone.log").open("wb") as log:
        process = subprocess.Popen(
            ["airflow", "standalone"], env=env, stdout=log, stderr=log, cwd=home, start_new_session=True
        )
    airflow = Airflow(home, env, f"http://127.0.0.1:{api}", process)
    try:
        eventually("Airflow is up", lambda: _healthy(airflow))
        airflow.token = _log_in(airflow, all_admins)
        yield airflow
    except BaseException:
        print((home / "standalone.log").read_text()[-8000:])
        raise
    finally:
        _signal(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        _signal(process, signal.SIGKILL)  # a scheduler outlives it that waits for workers which wait for work
        process.wait()


def _signal(leader: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, number)


def _log_in(airflow: Airflow, all_admins: bool) -> str:
    """The token of a session: anybody's, or that of the user whom standalone makes."""
    if all_admins:
        return airflow.call("GET", "/auth/token")["access_token"]
    passwords = json.loads((airflow.home / "simple_auth_manager_passwords.json.generated").read_text())
    body = {"username": "admin", "password": passwords["admin"]}
    return airflow.call("POST", "/auth/token", body)["access_token"]


def _healthy(airflow: Airflow) -> bool:
    assert airflow.process.poll() is None, "airflow standalone has ended"
    try:
        health = airflow.call("GET", "/api/v2/monitor/health")
    except OSError:
        return False
    return all(health[part]["status"] == "healthy" for part in ("scheduler", "triggerer", "dag_processor"))
