"""Horovod with Gloo: no ``horovodrun``, no ssh, no MPI.

Of a fixed number of workers the first serves the rendezvous that ``horovodrun`` would. Source of the variables:
``horovod.runner.gloo_run``, ``create_slot_env_vars`` and ``create_run_env_vars``, version 0.28.
"""

from __future__ import annotations

from practicus_provider.adapters import TRAINING
from practicus_provider.adapters.elastic import ElasticAdapter
from practicus_provider.adapters.spmd import RENDEZVOUS, procs, views, world_size
from practicus_provider.errors import SpecError
from practicus_provider.plan import Framework, Here, Host, Text
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import JobSpec

GLOO: dict[str, Text] = {"HOROVOD_CONTROLLER": "gloo", "HOROVOD_CPU_OPERATIONS": "gloo"}


class HorovodAdapter(ElasticAdapter):
    """Horovod; ``hvd.init()`` finds the other ranks."""

    client = "practicus_runtime.groups:horovod"
    meets = "horovod"
    framework = Framework(
        {"horovod": "it has no wheel: images/training/build.sh builds one", "torch": "pip install torch"}, TRAINING
    )
    runner = "practicus_runtime.horovod"
    rules = "horovod"

    def elastic_env(self) -> dict[str, Text]:
        """See :meth:`ElasticAdapter.elastic_env`."""
        return {**GLOO, "HOROVOD_ELASTIC": "1", Env.PREPARE: "practicus_runtime.horovod_elastic"}

    def env(self, spec: JobSpec) -> dict[str, Text]:
        """See :meth:`SpmdAdapter.env`."""
        if len({procs(part) for part in views(spec)}) > 1:
            way_out = "with Horovod all workers have as many ranks: give one procs_per_worker="
            raise SpecError("workers", list(spec.groups), way_out)
        # In a group the index is that of its own; the runner knows which worker it is, over the job.
        worker: dict[str, Text] = {"HOROVOD_CROSS_RANK": Here.INDEX, "HOROVOD_HOSTNAME": ("worker-", Here.INDEX)}
        return {
            **super().env(spec),
            "HOROVOD_SIZE": str(world_size(spec)),
            "HOROVOD_LOCAL_SIZE": str(procs(spec)),
            "HOROVOD_CROSS_SIZE": str(spec.min_workers),
            **({} if spec.groups else worker),
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": Host("worker"),
            "HOROVOD_GLOO_RENDEZVOUS_PORT": RENDEZVOUS,
            **GLOO,
        }
