"""One cluster's folder on disk: what it holds, and how it is read and written so that a crash leaves it whole.

::

    <root>/<name>/
        cluster.json      uid, key, plan, task, lease, parent, log_limit, when it was created; never changes
        app/              the shipped application
        lock              held by the supervisor for its life; its pid
        control           socket on which the supervisor listens
        ports.json        role -> port name -> number
        status.json       the last Status
        cursor.json       role-index -> its log's bytes up to the end of what was taken
        released          exists once the cluster may no longer be adopted
        logs/             <role>-<index>.log, of a long one <role>-<index>.log.<place> too; supervisor.log
        replicas/         <role>-<index>/: its scratch folder, launch.json, result.json and failure.json
    <root>/ended/<name>-<uid>/     the same, of a deleted cluster, without replicas/; removed after its time to live
    <root>/volumes/<claim>/        what stands for that claim; nobody removes it
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from practicus_provider.backends.base import Handle
from practicus_provider.runtime.practicus_runtime.contract import RESULT_FILE, RESULT_LIMIT
from practicus_provider.runtime.practicus_runtime.files import left_in, opened
from practicus_provider.runtime.practicus_runtime.lines import shown
from practicus_provider.runtime.practicus_runtime.logfile import Piece, is_place
from practicus_provider.status import Reason, State, Status, Verdict
from practicus_provider.tail import LINES_READ

UNREADABLE = (OSError, ValueError, LookupError, TypeError, AttributeError)
"""What it may raise to read a file that something else has replaced."""
_TAIL_BYTES = 256 << 10
_JSON_BYTES = 16 << 20
"""Of a JSON file that are read at most: the status of some thousands of replicas has one or two millions."""
_PID_BYTES = 10


@dataclass(frozen=True)
class ClusterFolder:
    """A cluster's folder; ``path`` need not exist."""

    path: Path

    @property
    def control(self) -> Path:
        """Socket of the supervisor."""
        return self.path / "control"

    def exists(self) -> bool:
        """Whether a cluster is there. The folder appears whole, by one rename."""
        return (self.path / "cluster.json").exists()

    def config(self) -> dict[str, Any]:
        """What the cluster was created with.

        :raises FileNotFoundError: it is not there.
        :raises OSError: it cannot be read.
        :raises ValueError: it is no JSON object.
        """
        return self._json("cluster.json")

    def grace(self) -> float:
        """Seconds that its replicas were promised between SIGTERM and SIGKILL; 0 if none were.

        :raises FileNotFoundError: it is not there.
        """
        return float(self.config()["plan"].get("grace") or 0)

    def handle(self) -> Handle:
        """The cluster's handle."""
        return Handle(self.path.name, self.config()["uid"])

    def deadline(self) -> float:
        """Seconds since the epoch at which the cluster's time is over."""
        config = self.config()
        return float(config["created_at"] + config["plan"]["timeout"])

    def status(self) -> Status | None:
        """The last status; None if its supervisor never started."""
        try:
            return Status.from_json(self._json("status.json"))
        except FileNotFoundError:
            return None
        except UNREADABLE as error:
            why = unreadable(self.path / "status.json", error)
            return Status(State.FAILED, verdict=Verdict(State.FAILED, Reason.SUPERVISOR_LOST, why))

    def state(self) -> State:
        """The last state; PENDING if its supervisor never started."""
        status = self.status()
        return status.state if status else State.PENDING

    def stamp(self) -> tuple[tuple[int, ...], ...]:
        """Another one once a log has grown, the status has changed, or the cluster is another one or gone: much cheaper
        than to read them."""
        told, stamps = (self.path / "cluster.json", self.path / "status.json"), []
        for path in (*told, *sorted((self.path / "logs").glob("*"))):
            with contextlib.suppress(FileNotFoundError):
                found = path.lstat()
                stamps.append((found.st_ino, found.st_mtime_ns, found.st_size))
        return tuple(stamps)

    def write(self, name: str, data: Mapping[str, Any]) -> None:
        """Replace a JSON file at once, so that a reader sees the old or the new one."""
        new = self.path / f".{name}.new"
        new.unlink(missing_ok=True)
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # no link, no pipe
            json.dump(data, file)
        new.rename(self.path / name)

    def read(self, name: str) -> dict[str, Any]:
        """A JSON file's content; empty if it is not there."""
        try:
            return self._json(name)
        except FileNotFoundError:
            return {}

    def _json(self, name: str) -> dict[str, Any]:
        with opened(str(self.path / name)) as file:
            try:
                data = json.loads(file.read(_JSON_BYTES))
            except RecursionError as error:
                raise ValueError(f"{name} holds JSON that is too deep") from error
        if not isinstance(data, dict):
            raise ValueError(f"{name} holds no JSON object")
        return data

    @property
    def released(self) -> Path:
        """Exists once the cluster may no longer be adopted."""
        return self.path / "released"

    def logs(self) -> dict[str, list[Piece]]:
        """Replica -> the files of its log, in order; the supervisor's is among them."""
        found: dict[str, list[Piece]] = {}
        for path in sorted((self.path / "logs").glob("*.log*")):  # that of digits alone is the order of numbers
            name, _, place = path.name.rpartition(".log")
            if not place or (place[0] == "." and is_place(place[1:])):
                found.setdefault(name, []).append(Piece.of(str(path)))
        return found

    def log(self, replica: str) -> Path:
        """The first file of a replica's log."""
        return self.path / "logs" / f"{replica}.log"

    def tail(self, replica: str) -> list[str]:
        """The last lines of a replica's log, newest last."""
        data = b""
        for piece in reversed(self.logs().get(replica, [])):
            with contextlib.suppress(OSError), piece.opened(piece.start) as file:
                file.seek(max(file.tell(), file.seek(0, os.SEEK_END) - _TAIL_BYTES + len(data)))
                data = file.read(_TAIL_BYTES - len(data)) + data
        return shown(data)[-LINES_READ:] if data else []

    def result(self, replica: str) -> str | None:
        """What a replica has left as its result; None if that is nothing, or no file."""
        content = left_in(str(self.scratch(replica) / RESULT_FILE), RESULT_LIMIT)
        return content.decode(errors="replace") or None

    def scratch(self, replica: str) -> Path:
        """A replica's scratch folder."""
        return self.path / "replicas" / replica

    def lock(self, kind: int = fcntl.LOCK_EX) -> int | None:
        """Hold the supervisor's lock until the returned descriptor is closed; None if it is held already."""
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return descriptor

    def retire(self) -> None:
        """Give the name back: what is left, the logs above all, moves to ``ended/``."""
        handle, ended = self.handle(), self.path.parent / "ended"
        ended.mkdir(exist_ok=True)
        self.path.rename(ended / f"{handle.name}-{handle.uid}")

    def kill_supervisor(self) -> None:
        """SIGKILL the lock's holder, if there is one."""
        with contextlib.suppress(OSError), opened(str(self.path / "lock")) as file:
            pid = file.read(_PID_BYTES).strip()
            if pid.isdigit() and self.supervised():
                os.kill(int(pid), signal.SIGKILL)

    def supervised(self) -> bool:
        """Whether a supervisor lives."""
        try:
            descriptor = self.lock(fcntl.LOCK_SH)  # so that of two who look neither takes the other for it
        except FileNotFoundError:
            return False
        if descriptor is None:
            return True
        os.close(descriptor)
        return False


def unreadable(path: Path, error: Exception) -> str:
    """Of a file by which a cluster cannot be told."""
    return f"{path} cannot be read, as something has replaced it: {error}; remove {path.parent} if that is to go"
