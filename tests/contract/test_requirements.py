"""What a job requires is installed where it runs."""

from __future__ import annotations

from pathlib import Path

from practicus_provider.adapters import make_plan
from practicus_provider.application import ship
from practicus_provider.backends.base import Backend
from practicus_provider.spec import Function, JobSpec
from practicus_provider.status import State
from tests.plans import created, end, read, wheel


async def test_a_function_imports_what_it_requires_on_every_replica(backend: Backend, tmp_path: Path) -> None:
    source = "def greet():\n    import greeting\n    print(greeting.HELLO)\n    return greeting.__file__\n"
    spec = JobSpec.of(
        adapter="tests.plans.Alone",
        application=Function("greet", source),
        requirements=("greeting>=1,<2",),
        env={"PIP_NO_INDEX": "1"},
        workers=2,
    )
    shipment = ship(spec.application, (), [str(wheel(tmp_path, "greeting", "HELLO = 'hello'\n"))], tmp_path)
    plan = make_plan(spec, shipment.program, shipment.files, pods=backend.pods)
    async with created(backend, "job", plan) as handle:
        status = await end(backend, handle)
        said = [(line.index, line.text) for line in await read(backend, handle, "driver")]
    assert status.state is State.SUCCEEDED, status.verdict
    assert [index for index, text in said if text.startswith("installed greeting")] in ([0, 1], [1, 0])
    assert sorted(index for index, text in said if text == "hello") == [0, 1]
    assert "/requirements/lib/" in str(status.result)
