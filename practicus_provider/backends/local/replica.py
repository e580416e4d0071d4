"""One replica: the facts that its launch refers to, its launcher's process, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from practicus_provider import runtime
from practicus_provider.backends.local.folder import ClusterFolder
from practicus_provider.backends.local.ports import LOOPBACK
from practicus_provider.backends.local.refusals import advice_for, words
from practicus_provider.backends.local.volumes import volume_env
from practicus_provider.plan import Here, Host, Part, Plan, Port, Role, Text, parts
from practicus_provider.runtime.practicus_runtime.contract import (
    FAILURE_FILE,
    FAILURE_LIMIT,
    LAUNCH_FILE,
    RESULT_FILE,
    End,
    Env,
    Place,
    ReplicaLaunch,
    Report,
    parsed,
)
from practicus_provider.status import Reason, ReplicaStatus, State, Unreached, Verdict, signal_name

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL, where the plan does not say."""
LOG_LIMIT = 1 << 30
"""Bytes of a replica's log that stay on disk, where the connection does not say."""

PortOf = Callable[[Port], int]


@dataclass(frozen=True)
class Surroundings:
    """What all replicas of a cluster have in common."""

    folder: ClusterFolder
    uid: str
    task: Mapping[str, Any]
    plan: Plan
    python: str
    key: str
    log_limit: int = LOG_LIMIT

    @property
    def grace(self) -> float:
        """Seconds between SIGTERM and SIGKILL."""
        return GRACE if self.plan.grace is None else self.plan.grace

    @property
    def lacks(self) -> dict[str, str]:
        """Module of the framework -> what to do if that Python has none of that name."""
        modules = self.plan.framework.modules if self.plan.framework else {}
        return {
            module: f"{self.python} has no Python module {module!r}, which adapter {self.plan.adapter!r} needs: "
            f"install it there ({how}), or have the connection's extra 'python' name one that has it."
            for module, how in modules.items()
        }


@dataclass
class Replica:
    """One replica, from before its start to its end.

    :param port_of: the number of a port that this replica's launch refers to.
    """

    role: Role
    index: int
    around: Surroundings
    port_of: PortOf
    status: ReplicaStatus = field(init=False)
    process: asyncio.subprocess.Process | None = None
    stopping: bool = False
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.status = ReplicaStatus(self.role.name, self.index, State.PENDING)

    @property
    def name(self) -> str:
        """``role-index``."""
        return self.status.name

    @property
    def mark(self) -> str:
        """Value of the environment variable that every process of this replica inherits."""
        return f"{self.around.uid}/{self.name}"

    async def run(self) -> AsyncIterator[ReplicaStatus]:
        """Start it; a status once its command was started, and one when that ended.

        :raises OSError: it cannot be started.
        """
        reader = asyncio.StreamReader()
        report, launcher_end = os.pipe()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(report, "rb", buffering=0)
        )
        try:
            try:
                self.process = await self._launch(launcher_end)
            finally:
                os.close(launcher_end)
            if self.stopping:
                self._signal(signal.SIGTERM)
            async for line in reader:
                said = Report.from_json(parsed(line, FAILURE_LIMIT))
                if said.end is not None:
                    yield self._end(said.end)
                elif said.pid is not None:
                    self.status = replace(self.status, started_at=time.time())
                    yield self.status
        finally:
            transport.close()
        code = await self.process.wait()
        if not self.status.state.final:
            yield self._end(End(signal=-code) if code < 0 else End(code))

    def cannot_start(self, error: OSError | ValueError) -> Verdict:
        """Why the system does not start it, and what to do."""
        self.status = replace(self.status, state=State.FAILED, ended_at=time.time())
        why, advice = (words(error), advice_for(error)) if isinstance(error, OSError) else (str(error), "")
        return Verdict(State.FAILED, Reason.ERROR, f"{self.name} cannot be started: {why}", advice, replica=self.name)

    def stop(self) -> None:
        """SIGTERM, once, as soon as there is a process; its launcher forwards it and kills what stays."""
        if not self.stopping:
            self.stopping = True
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End its launcher, and with it everything below."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(number)

    def _end(self, end: End) -> ReplicaStatus:
        """What its launcher said of its end. One that others than we have stopped has not done its work."""
        good = end.exit_code == 0 and (self.stopping or not end.stopped)
        self.status = replace(
            self.status,
            state=State.SUCCEEDED if good else State.FAILED,
            exit_code=end.exit_code,
            signal=signal_name(end.signal),
            ended_at=end.at or time.time(),
            rank=end.rank,
            culprit=end.replica,
            silent=end.silent,
            unreached=Unreached(*end.unreached) if end.unreached else None,
        )
        return self.status

    async def _launch(self, report: int) -> asyncio.subprocess.Process:
        folder, launch = self.around.folder, self.role.launch
        scratch = folder.scratch(self.name)
        scratch.mkdir(parents=True)
        for name, text in launch.files.items():
            (scratch / name).parent.mkdir(parents=True, exist_ok=True)
            (scratch / name).write_text(self._resolve(text), encoding="utf-8")
        order = ReplicaLaunch(
            command=[self._resolve(text) for text in launch.command],
            after=[Place(f"{port.role}-0", LOOPBACK, self.port_of(port)) for port in launch.after],
            grace=self.around.grace,
            report=report,
            leash=True,
            log=str(folder.log(self.name)),
            log_bytes=self.around.log_limit,
        )
        (scratch / LAUNCH_FILE).write_text(json.dumps(order.to_json()))
        with folder.log(self.name).open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(runtime.START), str(scratch / LAUNCH_FILE)),
                stdin=asyncio.subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=scratch,
                env=self._environment(),
                pass_fds=(report,),
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        """The supervisor's own, the launch's, and what we tell."""
        around = self.around
        given = dict(os.environ) | {name: self._resolve(text) for name, text in self.role.launch.env.items()}
        search = [str(around.folder.path / "app"), str(runtime.FOLDER), given.get("PYTHONPATH", "")]
        own = {
            Env.CLUSTER: around.uid,
            Env.REPLICA: self.mark,
            Env.ROLE: self.role.name,
            Env.INDEX: str(self.index),
            Env.HOST: LOOPBACK,
            Env.TASK: json.dumps(around.task),
            Env.START_TIMEOUT: str(around.plan.start_timeout),
            Env.RESULT: str(around.folder.scratch(self.name) / RESULT_FILE),
            Env.FAILURE: str(around.folder.scratch(self.name) / FAILURE_FILE),
            Env.CONTROL: str(around.folder.control),
            "PYTHONPATH": os.pathsep.join(filter(None, search)),
            "PYTHONUNBUFFERED": "1",
        }
        client = {Env.CLIENT: around.plan.client} if around.plan.client else {}
        spawns = {Env.SPAWNS: self.role.launch.spawns} if self.role.launch.spawns else {}
        return given | own | client | spawns | volume_env(around.plan, around.folder, self.name)

    def _resolve(self, text: Text) -> str:
        return "".join(map(self._resolve_part, parts(text)))

    def _resolve_part(self, part: Part) -> str:
        match part:
            case Here.PYTHON:
                return self.around.python
            case Here.APP:
                return str(self.around.folder.path / "app")
            case Here.SCRATCH:
                return str(self.around.folder.scratch(self.name))
            case Here.INDEX:
                return str(self.index)
            case Here.KEY:
                return self.around.key
            case Here.HOST | Here.URL_HOST | Host():
                return LOOPBACK
            case Port():
                return str(self.port_of(part))
            case str():
                return part
        raise TypeError(f"not a part of a text: {part!r}")
