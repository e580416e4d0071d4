"""A whole training on this machine: by our local backend, and by the framework's own launcher."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import Row, compared, turns
from benchmarks.training.program import BEGAN, ENDED, MET, RANKS, USED, program
from practicus_provider import lifecycle
from practicus_provider.adapters import make_plan
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.ports import PortReservations
from practicus_provider.lifecycle import Policy
from practicus_provider.plan import Here, Plan
from practicus_provider.spec import JobSpec
from tests.training import environment

PATIENCE = 600.0
"""Seconds after which a training does not end any more."""
LEASE = 10.0
"""Seconds that a training goes on should we be killed."""
SAID = re.compile(rf"\b({BEGAN}|{MET}|{ENDED}|{USED}) ([\d.]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Life:
    """One training, in seconds; see the module's ``__main__`` for what they are."""

    script: float
    processor: float
    whole: float
    start: float

    @classmethod
    def of(cls, output: str, begin: float, known: float) -> Life:
        """From what all ranks have written.

        :param begin: when it was submitted.
        :param known: when its end was known.
        """
        said: dict[str, list[float]] = defaultdict(list)
        for word, figure in SAID.findall(output):
            said[word].append(float(figure))
        [began], [ended], [used] = said[BEGAN], said[ENDED], said[USED]
        if len(said[MET]) != RANKS:
            raise RuntimeError(f"{len(said[MET])} ranks of {RANKS} have met:\n{output}")
        return cls(ended - began, used, known - begin, max(said[MET]) - begin)


def lived(framework: str, runs: int, steps: int) -> Iterator[Row]:
    """The rows of one framework."""
    python = environment.python()
    contestants: list[tuple[str, Callable[[Path, Path, str, str], Life]]] = [("ours", _ours), ("raw", _bare)]
    lives: dict[str, list[Life]] = {who: [] for who, _ in contestants}
    for turn, (who, run) in turns(contestants, runs):
        with tempfile.TemporaryDirectory() as folder:
            life = run(Path(folder), python, framework, program(framework, steps, pinned=True))
        if turn:
            lives[who].append(life)

    def row(measure: str, figure: str, most: float | None = None, bar: str | None = None) -> Row:
        samples = {who: [getattr(life, figure) for life in taken] for who, taken in lives.items()}
        return compared(f"{measure}, {framework}, local", samples, most=most, bar=bar)

    yield row("script's first line -> its last", "script", 1.02, "at most 1.02 x the bare launcher")
    yield row("processor time of rank 0", "processor")
    yield row("submit -> its end is known", "whole")
    yield row("submit -> all ranks have met", "start", 1.10, "at most 1.10 x the bare launcher")


def _ours(folder: Path, python: Path, framework: str, code: str) -> Life:
    spec = JobSpec(adapter=framework, workers=1, procs_per_worker=RANKS)
    plan = make_plan(spec, (Here.PYTHON, (Here.APP, "/job.py")), {"job.py": code.encode()})
    return asyncio.run(_followed(LocalBackend(folder, python=str(python)), plan))


async def _followed(backend: LocalBackend, plan: Plan) -> Life:
    said: list[tuple[float, str]] = []
    begin = time.time()
    policy = Policy(begin + PATIENCE, ("worker-0",), lease=LEASE)
    async with asyncio.timeout(PATIENCE):
        handle = await backend.create("job", plan, task={}, lease=LEASE)
        outcome = await lifecycle.follow(backend, handle, policy, lambda text, *_: said.append((time.time(), text)))
    outcome.value()  # raises if it did not go well
    known = next(at for at, text in said if text == outcome.verdict.text())
    return Life.of("\n".join(text for _, text in said), begin, known)


def _bare(folder: Path, python: Path, framework: str, code: str) -> Life:
    script = folder / "job.py"
    script.write_text(code)
    with contextlib.closing(PortReservations()) as ports:
        command = [*_launcher(framework, python, ports.take()), str(script)]
        begin = time.time()
        done = subprocess.run(
            command,
            env=os.environ | {"OMP_NUM_THREADS": "1"},  # as ours has it, and torchrun
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    known = time.time()
    # torch 2.13 aborts now and then as an interpreter winds up, after all is done: torchrun then fails.
    if done.returncode and ENDED not in dict(SAID.findall(done.stdout)):
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
    return Life.of(done.stdout, begin, known)


def _launcher(framework: str, python: Path, port: int) -> list[str]:
    """A command of two ranks on this machine, as each framework documents it; the script follows."""
    match framework:
        case "deepspeed":
            return [str(python.with_name("deepspeed")), f"--num_gpus={RANKS}", f"--master_port={port}"]
        case "horovod":
            run = [str(python.with_name("horovodrun")), "--gloo", "-np", str(RANKS), "-H", f"localhost:{RANKS}"]
            return [*run, str(python)]
    return [str(python.with_name("torchrun")), "--standalone", f"--nproc-per-node={RANKS}"]
