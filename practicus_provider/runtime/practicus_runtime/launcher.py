"""Parent of a replica's process: PID 1 in a container, leader of a session on a machine.

``boot.py`` becomes it in a pod, ``start.py`` on a machine. It waits for the ports that the command needs, starts that,
forwards SIGTERM (and kills at the second one, or after the grace time), reaps orphans, and leaves no descendant behind.
Its exit code is the command's, or 128 + the signal's number.

Where a supervisor holds our standard input (``leash``), its end of file means that the supervisor died: then
everything here dies at once. What happens is reported as JSON lines on the file descriptor ``report``, if there is one.
Where there is none to read them, the end and the application's result become the container's last words in the file
``message``, and, after the ``nonce``, the last line of both outputs: who follows those knows of the end at once.

A command that fails because another process did, one of its ranks, says in the file ``PRACTICUS_FAILURE`` how that one
ended; then its end is told instead.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pwd
import select
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NoReturn

from .contract import (
    END_MARK,
    FAILURE_LIMIT,
    MESSAGE_LIMIT,
    RESULT_LIMIT,
    RESULT_LINE,
    RESULT_MARK,
    End,
    Env,
    LastWords,
    ReplicaLaunch,
    Report,
    parsed,
)
from .files import left_in

if TYPE_CHECKING:
    from practicus_runtime.logfile import Outputs

PR_SET_PDEATHSIG = 1  # linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36
POLL = 0.05
"""Seconds between two looks for a port, and between two at what is still alive."""
OUT_OF_MEMORY = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
"""Where the kernel counts the processes of this container that it killed as memory ran out: of cgroups 2, and 1."""
LINUX = sys.platform.startswith("linux")
USERS = "/etc/passwd"
NAMELESS = "practicus"
"""Name of a user whose uid has none, as where a cluster gives each namespace uids of its own."""


class Launcher:
    """One command's life."""

    def __init__(self, launch: ReplicaLaunch) -> None:
        self.command = launch.command
        self.after = launch.after
        self.grace = launch.grace
        self.report_fd = launch.report
        self.message = launch.message
        self.nonce = launch.nonce
        self.last_words = ""
        self.leash = launch.leash
        self.log = launch.log
        self.log_bytes = launch.log_bytes
        self.outputs: Outputs | None = None
        self.kill_at: float | None = None
        self.stopping = False
        self.child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Wait, start, watch, clean; the exit code."""
        if self.log is None:
            return self._run()
        from practicus_runtime.logfile import LogFile, Outputs  # what runs in a pod needs none

        with Outputs(LogFile(self.log, self.log_bytes)) as self.outputs:
            return self._run()

    def _run(self) -> int:
        self._listen()
        name_user(os.getuid(), None if self.message is None else USERS)  # a machine's own table is not ours to change
        try:
            if not self._reachable():
                return 128 + signal.SIGTERM
        except SystemExit as given_up:
            code = int(given_up.code or 0)
            self._report_end(End(code).because(_cause()))
            self._end_outputs()
            return code
        killed = oom_kills()
        try:
            self.child = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, preexec_fn=own_session)
        except OSError as error:
            print(f"cannot start {self.command[0]}: {error.strerror}", flush=True)
            self._report_end(End(127))
            return 127
        if self.stopping:  # the signal came before there was anybody to forward it to
            self._signal_group(signal.SIGTERM)
        self._report(Report(pid=self.child.pid))
        status = self._wait(self.child.pid)
        number = -status if status < 0 else None
        end = End(
            exit_code=None if number else status,
            signal=number,
            # The container runtime may tell the kubelet of it too late, which then has a mere exit code.
            oom=self.message is not None and status != 0 and oom_kills() > killed,
            stopped=self.stopping,
        )
        self._report_end(end if status == 0 else end.because(_cause()))
        self._leave_nothing()
        self._end_outputs()
        return 128 + number if number else status

    def _listen(self) -> None:
        read, write = os.pipe()
        for end in (read, write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.wakeup = read
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        if LINUX:
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def _stop(self, number: int, frame: object) -> None:
        self.kill_at = time.monotonic() + (0 if self.stopping else self.grace)
        self.stopping = True
        self._signal_group(signal.SIGTERM)

    def _pause(self, timeout: float | None) -> None:
        """Sleep until a signal, output, the leash's end, or the time is up."""
        watched = [self.wakeup, *([0] if self.leash else []), *([self.outputs.pipe] if self.outputs else [])]
        ready = select.select(watched, [], [], timeout)[0]
        if self.wakeup in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self.wakeup, 4096)
        if self.outputs and self.outputs.pipe in ready:
            self.outputs.take()
        if 0 in ready and not os.read(0, 4096):
            self.leash = False
            self.stopping = True
            self.kill_at = time.monotonic()

    def _reachable(self) -> bool:
        """Wait until every port in ``after`` accepts; False if we were stopped before.

        :raises SystemExit: one does not, for too long, and ``PRACTICUS_FAILURE`` says so.
        """
        for who, host, port in self.after:
            from practicus_runtime.waiting import Wait  # most commands wait for nobody

            wait = Wait(who, host, port)
            while not (self.stopping or wait.over()):
                self._pause(POLL)
        return not self.stopping

    def _wait(self, pid: int) -> int:
        """Reap until the command itself ends; its exit code, or minus the signal's number."""
        while True:
            found, status = _reap_one()
            if found == pid:
                assert self.child is not None
                self.child.returncode = status
                return status
            if found:
                continue
            if self.kill_at is not None and time.monotonic() >= self.kill_at:
                self._signal_group(signal.SIGKILL)
                _kill(_descendants(os.getpid()), signal.SIGKILL)
            self._pause(None if self.kill_at is None else max(self.kill_at - time.monotonic(), POLL))

    def _signal_group(self, number: int) -> None:
        if self.child is not None and self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.child.pid, number)

    def _leave_nothing(self) -> None:
        """End what the command left behind, daemons too: they are ours, as we are their subreaper."""
        kill_at = time.monotonic() + min(self.grace, 1.0)
        asked = False  # once: what they start now helps them to end
        while True:
            while _reap_one()[0]:
                pass
            left = _descendants(os.getpid())
            if not left:
                return
            if self.stopping or time.monotonic() >= kill_at:
                _kill(left, signal.SIGKILL)
            elif not asked:
                _kill(left, signal.SIGTERM)
                asked = True
            self._pause(POLL)

    def _report_end(self, end: End) -> None:
        if self.message is not None:
            self.last_words = _say_last(self.message, end)
        self._report(Report(end=end))

    def _report(self, report: Report) -> None:
        if self.outputs:  # whoever hears of it reads the log
            self.outputs.take_all()
        if self.report_fd is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self.report_fd, json.dumps(report.to_json()).encode() + b"\n")

    def _end_outputs(self) -> None:
        """Both of them: what the command wrote into one may be read after the end of the other."""
        if self.nonce and self.last_words:
            line = f"{END_MARK}{self.nonce} {self.last_words}\n".encode()
            for output in (1, 2):
                with contextlib.suppress(OSError):
                    os.write(output, line)


def _cause() -> End:
    """How the process ended for which the command failed, which one it was, and when; unknown if it was the command."""
    return End.from_json(parsed(left_in(os.environ.get(Env.FAILURE), FAILURE_LIMIT), FAILURE_LIMIT))


def _say_last(path: str, end: End) -> str:
    """How it ended, with the result: there if it fits, else as the last lines of the output, whose number is said."""
    result = left_in(os.environ.get(Env.RESULT), RESULT_LIMIT).decode(errors="replace")
    text = json.dumps(LastWords(end, result or None).to_json())
    if len(text.encode()) > MESSAGE_LIMIT:
        chunks = [result[at : at + RESULT_LINE] for at in range(0, len(result), RESULT_LINE)]
        print(RESULT_MARK, flush=True)  # ends what may be an unfinished line
        for chunk in chunks:
            print(RESULT_MARK + chunk, flush=True)
        text = json.dumps(LastWords(end, result_lines=len(chunks)).to_json())
    with contextlib.suppress(OSError), open(path, "w") as file:
        file.write(text)
    return text


def oom_kills() -> int:
    """How many processes of this container the kernel has killed as memory ran out; 0 where it does not say."""
    for path in OUT_OF_MEMORY:
        with contextlib.suppress(OSError, ValueError), open(path) as file:
            counters = dict(line.split() for line in file)
            return int(counters.get("oom_kill", 0))
    return 0


def name_user(uid: int, users: str | None) -> None:
    """Give this user a name if it has none: ``getpass.getuser()``, which torch's compiler asks, reads ``LOGNAME``.

    :param users: table of users to enter it in, where that may be written: Java, and so Hadoop's login, reads that
        alone. Spark's own images have it writable, and their entry point does the same.
    """
    try:
        pwd.getpwuid(uid)
        return
    except KeyError:
        name = os.environ.get("LOGNAME") or os.environ.get("USER") or NAMELESS
    os.environ.update(LOGNAME=name, USER=name)
    if users is not None:
        with contextlib.suppress(OSError), open(users, "a") as file:
            file.write(f"{name}:x:{uid}:{os.getgid()}::{os.environ.get('HOME', '/')}:/bin/false\n")


def own_session() -> None:
    """In a new child: lead a session, and so a group, and die with the parent. Where sessions have shares of the
    processors (sched(7), *autogroup*), ranks that have only one between them fall behind all else on the machine."""
    os.setsid()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    if LINUX:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _reap_one() -> tuple[int, int]:
    """(pid, exit code or minus signal) of an ended child; pid 0 if none has ended."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return 0, 0
    return pid, (-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def _descendants(root: int) -> set[int]:
    """Pids below ``root``. Only Linux's /proc tells; elsewhere the process group has to do."""
    if not LINUX:
        return set()
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
    found: set[int] = set()
    queue = [root]
    while queue:
        for pid in children.get(queue.pop(), ()):
            found.add(pid)
            queue.append(pid)
    return found


def _kill(pids: set[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def main(launch: ReplicaLaunch) -> NoReturn:
    """The whole process."""
    os._exit(Launcher(launch).run())  # at once: a SIGTERM while the interpreter winds up would change the exit code
