"""Airflow's commands without its start: a process imports Airflow once, and each command runs in a fork of it.

To import what ``airflow dags test`` needs, and to make the routes of the API that its tasks use, takes longer than most
of our jobs.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

IMPORTS = (
    "airflow.__main__",
    "a2wsgi",
    "airflow.api_fastapi.execution_api.routes",
    "airflow.cli.commands.dag_command",
    "airflow.sdk.execution_time.task_runner",
    "practicus_provider.backends.kubernetes",
    "practicus_provider.operators.job",
)
"""What commands import, or ``airflow dags test`` does as it runs."""

Command = Callable[..., tuple[int, str]]
"""Exit code, and all that was printed, of ``airflow`` with these arguments."""


@contextlib.contextmanager
def commands(env: Mapping[str, str], folder: Path) -> Iterator[Command]:
    """Run ``airflow`` commands in an environment.

    :param folder: where they run, and leave what they print.
    """
    output = folder / "command.log"
    server = subprocess.Popen(
        [sys.executable, "-P", __file__],
        cwd=folder,
        env=env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdin
    assert server.stdout
    requests, answers = server.stdin, server.stdout

    def command(*args: str) -> tuple[int, str]:
        print(json.dumps([str(output), args]), file=requests, flush=True)
        code = answers.readline()
        assert code, f"what runs commands has ended by itself: {server.wait()}"
        return int(code), output.read_text()

    with server:
        yield command
        requests.close()


def _serve() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what is imported prints, too
    for module in IMPORTS:
        importlib.import_module(module)
    asyncio.run(_make_routes())
    gc.collect()
    gc.freeze()  # else each fork's collector looks at, and so copies, all that was imported
    for line in sys.stdin:
        output, args = json.loads(line)
        child = os.fork()
        if not child:
            _run(Path(output), args)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), file=answers, flush=True)


async def _make_routes() -> None:
    """Have the API make them that serves the tasks of ``airflow dags test``, in its process: it does so at the first
    request (Airflow 3.3, ``airflow.sdk.execution_time.supervisor.in_process_api_server``).
    """
    import httpx
    from airflow.sdk.execution_time.supervisor import in_process_api_server

    transport = in_process_api_server().atransport
    async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as client:
        (await client.get("/health")).raise_for_status()


def _run(output: Path, args: list[str]) -> None:
    """Be ``airflow`` with these arguments, which prints to a file."""
    from airflow.__main__ import main

    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.close(0)
    sys.argv = ["airflow", *args]
    main()
    sys.exit()


if __name__ == "__main__":
    _serve()
