"""What is told where FairScale and torch do not fit each other: here both are made up."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from practicus_provider import runtime

Said = Callable[..., str]
FSDP = "fairscale/nn/data_parallel/fully_sharded_data_parallel.py"
TORCH = {"torch/__init__.py": "from torch import cuda, distributed\nclass Tensor: pass"} | {
    "torch/cuda.py": "def is_available(): return False",
    "torch/distributed.py": "def reduce_scatter(): pass",
}
FAIRSCALE = {f"{folder}/__init__.py": "" for folder in ("fairscale", "fairscale/nn", "fairscale/nn/data_parallel")} | {
    FSDP: "import torch\nclass FullyShardedDataParallel:\n    def _setup_streams(self): pass",
}
TOLD = (
    "FairScale 0.4.13 does not go together with torch 9.9.9: {}. Tests run FairScale 0.4.13 with torch 2.6 and 2.13: "
    "install that, such as by pip install fairscale==0.4.13 torch==2.13.0"
)


@pytest.fixture
def said(tmp_path: Path) -> Said:
    """The last line of a rank that imports FSDP where these files are what is installed."""

    def run(files: dict[str, str]) -> str:
        versions = {"fairscale": "0.4.13", "torch": "9.9.9"}
        about = {f"{name}-{at}.dist-info/METADATA": f"Name: {name}\nVersion: {at}\n" for name, at in versions.items()}
        script = {"job.py": "import fairscale.nn.data_parallel.fully_sharded_data_parallel; print('fits')"}
        for name, content in {**files, **about, **script}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content)
        done = subprocess.run(
            [sys.executable, "-m", "practicus_runtime.script", "job.py"],
            env={
                **os.environ,
                "PYTHONPATH": f"{runtime.FOLDER}",
                "PRACTICUS_PREPARE": "practicus_runtime.fairscale_cpu",
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=20,
        )
        return (done.stdout + done.stderr).splitlines()[-1]

    return run


def test_nothing_is_told_of_a_pair_that_fits(said):
    assert said(TORCH | FAIRSCALE) == "fits"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        (
            TORCH | FAIRSCALE | {"fairscale/nn/__init__.py": "from torch.distributed import old"},
            "fairscale.nn: cannot import name 'old' from 'torch.distributed' ({folder}/torch/distributed.py)",
        ),
        (
            TORCH | FAIRSCALE | {"fairscale/nn/__init__.py": "from torch._six import inf"},
            "fairscale.nn: there is no torch._six",
        ),
        (
            TORCH | FAIRSCALE | {FSDP: "import torch; torch.gone"},
            "fairscale.nn.data_parallel.fully_sharded_data_parallel: module 'torch' has no attribute 'gone'",
        ),
        (
            TORCH | FAIRSCALE | {FSDP: "class FullyShardedDataParallel: pass"},
            "fairscale.nn.data_parallel.fully_sharded_data_parallel: type object 'FullyShardedDataParallel' has no "
            "attribute '_setup_streams'",
        ),
    ],
    ids=["a name is gone", "a module is gone", "an attribute is gone", "the patch does not fit"],
)
def test_a_pair_that_does_not_fit_is_told_with_both_versions_and_the_way_out(said, tmp_path, files, reason):
    assert said(files) == "practicus_runtime.fairscale_cpu.Unfit: " + TOLD.format(reason.format(folder=tmp_path))


@pytest.mark.parametrize(("absent", "name"), [("torch/", "torch"), ("fairscale/", "fairscale")])
def test_a_framework_that_is_absent_is_told_as_python_does(said, absent, name):
    files = {path: content for path, content in (TORCH | FAIRSCALE).items() if not path.startswith(absent)}
    assert said(files) == f"ModuleNotFoundError: No module named '{name}'"
