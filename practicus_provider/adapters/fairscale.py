"""FairScale: OSS, ShardedDDP, FSDP and Pipe, on torch's process group.

Source: https://fairscale.readthedocs.io, version 0.4.13, the last one.
"""

from __future__ import annotations

from practicus_provider.adapters import TRAINING
from practicus_provider.adapters.spmd import SpmdAdapter
from practicus_provider.plan import Framework, Text
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import JobSpec


class FairScaleAdapter(SpmdAdapter):
    """FairScale; its FSDP runs without GPUs, too, by a shim that is off where there is one."""

    client = "practicus_runtime.groups:torch_group"
    meets = "torch"
    framework = Framework({"fairscale": "pip install fairscale==0.4.13", "torch": "pip install torch"}, TRAINING)

    def env(self, spec: JobSpec) -> dict[str, Text]:
        """See :meth:`SpmdAdapter.env`."""
        return {**super().env(spec), Env.PREPARE: "practicus_runtime.fairscale_cpu"}
