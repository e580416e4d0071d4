"""The frameworks' own examples run as they are: no line of them is changed.

They are not ours, so they are not here. FairScale's are in its wheel. For the others ``PRACTICUS_TEST_UPSTREAM`` names
a folder with clones of their repositories, by their names; without it, those tests are skipped. What is here: a
torchvision of made-up data, where the examples would download theirs.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.application import ship
from practicus_provider.backends.base import Backend
from practicus_provider.backends.local import LocalBackend
from practicus_provider.spec import Elastic, JobSpec
from practicus_provider.status import State
from tests.plans import created, end

UPSTREAM = os.environ.get("PRACTICUS_TEST_UPSTREAM", "")
cloned = pytest.mark.skipif(not UPSTREAM, reason="PRACTICUS_TEST_UPSTREAM names no folder with upstream's repositories")
TORCHVISION = str(Path(__file__).parent / "upstream" / "torchvision")
PATIENCE = 300
"""Seconds that a training may take: most of them are imports."""
IMAGENET = "--arch tiny --dummy --dist-url env:// --dist-backend gloo --epochs 1 --batch-size 16 --workers 0"
CIFAR = "--deepspeed --epochs 1 --dtype fp32 --stage 2"
SYNTHETIC = "--model tiny --batch-size 2 --num-warmup-batches 1 --num-batches-per-iter 2 --num-iters 2 --no-cuda"
OSS = "--cpu --model tiny --epochs 1 --batch_size 16 --optim_type oss_sharded_ddp"
ELASTIC = {"workers": Elastic(1, 2), "conf": {"last_call_timeout": PATIENCE}}
EXAMPLES: dict[str, tuple[str, str, str, str, dict[str, Any]]] = {
    "torch": ("torch", "examples/imagenet/main.py", IMAGENET, "Epoch: [0][1/2]", {}),
    "deepspeed": (
        *("deepspeed", "DeepSpeedExamples/training/cifar/cifar10_deepspeed.py"),
        *(CIFAR, "Accuracy of the network on the 40 test images", {}),
    ),
    "horovod": (
        *("horovod", "horovod/examples/pytorch/pytorch_synthetic_benchmark.py"),
        *(SYNTHETIC, "Total img/sec on 2 CPU(s)", {}),
    ),
    "elastic horovod": (
        *("horovod", "horovod/examples/elastic/pytorch/pytorch_synthetic_benchmark_elastic.py"),
        *(SYNTHETIC, "Total img/sec on 2 CPU(s)", ELASTIC),
    ),
}
"""Name -> adapter, script, its own arguments that make it small, what it then prints, and what the job asks for."""


async def log(backend: Backend, adapter: str, script: str, args: str, **how: Any) -> str:
    """The job's log of an example that went well."""
    spec = JobSpec.of(
        adapter=adapter, application=script, application_args=tuple(args.split()), files=(TORCHVISION,), **how
    )
    shipment = ship(spec.application, spec.application_args, spec.files, Path(UPSTREAM))
    plan = make_plan(spec, shipment.program, shipment.files)
    async with created(backend, "job", plan) as handle:
        status = await end(backend, handle, PATIENCE)
        lines = "\n".join([line.text async for line in backend.logs(handle, (plan.coordinator,))])
    assert status.state is State.SUCCEEDED, (status.verdict, lines[-4000:])
    return lines


@cloned
@pytest.mark.parametrize("name", EXAMPLES)
async def test_an_example_runs_as_it_is(backend: Backend, name: str) -> None:
    adapter, script, args, said, how = EXAMPLES[name]
    assert said in await log(backend, adapter, script, args, **{"workers": 2} | how)


@pytest.fixture
def packages(python: str) -> str:
    """Folder of what is installed where the frameworks are."""
    find = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    return subprocess.run(find, capture_output=True, text=True, check=True).stdout.strip()


async def test_so_does_fairscale_s_benchmark_which_starts_its_ranks_itself(local: LocalBackend, packages: str) -> None:
    assert "[1] : Training done." in await log(local, "fairscale", f"local://{packages}/benchmarks/oss.py", OSS)
