"""Processes that outlive the command which started them, and are found again by more than a number."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

BOOT = Path("/proc/sys/kernel/random/boot_id")
_POLL = 0.05


def wait_until(met: Callable[[], object], what: str, seconds: float, *, explain: Callable[[], str] = str) -> None:
    """Return as soon as a condition is met.

    :param explain: gives what else a reader needs to know why it was not.
    """
    give_up = time.monotonic() + seconds
    while not met():
        if time.monotonic() > give_up:
            raise ClusterError(f"waited {seconds:.0f} s in vain until {what}\n{explain()}".rstrip())
        time.sleep(_POLL)


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """One process at a time has this folder; it is the kernel that gives it back, however the process ends."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Process:
    """One process of this boot: its number is given again after its end, but not with the same start time."""

    pid: int
    started: int
    """Clock ticks after the boot."""
    boot: str
    key: str = ""
    """Changes with what it was started with."""
    parent: Process | None = None
    """Who waits for it, and ends once it has reaped it."""

    @classmethod
    def of(cls, pid: int, key: str = "", parent: Process | None = None) -> Process:
        """The process that has this number now.

        :raises ProcessLookupError: there is none.
        """
        return cls(pid, _started(pid), BOOT.read_text().strip(), key, parent)

    @classmethod
    def read(cls, file: Path) -> Process | None:
        """The one that a file names, dead or alive."""
        try:
            told = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        parent = told.pop("parent", None)
        return cls(**told, parent=cls(**parent) if parent else None)

    def write(self, file: Path) -> None:
        """Remember it: atomically, for a half-written file would lose a process."""
        file.parent.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps(asdict(self)))
        aside.rename(file)

    @property
    def alive(self) -> bool:
        """Whether it runs (a zombie does not)."""
        try:
            return self.boot == BOOT.read_text().strip() and self.started == _started(self.pid)
        except ProcessLookupError:
            return False

    def end(self, patience: float = 10.0) -> None:
        """SIGTERM, and SIGKILL once patience is at its end."""
        self._signal(signal.SIGTERM)
        with contextlib.suppress(ClusterError):
            wait_until(lambda: not self.alive, "it ends", patience)
        self.kill()

    def kill(self) -> None:
        """SIGKILL; returns when it is gone, also as a zombie, and with PID 1 of a namespace all that lives in there."""
        self._signal(signal.SIGKILL)
        wait_until(lambda: not self._left(), f"process {self.pid} is gone after SIGKILL", 30)

    def _left(self) -> bool:
        return self.alive or (self.parent is not None and self.parent.alive)

    def _signal(self, number: int) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


def spawn_child_of(command: list[str], log: Path, cwd: Path, key: str = "") -> Process:
    """Start a command in a session of its own; the process that counts is its one child.

    ``unshare`` and ``nsenter`` fork where they make or enter a PID namespace, and stay behind as the child's parent.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        parent = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd, start_new_session=True
        )
    found: list[Process] = []

    def child_found() -> bool:
        if parent.poll() is not None:
            raise ClusterError(f"{command[0]} exited with {parent.returncode} at once\n{tail(log)}")
        with contextlib.suppress(OSError, IndexError):
            child = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()[0]
            found.append(Process.of(int(child), key, Process.of(parent.pid)))
        return bool(found)

    wait_until(child_found, f"{command[0]} has a child", 10)
    parent.returncode = 0  # it lives on: Popen need not warn of that
    return found[0]


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, under its name."""
    try:
        last = log.read_text(errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return f"{log} does not exist"
    return "\n".join([f"the end of {log}:", *(f"  {line[:400]}" for line in last)])


def _started(pid: int) -> int:
    """Field 22 of ``/proc/PID/stat``; the name before may hold anything, and ends with the last parenthesis."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(pid) from None
    if fields[0] in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[19])
