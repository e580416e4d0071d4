"""What is shipped is of use where the job runs."""

from __future__ import annotations

from pathlib import Path

from practicus_provider.adapters import make_plan
from practicus_provider.application import ship
from practicus_provider.backends.base import Backend
from practicus_provider.spec import Function, JobSpec
from practicus_provider.status import State
from tests.plans import created, end, wheel

SOURCE = """\
def use():
    import os, subprocess, greeting
    tool = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tool")
    return [greeting.HELLO, subprocess.run([tool], stdout=subprocess.PIPE, check=True).stdout.decode()]
"""


async def test_a_job_imports_from_a_wheel_and_runs_a_program_that_were_shipped(
    backend: Backend, tmp_path: Path
) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\necho works")
    tool.chmod(0o755)
    files = [str(tool), str(wheel(tmp_path, "greeting", "HELLO = 'hello'\n"))]
    spec = JobSpec.of(adapter="tests.plans.Alone", application=Function("use", SOURCE))
    shipment = ship(spec.application, (), files, tmp_path)
    plan = make_plan(spec, shipment.program, shipment.files, executable=shipment.executable, pods=backend.pods)
    async with created(backend, "job", plan) as handle:
        status = await end(backend, handle)
    assert status.state is State.SUCCEEDED, status.verdict
    assert status.result == '["hello", "works\\n"]'
