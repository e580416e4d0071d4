"""Trainings whose workers may change while they run: what torch's and Horovod's adapters have in common, and a user's
own of either may have.

Sources: *Torch Distributed Elastic* (https://docs.pytorch.org/docs/stable/distributed.elastic.html), whose names the
settings have, and *Elastic Horovod* (https://horovod.readthedocs.io/en/stable/elastic_include.html).
"""

from __future__ import annotations

import json
from math import inf
from typing import Any, ClassVar, Literal

from practicus_provider.adapters import Program
from practicus_provider.adapters.spmd import SpmdAdapter, procs, shared_memory, threads
from practicus_provider.errors import SpecError
from practicus_provider.plan import Here, Host, Launch, Port, Role, Text
from practicus_provider.runtime.practicus_runtime.contract import Env, Limits
from practicus_provider.spec import Elastic, JobSpec

COORDINATOR = Port("coordinator", "rendezvous")
STORE = Port("coordinator", "store")
SETTINGS: dict[str, float] = Limits._field_defaults
"""Keys of an elastic job's ``conf``, and their defaults."""


class ElasticAdapter(SpmdAdapter):
    """SPMD where ``workers=Elastic(min, max)`` works, too. A coordinator then decides: workers join there, are told
    their ranks, and it has the backend replace those that are lost.

    :cvar rules: whose rules hold at a change: torch's ranks start anew, Horovod's go on.
    """

    rules: ClassVar[Literal["torch", "horovod"]]

    def decider(self, spec: JobSpec) -> str:
        """See :meth:`Adapter.decider`."""
        return "coordinator" if spec.elastic else self.decides

    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """``spec.workers`` workers of :func:`procs` ranks each, and, if they may change, the coordinator."""
        if spec.elastic is None:
            return super().roles(spec, program)
        if spec.progress_timeout is not None:
            way_out = "workers that come and go are not watched for hangs: leave it out, and give timeout="
            raise SpecError("progress_timeout", spec.progress_timeout, way_out)
        return (
            Role("coordinator", self._coordinator(spec, spec.elastic), resources=spec.coordinator_resources),
            Role(
                "worker",
                self._worker(spec, program),
                spec.elastic.min,
                shared_memory(spec.worker_resources),
                spec.elastic,
            ),
        )

    def elastic_env(self) -> dict[str, Text]:
        """What an elastic job's ranks are told, beside what they are in each round."""
        return {}

    def _coordinator(self, spec: JobSpec, bounds: Elastic) -> Launch:
        limits = Limits(bounds.min, bounds.max)._replace(**settings(spec))
        return Launch(
            command=(Here.PYTHON, "-m", "practicus_runtime.elastic", self.rules, Here.HOST, COORDINATOR, STORE),
            env={Env.KEY: Here.KEY, Env.ELASTIC: json.dumps(limits.to_json())},
            ports={"rendezvous": 29500, "store": 29501},
            ready="rendezvous",
            spawns="worker",
        )

    def _worker(self, spec: JobSpec, program: Program) -> Launch:
        python, *application = program
        return Launch(
            command=(python, "-m", "practicus_runtime.member", self.rules, *application),
            env={
                "OMP_NUM_THREADS": threads(spec),
                **spec.env,
                "LOCAL_WORLD_SIZE": str(procs(spec)),
                "MASTER_PORT": Port("worker", "rendezvous"),
                Env.KEY: Here.KEY,
                Env.COORDINATOR: (Host("coordinator"), ":", COORDINATOR),
                Env.STORE: (Host("coordinator"), ":", STORE),
                **self.elastic_env(),
            },
            ports={"rendezvous": 29500},
            after=(COORDINATOR,),
        )


def settings(spec: JobSpec) -> dict[str, Any]:
    """What ``conf`` says, over :data:`SETTINGS`.

    :raises SpecError: there is no such setting, or it is not such a number.
    """
    for name, value in spec.settings.items():
        if name not in SETTINGS:
            raise SpecError("conf", {name: value}, f"an elastic job has these settings: {', '.join(SETTINGS)}")
        whole = name == "max_restarts"
        if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not 0 <= value < inf:
            kind = "whole number" if whole else "number of seconds"
            raise SpecError(f"conf[{name!r}]", value, f"give a {kind} of at least 0")
    return {**SETTINGS, **spec.settings}
