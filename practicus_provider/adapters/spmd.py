"""SPMD: workers that all run the application, each as one or more ranks that find each other (single program, multiple
data). What torch's, DeepSpeed's, FairScale's and Horovod's adapters, and a user's own, have in common.

Sources: torch's *Environment variable initialization* (https://docs.pytorch.org/docs/stable/distributed.html) and
*Environment Variables* of torchrun (https://docs.pytorch.org/docs/stable/elastic/run.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

from practicus_provider.adapters import Adapter, Program
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Port, Role, Text
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import JobSpec, Resources

RENDEZVOUS = Port("worker", "rendezvous", first=True)


class SpmdAdapter(Adapter):
    """One role, ``worker``, that decides: every replica starts its ranks, and all of them must end well. Where workers
    are several groups, the further ones are ``worker2`` and so on, parts of it.

    A script that reads what torchrun tells runs unchanged.

    :cvar runner: module of ``practicus_runtime`` that starts a replica's ranks.
    :cvar meets: whose function ranks wait in until the place is there where they meet, torch's or Horovod's; None: they
        wait before they start.
    """

    decides = "worker"
    ranked = True
    runner: ClassVar[str] = "practicus_runtime.ranks"
    meets: ClassVar[Literal["torch", "horovod"] | None] = None

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """``spec.workers`` replicas of :func:`procs` ranks each, group by group."""
        if spec.elastic:
            way_out = f"{spec.adapter} trains on a fixed number of workers: give a number"
            raise SpecError("workers", spec.workers, way_out)
        if not spec.groups:
            return (self._role(spec, program),)
        found, workers, ranks = [], 0, 0
        for number, (group, part) in enumerate(zip(spec.groups, views(spec), strict=True), start=1):
            role = self._role(part, program, {Env.WORKERS_BEFORE: str(workers), Env.RANKS_BEFORE: str(ranks)})
            role = replace(role, replicas=group.count, image=group.image, node_selector=group.node_selector)
            if number > 1:
                launch = replace(role.launch, ports={})
                role = replace(role, name=f"worker{number}", launch=launch, part_of="worker")
            found.append(role)
            workers, ranks = workers + group.count, ranks + group.count * procs(part)
        return tuple(found)

    def _role(self, spec: JobSpec, program: Program, place: Mapping[str, Text] | None = None) -> Role:
        python, *application = (*program, *self.arguments(spec))
        launch = Launch(
            command=(python, "-S", "-m", self.runner, *application),  # it needs no site-packages: a third of its start
            env={"OMP_NUM_THREADS": threads(spec), **spec.env, **self.env(spec), **_hangs(spec), **(place or {})},
            files=self.files(spec),
            ports={"rendezvous": 29500, **({} if spec.progress_timeout is None else {"hangs": 29501})},
        )
        return Role("worker", launch, spec.min_workers, shared_memory(spec.worker_resources))

    def env(self, spec: JobSpec) -> dict[str, Text]:
        """What the ranks of a replica are told, beside ``RANK`` and ``LOCAL_RANK``."""
        return {
            "MASTER_ADDR": Host("worker"),
            "MASTER_PORT": RENDEZVOUS,
            "WORLD_SIZE": str(world_size(spec)),
            "LOCAL_WORLD_SIZE": str(procs(spec)),
            "GROUP_RANK": Here.INDEX,
            "GROUP_WORLD_SIZE": str(spec.min_workers),
            **({Env.MEETS: self.meets} if self.meets else {}),
        }

    def arguments(self, spec: JobSpec) -> Program:
        """What follows the user's own arguments."""
        return ()

    def files(self, spec: JobSpec) -> dict[str, Text]:
        """What the adapter generates; here nothing, so that ``conf`` has no meaning.

        :raises SpecError: ``conf`` has what this framework does not know.
        """
        if spec.settings:
            raise SpecError("conf", spec.conf, f"{spec.adapter} has no settings: give env=, or application_args=")
        return {}


def views(spec: JobSpec) -> tuple[JobSpec, ...]:
    """A spec as each of its groups has it: the resources and the ranks of one of that group's workers. The whole is
    ``workers`` in each of them."""
    parts = []
    for group in spec.groups:
        ranks = group.procs_per_worker or spec.procs_per_worker
        part = replace(spec, worker_resources=group.resources or spec.worker_resources, procs_per_worker=ranks)
        parts.append(replace(part, procs_per_worker=procs(part)))
    whole = tuple(
        replace(group, resources=part.worker_resources, procs_per_worker=part.procs_per_worker)
        for group, part in zip(spec.groups, parts, strict=True)
    )
    return tuple(replace(part, workers=whole) for part in parts)


def procs(spec: JobSpec) -> int:
    """Ranks of a replica: as many as it has GPUs, else 1, if the spec does not say.

    :raises SpecError: more than it has GPUs.
    """
    gpus = spec.worker_resources.gpu
    if spec.procs_per_worker is not None and 0 < gpus < spec.procs_per_worker:
        way_out = f"a worker has {gpus} GPU{'s' if gpus > 1 else ''}: give each process one, or leave it out"
        raise SpecError("procs_per_worker", spec.procs_per_worker, way_out)
    return spec.procs_per_worker or gpus or 1


def threads(spec: JobSpec) -> str:
    """Threads of a rank, so that those of a replica use its cores once."""
    return str(max(1, spec.worker_resources.cores // procs(spec)))


def world_size(spec: JobSpec) -> int:
    """Ranks of the job."""
    if spec.groups:
        return sum(group.count * procs(part) for group, part in zip(spec.groups, views(spec), strict=True))
    return spec.min_workers * procs(spec)


def _hangs(spec: JobSpec) -> dict[str, Text]:
    """What ``practicus_runtime.hangs`` reads."""
    if spec.progress_timeout is None:
        return {}
    return {
        Env.PROGRESS_TIMEOUT: str(spec.progress_timeout),
        Env.KEY: Here.KEY,
        Env.HANGS_ADDR: Host("worker"),
        Env.HANGS_PORT: Port("worker", "hangs", first=True),
    }


def shared_memory(resources: Resources) -> Resources:
    """With half of the memory for ``/dev/shm`` where it is not said: what ranks and data loaders exchange goes there,
    and a container's 64 MiB do not do."""
    if resources.shm is not None:
        return resources
    return replace(resources, shm=f"{resources.memory_bytes // 2 >> 20}Mi")
