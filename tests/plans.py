"""Small plans of plain Python processes, for tests of backends."""

from __future__ import annotations

import asyncio
import contextlib
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from practicus_provider.adapters import Adapter, Program
from practicus_provider.backends.base import Backend, Handle, LogLine
from practicus_provider.plan import Here, Launch, Plan, Port, Role, Text
from practicus_provider.pod_settings import PodSettings
from practicus_provider.spec import Elastic, JobSpec
from practicus_provider.status import Status, Verdict

TASK = {"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": -1, "try_number": 1, "logical_date": None}
PATIENCE = 60.0
"""Seconds after which a test that waits has failed: many of those that a loaded machine needs."""

SLEEP = "import time; time.sleep(600)"
LISTEN = """
import socket, sys, time
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
server = socket.create_server((sys.argv[1], int(sys.argv[2])), family=family)
print("listening", flush=True)
while True:
    server.accept()[0].sendall(b"hello\\n")
"""


def role(name: str, code: str, *args: Text, replicas: int = 1, elastic: Elastic | None = None, **launch: Any) -> Role:
    """A role whose replicas run ``code`` in Python."""
    return Role(name, Launch((Here.PYTHON, "-c", code, *args), **launch), replicas, elastic=elastic)


class Alone(Adapter):
    """Drivers that run the application, and nothing else."""

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        return (Role("driver", Launch(program, spec.env), spec.min_workers),)


def plan(*roles: Role, decides: str | None = "driver", timeout: float = 300.0, **more: Any) -> Plan:
    """A plan of these roles; what only pods take may stand among the others."""
    pod = {field.name: more.pop(field.name) for field in fields(PodSettings) if field.name in more}
    return Plan("test", roles, decides, timeout, pod=PodSettings(**pod), **more)


def with_pods(plan: Plan, **settings: Any) -> Plan:
    """The same with other settings of its pods."""
    return replace(plan, pod=replace(plan.pod, **settings))


def server(name: str = "coordinator") -> Role:
    """A role that greets whoever connects to its port."""
    return role(name, LISTEN, Here.HOST, Port(name, "greet"), ports={"greet": 9000}, ready="greet")


ASK = """
import sys, time
from practicus_runtime import control
try:
    control.scale(sys.argv[1], int(sys.argv[2]))
except OSError as error:
    sys.exit(str(error))
time.sleep(600)
"""


def asking(name: str, replicas: int) -> Role:
    """A driver that asks for that many replicas of a role."""
    return role("driver", ASK, name, str(replicas), spawns="worker")


ECHO = """
import asyncio, sys
async def serve(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
    print("closed", flush=True)
async def main():
    async with await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1])) as server:
        await server.serve_forever()
asyncio.run(main())
"""


def page(name: str = "coordinator") -> Role:
    """A role that says back on loopback what it is told, and whose port ``page`` is up once it runs."""
    return role(name, ECHO, Port(name, "page"), ports={"page": 9001, "nobody": 9002})


async def end(backend: Backend, handle: Handle, patience: float = PATIENCE) -> Status:
    """The final status."""
    return await until(backend, handle, lambda status: status.state.final, patience)


async def until(backend: Backend, handle: Handle, met: Callable[[Status], bool], patience: float = PATIENCE) -> Status:
    """The first status that meets a condition."""
    async with asyncio.timeout(patience), contextlib.aclosing(backend.watch(handle)) as statuses:
        async for status in statuses:
            if met(status):
                return status
    raise AssertionError(f"the watch ended before, with {status}")


async def read(backend: Backend, handle: Handle, *roles: str) -> list[LogLine]:
    """All lines that were not read before."""
    async with asyncio.timeout(PATIENCE):
        return [line async for line in backend.logs(handle, roles)]


@contextlib.asynccontextmanager
async def created(backend: Backend, name: str, plan: Plan, **how: Any) -> AsyncIterator[Handle]:
    """A cluster that is gone afterwards."""
    handle = await backend.create(name, plan, **{"task": TASK} | how)
    try:
        yield handle
    finally:
        await backend.delete(handle)


def wheel(folder: Path, module: str, source: str) -> Path:
    """A distribution of one module, version 1.0."""
    info = f"{module}-1.0.dist-info"
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{module}.py", source)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


async def verdict_of(backend: Backend, job: Plan) -> Verdict:
    """How a job ends, whose cluster is gone then."""
    async with created(backend, "job", job) as handle:
        verdict = (await end(backend, handle)).verdict
    assert verdict is not None
    return verdict
