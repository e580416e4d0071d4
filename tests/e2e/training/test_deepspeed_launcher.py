"""Scripts are given what the installed DeepSpeed's launcher gives its own."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from pathlib import Path

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.application import ship
from practicus_provider.backends.local import LocalBackend
from practicus_provider.spec import JobSpec
from practicus_provider.status import State
from tests.e2e.airflow_home import free_ports
from tests.plans import created, end

JOBS = Path(__file__).parent / "jobs"
SCRIPT = "arguments.py"
PATIENCE = 300


def read(folder: Path) -> dict[str, list[str]]:
    """Rank -> arguments, with the folder left out, which is each launcher's own."""
    return {file.name: json.loads(file.read_text())[:-1] for file in folder.iterdir()}


@pytest.mark.parametrize(("options", "local_rank"), [((), True), (("--no_local_rank",), False)])
async def test_a_script_is_given_what_deepspeeds_launcher_gives_it(
    local: LocalBackend, python: str, tmp_path: Path, options: tuple[str, ...], local_rank: bool
) -> None:
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    world = base64.urlsafe_b64encode(json.dumps({"localhost": [0, 1]}).encode()).decode()
    place = (f"--world_info={world}", "--master_addr=127.0.0.1", f"--master_port={free_ports(1)[0]}")
    launcher = (python, "-m", "deepspeed.launcher.launch", *place, *options)
    environment = os.environ | {"DS_ACCELERATOR": "cpu"}
    process = await asyncio.create_subprocess_exec(
        *launcher, str(JOBS / SCRIPT), "--own", "a b", str(theirs), env=environment
    )
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == 0
    args = ("--own", "a b", str(ours))
    shipment = ship(SCRIPT, args, (), JOBS)
    spec = JobSpec.of(adapter="deepspeed", application_args=args, procs_per_worker=2, local_rank=local_rank)
    async with created(local, "job", make_plan(spec, shipment.program, shipment.files)) as handle:
        status = await end(local, handle, PATIENCE)
    assert status.state is State.SUCCEEDED, status.verdict
    assert read(ours) == read(theirs)
    assert read(ours).keys() == {"0", "1"}
