"""The ranks of a replica: ``python -m practicus_runtime.ranks SCRIPT ARGS...`` runs it ``LOCAL_WORLD_SIZE`` times.

Each is told its ``RANK`` and ``LOCAL_RANK``, and what else torchrun tells; whatever else it must know is in the
environment. At the first failure of one the others are ended, and the file ``PRACTICUS_FAILURE`` says which it was, how
it ended, and when: what fails on other replicas in consequence fails later. Where a replica has several, or workers are
several groups, each line of their output names its rank.

It is started with each replica, beside frameworks that need the processor: so what few need is imported where it is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Callable, Mapping, Optional

from practicus_runtime.launcher import LINUX, own_session
from practicus_runtime.lines import Screen
from practicus_runtime.meeting import named
from practicus_runtime.waiting import POLL

from .contract import FAILURE_LIMIT, End, Env, parsed
from .files import left_in

if TYPE_CHECKING:
    from practicus_runtime.hangs import Watch

PATIENCE = 0.5
"""Seconds that the other ranks of a replica have between SIGTERM and SIGKILL once one has failed."""
LINE_LIMIT = 8192
"""Bytes of a line that come out in one piece; a container runtime splits lines over 16 KiB."""
SIOCGIFADDR = 0x8915  # linux/sockios.h
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME", "TP_SOCKET_IFNAME")
"""Variables that tell torch and NCCL of a network interface: else they take the host name's, often 127.0.1.1."""


class Ranks:
    """The processes of one replica, from start to end.

    :param met: says whether the place where ranks meet is there: they start then, if they do not wait for it
        themselves; see :mod:`practicus_runtime.meeting`. It may end this process, as a wait that is given up does.
    :param names: a framework's own name of a variable -> ours.
    """

    def __init__(self, program: list[str], met: Callable[[], bool], names: Mapping[str, str]) -> None:
        if program[:2] == ["-m", "practicus_runtime.fetch"]:  # once, and not by every rank into one file
            from practicus_runtime.fetch import download

            program = [download(program[2]), *program[3:]]
        self.script, *self.arguments = program
        self.met = met
        self.names = names
        self.number = int(os.environ["LOCAL_WORLD_SIZE"])
        worker, before = int(os.environ.get("GROUP_RANK", 0)), os.environ.get(Env.RANKS_BEFORE)
        self.first = int(before or 0) + worker * self.number
        self.named = self.number > 1 or before is not None  # else the replica's index is the rank
        if before is not None:  # until here it was counted in its own group
            os.environ["GROUP_RANK"] = str(worker + int(os.environ[Env.WORKERS_BEFORE]))
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self.outputs: dict[int, Output] = {}
        self.selector = selectors.DefaultSelector()
        self.watch: Optional[Watch] = None  # noqa: UP045  (Python 3.8)
        if Env.PROGRESS_TIMEOUT in os.environ:
            from practicus_runtime.hangs import Watch

            self.watch = Watch.of(self.first)
        self.stopping = False
        self.kill_at: Optional[float] = None  # noqa: UP045  (Python 3.8)
        self.status = 0

    def run(self) -> int:
        """Start all, watch them, end with the last one; the exit code is that of the first one that failed."""
        self._listen()
        while not (self.stopping or self._may_start()):
            time.sleep(POLL)
        if self.stopping:
            return 128 + signal.SIGTERM
        name_interface()
        for local_rank in range(self.number):
            self._start(local_rank)
        if self.stopping:  # the signal came before there was anybody to forward it to
            self._signal_all(signal.SIGTERM)
        while self.processes or (self.watch and self.watch.waits() and not (self.stopping or self.status)):
            self._look()
        for output in self.outputs.values():
            output.end()
        return 128 - self.status if self.status < 0 else self.status

    def _may_start(self) -> bool:
        met = Env.MEETS in os.environ or self.met()
        return met and (self.watch is None or self.watch.connected())

    def _command(self, local_rank: int) -> list[str]:
        """Of one rank. Where ``PRACTICUS_LOCAL_RANK`` names an argument, the script's first says the local rank."""
        name = os.environ.get(Env.LOCAL_RANK)
        first = [f"{name}={local_rank}"] if name else []
        return [sys.executable, "-m", "practicus_runtime.script", self.script, *first, *self.arguments]

    def _environment(self, local_rank: int) -> dict[str, str]:
        """Of one rank. The job's result is rank 0's."""
        rank = str(self.first + local_rank)
        env = {**os.environ, **self._place(local_rank)}
        for name, ours in self.names.items():
            if ours in env:
                env.setdefault(name, env[ours])
        if Env.FAILURE in env:
            env[Env.RANK_FAILURE] = f"{env[Env.FAILURE]}.{rank}"
            if self.watch is not None:
                from practicus_runtime.hangs import stack_file

                env[Env.STACK] = stack_file(int(rank))
        if local_rank and Env.RESULT in env:
            env[Env.RESULT] += "." + rank
        return {**env, **torchruns(env)}

    def _place(self, local_rank: int) -> dict[str, str]:
        """What one rank is told of its place among all."""
        return {"RANK": str(self.first + local_rank), "LOCAL_RANK": str(local_rank)}

    def _listen(self) -> None:
        read, write = os.pipe()
        for end in (read, write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self.selector.register(read, selectors.EVENT_READ)
        self.wakeup = read
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _stop(self, number: int, frame: object) -> None:
        self.stopping = True
        self._signal_all(signal.SIGTERM)

    def _start(self, local_rank: int) -> None:
        read, write = os.pipe() if self.named or self.watch else (None, None)
        process = subprocess.Popen(
            self._command(local_rank),
            env=self._environment(local_rank),
            stdout=write,
            stderr=write,
            preexec_fn=own_session,
        )
        rank = self.first + local_rank
        self.processes[rank] = process
        if read is not None and write is not None:
            os.close(write)
            self.outputs[rank] = self._output(read, rank)
            self.selector.register(read, selectors.EVENT_READ, self.outputs[rank])

    def _output(self, source: int, rank: int) -> Output:
        return Output(source, f"[rank {rank}] ".encode() if self.named else b"")

    def _look(self) -> None:
        """Wait for output, an end, a signal, or the end of patience; then see to all of them."""
        for key, _ in self.selector.select(self._left()):
            if key.data is not None and not key.data.take():
                self.selector.unregister(key.fileobj)
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakeup, 4096)
        ended = {rank: process.poll() for rank, process in self.processes.items()}
        if any(ended.values()) and not self.status:
            failures = [failure for rank in ended if (failure := self._failure(rank, ended[rank]))]
            self._fail(min(failures, key=lambda failure: failure.precedence))
        self.processes = {rank: process for rank, process in self.processes.items() if ended[rank] is None}
        if self.watch is not None and not (self.stopping or self.status):
            heard = {rank: self.outputs[rank].heard_at for rank in self.processes}
            if hang := self.watch.look(heard, {rank: process.pid for rank, process in self.processes.items()}):
                self._fail(hang)
        if self.kill_at is not None and time.monotonic() >= self.kill_at:
            self._signal_all(signal.SIGKILL)
            self.kill_at = None

    def _left(self) -> Optional[float]:  # noqa: UP045  (Python 3.8)
        """Shows states of bars that are due; seconds until more is though nothing happens; None: nothing is."""
        now = time.monotonic()
        times = [self.kill_at, *(output.show(now) for output in self.outputs.values())]
        left = [max(0.0, at - now) for at in times if at is not None]
        return min([*left, *([self.watch.period] if self.watch else [])], default=None)

    def _failure(self, rank: int, status: Optional[int]) -> Optional[End]:  # noqa: UP045  (Python 3.8)
        """How a rank has failed, also if all that we have of its end yet is what it has said itself."""
        path = f"{os.environ[Env.FAILURE]}.{rank}" if Env.FAILURE in os.environ else None
        said = End.from_json(parsed(left_in(path, FAILURE_LIMIT), FAILURE_LIMIT))
        status = said.exit_code if status is None else status
        if not status:
            return None
        number = -status if status < 0 else None
        at = time.time() if said.at is None else said.at
        return End(None if number else status, number, rank=rank, at=at, unreached=said.unreached)

    def _fail(self, failure: End) -> None:
        """Say how the first one failed, and end the others: they would wait for it for ever."""
        self.status = -failure.signal if failure.signal else failure.exit_code or 1
        with contextlib.suppress(OSError, KeyError), open(os.environ[Env.FAILURE], "w") as file:
            json.dump(failure.to_json(), file)
        if not self.stopping:  # else whoever stops us says how long they have
            self._signal_all(signal.SIGTERM)
            self.kill_at = time.monotonic() + PATIENCE

    def _signal_all(self, number: int) -> None:
        for process in self.processes.values():
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, number)


class Output:
    """What one rank writes, passed on line by line."""

    def __init__(self, source: int, prefix: bytes) -> None:
        os.set_blocking(source, False)
        self.source = source
        self.prefix = prefix
        self.screen = Screen()
        self.heard_at: float | None = None

    def take(self) -> bool:
        """Pass on what has come; whether more may."""
        data = self._read()
        if data:
            self.heard_at = time.monotonic()
            self._pass_on(data)
        return data != b""

    def end(self) -> None:
        """Pass on what is left, but wait for nobody: a process that outlives its rank may hold the other end."""
        while data := self._read():
            self._pass_on(data)
        if self.screen.begun:
            self._write(self.screen.end())

    def show(self, now: float) -> Optional[float]:  # noqa: UP045  (Python 3.8)
        """Pass on the state of a bar if it is time to; when it is, if it is later."""
        state = self.screen.state(now)
        if state is not None:
            self._write([state])
        due: Optional[float] = self.screen.due()  # noqa: UP045  (Python 3.8)
        return due

    def _read(self) -> Optional[bytes]:  # noqa: UP045  (Python 3.8)
        """Nothing at the end, None if there is none yet."""
        try:
            return os.read(self.source, 1 << 16)
        except BlockingIOError:
            return None

    def _pass_on(self, data: bytes) -> None:
        lines = self.screen.take(data)
        if self.screen.size > LINE_LIMIT:
            lines += self.screen.end()
        self._write(lines)

    def _write(self, lines: list[bytes]) -> None:
        data = b"".join(self.prefix + line + b"\n" for line in lines)
        while data:
            data = data[os.write(1, data) :]


def torchruns(env: Mapping[str, str]) -> dict[str, str]:
    """What torchrun tells a rank beside its place, so that who asks for torchrun finds it: Lightning, which else counts
    its own devices and nodes, and may train alone. Nothing where torch's ranks have no place to meet: in an elastic
    Horovod.

    Source: torch 2.13, ``LocalElasticAgent._start_workers``, ``DefaultLogsSpecs.reify`` and ``launch_agent``, in
    ``torch/distributed/elastic`` and ``launcher``; ``torch.distributed.is_torchelastic_launched`` asks for the run id.

    :param env: of the rank, its place among it; a training whose rounds are counted says its restarts there.
    """
    if not {"MASTER_ADDR", "WORLD_SIZE"} <= env.keys():
        return {}
    from uuid import NAMESPACE_OID, uuid5

    failure = env.get(Env.FAILURE)
    return {
        "ROLE_NAME": "default",
        "ROLE_RANK": env["RANK"],
        "ROLE_WORLD_SIZE": env["WORLD_SIZE"],
        # The same for all ranks, and another for each job; a file may be named by it.
        "TORCHELASTIC_RUN_ID": str(uuid5(NAMESPACE_OID, env.get(Env.TASK, ""))),
        "TORCHELASTIC_RESTART_COUNT": env.get("TORCHELASTIC_RESTART_COUNT", "0"),
        "TORCHELASTIC_MAX_RESTARTS": env.get("TORCHELASTIC_MAX_RESTARTS", "0"),
        # Rank 0 serves the store itself. "True", as torchrun says, has rank 0 too look for one that its agent serves.
        "TORCHELASTIC_USE_AGENT_STORE": "False",
        "TORCHELASTIC_SIGNALS_TO_HANDLE": env.get("TORCHELASTIC_SIGNALS_TO_HANDLE", "SIGTERM,SIGINT,SIGHUP,SIGQUIT"),
        # What ``@record`` writes to; empty: nothing is written.
        "TORCHELASTIC_ERROR_FILE": f"{failure}.{env['RANK']}.error" if failure else "",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": env.get("TORCH_NCCL_ASYNC_ERROR_HANDLING", "1"),
    }


def name_interface() -> None:
    """Tell torch and NCCL of the network interface that has this replica's address."""
    if name := interface(os.environ.get(Env.HOST, "")):
        for variable in INTERFACES:
            os.environ.setdefault(variable, name)


def interface(address: str) -> Optional[str]:  # noqa: UP045  (Python 3.8)
    """The network interface that has that address; None if none has, or if there is no telling."""
    if not LINUX:
        return None
    return _interface_6(address) if ":" in address else _interface_4(address)


def _interface_4(address: str) -> Optional[str]:  # noqa: UP045  (Python 3.8)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has no address
                found = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None


def _interface_6(address: str) -> Optional[str]:  # noqa: UP045  (Python 3.8)
    """By the kernel's list: each line begins with an address, in hexadecimal digits, and ends with its interface."""
    with contextlib.suppress(OSError), open("/proc/net/if_inet6") as lines:
        wanted = socket.inet_pton(socket.AF_INET6, address).hex()
        return next((line.split()[-1] for line in lines if line.startswith(wanted)), None)
    return None


if __name__ == "__main__":
    sys.exit(Ranks(sys.argv[1:], named().over, {}).run())
