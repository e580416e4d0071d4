"""``python -m benchmarks.hostile --json``: memory of whoever reads a local job that writes without bounds.

Each job is followed to its end by a process as a triggerer follows it, and then read by one as the page *Clusters* of
the API server reads it. Told is the peak of each one's memory (``VmHWM`` in proc(5)) and of the supervisor's, beside
what it is for a job that says a word.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import command
from benchmarks.report import turns
from practicus_provider import lifecycle
from practicus_provider.backends.base import Handle
from practicus_provider.backends.local import LocalBackend
from practicus_provider.lifecycle import Policy
from practicus_provider.plan import Here, Launch, Plan, Role
from tests.local import supervisor_of

PATIENCE = 300.0
WORD = "a word"
JOBS = {
    WORD: "print('a word', flush=True)",
    "a result of 200 MiB": """
import os
with open(os.environ["PRACTICUS_RESULT"], "wb") as file:
    for _ in range(200):
        file.write(b"1" * (1 << 20))
""",
    "a line of 300 MiB": """
import sys
for _ in range(300):
    sys.stdout.write("x" * (1 << 20))
""",
    "holes of 100 GiB as result, log and cursor": """
import os, pathlib
result = pathlib.Path(os.environ["PRACTICUS_RESULT"])
folder = next(folder for folder in result.parents if (folder / "cluster.json").exists())
for file in (result, folder / "cursor.json", *folder.glob("logs/driver-0.log*")):
    file.touch()
    os.truncate(file, 100 << 30)
""",
}


def main() -> None:
    """Print the figures."""
    parser = command.parser(__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--read-as", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("cluster", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read_as:
        root, name, uid = options.cluster
        print(json.dumps(asyncio.run(_read(options.read_as, LocalBackend(Path(root)), Handle(name, uid)))))
        return
    command.end_by_sigterm()
    samples: dict[str, dict[str, list[float]]] = {job: {} for job in JOBS}
    with tempfile.TemporaryDirectory() as root:
        for turn, job in turns(list(JOBS), options.runs):
            for who, peak in asyncio.run(_peaks(LocalBackend(Path(root)), JOBS[job])).items():
                if turn:
                    samples[job].setdefault(who, []).append(peak)
    print(json.dumps({job: _told(peaks, samples[WORD]) for job, peaks in samples.items()}, indent=2))


def _told(peaks: dict[str, list[float]], least: dict[str, list[float]]) -> dict[str, Any]:
    """Process -> its peak in MiB, and how much that is beyond the one of a word."""
    return {
        who: {
            "MiB": round(median(found), 1),
            "more": round(median(found) - median(least[who]), 1),
            "samples": [round(one, 1) for one in found],
        }
        for who, found in peaks.items()
    }


async def _peaks(backend: LocalBackend, code: str) -> dict[str, float]:
    """Process -> its peak in MiB while it deals with a job of that code."""
    plan = Plan("benchmark", (Role("driver", Launch((Here.PYTHON, "-c", code))),), "driver", PATIENCE)
    handle = await backend.create("job", plan, task={"dag_id": "d", "task_id": "t", "run_id": "r", "map_index": -1})
    supervisor = supervisor_of(backend, handle)
    try:
        peaks = {who: _peak_of_reader(who, backend, handle) for who in READERS}
        return {"supervisor": _peak(supervisor.pid), **peaks}
    finally:
        await backend.delete(handle)


def _peak_of_reader(who: str, backend: LocalBackend, handle: Handle) -> float:
    arguments = [sys.executable, "-m", "benchmarks.hostile", "--read-as", who, str(backend.root), handle.name]
    said = subprocess.run([*arguments, handle.uid], check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE)
    return float(json.loads(said.stdout))


async def _read(who: str, backend: LocalBackend, handle: Handle) -> float:
    """The peak of this process, in MiB, once it has read all."""
    await READERS[who](backend, handle)
    return _peak("self")


async def _follow(backend: LocalBackend, handle: Handle) -> None:
    policy = Policy(time.time() + PATIENCE, ("driver",), teardown=None)
    await lifecycle.follow(backend, handle, policy, lambda *_: None)


async def _show(backend: LocalBackend, handle: Handle) -> None:
    await backend.list()
    async with contextlib.aclosing(backend.logs(handle, ("driver",), whole=True)) as lines:
        async for _ in lines:
            pass


READERS = {"triggerer": _follow, "API server": _show}


def _peak(pid: int | str) -> float:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


if __name__ == "__main__":
    main()
