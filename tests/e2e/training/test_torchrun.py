"""Ranks are told what the installed ``torchrun`` tells its own."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.application import ship
from practicus_provider.backends.local import LocalBackend
from practicus_provider.spec import Elastic, JobSpec
from practicus_provider.status import State
from tests.e2e.airflow_home import free_ports
from tests.plans import created, end

JOBS = Path(__file__).parent / "jobs"
SCRIPT = "torch_environment.py"
PATIENCE = 300
OTHERWISE = {
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_RUN_ID",
    "TORCHELASTIC_ERROR_FILE",
    "TORCHELASTIC_USE_AGENT_STORE",  # rank 0 serves the store, and no agent
}
"""What each launcher has a value of its own for."""

Told = dict[str, dict[str, str]]
"""Rank -> variable -> value."""


def read(folder: Path) -> Told:
    return {file.name: json.loads(file.read_text()) for file in folder.iterdir()}


async def by_torchrun(python: str, folder: Path, nodes: int, max_restarts: int) -> Told:
    """What torchrun sets for two ranks on each of so many nodes, and not what these inherit."""
    inherited = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    place = ("--master-addr=127.0.0.1", f"--master-port={free_ports(1)[0]}", f"--nnodes={nodes}", "--nproc-per-node=2")
    command = (str(Path(python).with_name("torchrun")), *place, f"--max-restarts={max_restarts}")
    started = [
        await asyncio.create_subprocess_exec(
            *command, f"--node-rank={node}", str(JOBS / SCRIPT), str(folder), env=inherited
        )
        for node in range(nodes)
    ]
    async with asyncio.timeout(PATIENCE):
        assert [await process.wait() for process in started] == [0] * nodes
    return {rank: {key: env[key] for key in env.keys() - inherited.keys()} for rank, env in read(folder).items()}


async def by_us(backend: LocalBackend, folder: Path, **how: Any) -> Told:
    args = (str(folder),)
    shipment = ship(SCRIPT, args, (), JOBS)
    spec = JobSpec.of(adapter="torch", application=SCRIPT, application_args=args, procs_per_worker=2, **how)
    async with created(backend, "job", make_plan(spec, shipment.program, shipment.files)) as handle:
        status = await end(backend, handle, PATIENCE)
    assert status.state is State.SUCCEEDED, status.verdict
    return read(folder)


@pytest.mark.parametrize(
    ("nodes", "max_restarts", "how"),
    [(2, 0, {"workers": 2}), (1, 1, {"workers": Elastic(1, 1), "conf": {"max_restarts": 1}})],
    ids=["fixed", "elastic"],
)
async def test_ranks_are_told_all_that_torchrun_tells(
    local: LocalBackend, python: str, tmp_path: Path, nodes: int, max_restarts: int, how: dict[str, Any]
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    expected = await by_torchrun(python, theirs, nodes, max_restarts)
    assert {env["TORCHELASTIC_RESTART_COUNT"] for env in expected.values()} == {str(max_restarts)}
    found = await by_us(local, ours, **how)
    assert {rank: env.keys() - found[rank].keys() for rank, env in expected.items()} == {rank: set() for rank in found}
    alike = {rank: {key: found[rank][key] for key in env.keys() - OTHERWISE} for rank, env in expected.items()}
    assert alike == {rank: {key: env[key] for key in env.keys() - OTHERWISE} for rank, env in expected.items()}
    assert {env["TORCHELASTIC_USE_AGENT_STORE"] for env in found.values()} == {"False"}
    assert len({env["TORCHELASTIC_RUN_ID"] for env in found.values()}) == 1
    assert len({env["TORCHELASTIC_ERROR_FILE"] for env in found.values()}) == len(found)
