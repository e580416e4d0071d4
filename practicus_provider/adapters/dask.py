"""Dask: a scheduler, workers, and a driver that runs the application.

Sources: Dask's ``dask scheduler`` and ``dask worker`` command lines, and its configuration by environment
(https://docs.dask.org/en/stable/configuration.html#environment-variables).
"""

from __future__ import annotations

from practicus_provider.adapters import Adapter, Program
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Part, Port, Role
from practicus_provider.spec import JobSpec

SCHEDULER = Port("coordinator", "scheduler")
DASHBOARD = Port("coordinator", "dashboard")
ADDRESS: tuple[Part, ...] = ("tcp://", Host("coordinator"), ":", SCHEDULER)


class DaskAdapter(Adapter):
    """Dask's distributed scheduler; ``Client()`` without arguments finds it."""

    client = "distributed:Client"
    links = {"Dask dashboard": DASHBOARD}

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """Coordinator (the scheduler), ``spec.workers`` workers, and the driver."""
        config = {_env_name(key): repr(value) for key, value in spec.conf.items()}
        preload: Program = ()
        if spec.elastic:
            preload = ("--preload", "practicus_runtime.dask_elastic")
            config["PRACTICUS_ELASTIC"] = f"{spec.elastic.min},{spec.elastic.max}"
        coordinator = Launch(
            command=(Here.PYTHON, "-m", "distributed.cli.dask_scheduler", "--host", Here.HOST, "--port", SCHEDULER)
            + ("--dashboard-address", (Here.HOST, ":", DASHBOARD), *preload),
            env=config,
            ports={"scheduler": 8786, "dashboard": 8787},
            ready="scheduler",
        )
        worker = Launch(
            command=(Here.PYTHON, "-m", "distributed.cli.dask_worker", ADDRESS, "--host", Here.HOST)
            + ("--name", ("worker-", Here.INDEX), "--nthreads", str(spec.worker_resources.cores))
            + ("--memory-limit", str(spec.worker_resources.memory_bytes), "--local-directory", Here.SCRATCH)
            + ("--no-nanny", "--no-dashboard"),
            env={**spec.env, **config},
        )
        driver = Launch(command=program, env={**spec.env, **config} | {"DASK_SCHEDULER_ADDRESS": ADDRESS})
        return (
            Role("coordinator", coordinator, resources=spec.coordinator_resources),
            Role("worker", worker, spec.min_workers, spec.worker_resources, spec.elastic),
            Role("driver", driver, resources=spec.coordinator_resources),
        )


def _env_name(key: str) -> str:
    """``distributed.worker.memory.target`` as the environment variable that Dask reads it from."""
    if not all(word.replace("-", "_").isidentifier() for word in key.split(".")):
        raise SpecError("conf", key, "give a dotted Dask key such as 'distributed.worker.memory.target'")
    return "DASK_" + key.replace(".", "__").replace("-", "_").upper()
