"""Adapters turn a spec into roles. They are pure: no I/O, no Airflow, no backend.

An adapter is one class in one file, found by its name in :data:`BUILT_IN`, by an entry point in the group
``practicus_provider.adapters``, or by its dotted path.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.metadata import entry_points
from typing import ClassVar

from practicus_provider.archives import importable
from practicus_provider.errors import AdapterError, PracticusError, SpecError
from practicus_provider.plan import Framework, Here, Plan, Port, Role, Text, parts
from practicus_provider.runtime.practicus_runtime.contract import Env
from practicus_provider.spec import JobSpec

BUILT_IN = {
    "dask": "practicus_provider.adapters.dask.DaskAdapter",
    "deepspeed": "practicus_provider.adapters.deepspeed.DeepSpeedAdapter",
    "fairscale": "practicus_provider.adapters.fairscale.FairScaleAdapter",
    "horovod": "practicus_provider.adapters.horovod.HorovodAdapter",
    "spark": "practicus_provider.adapters.spark.SparkAdapter",
    "torch": "practicus_provider.adapters.torch.TorchAdapter",
}
ENTRY_POINT_GROUP = "practicus_provider.adapters"

DOCKERFILE = "Dockerfile of airflow-provider-practicus"
"""In a folder of ``images``, which is no part of what is installed."""
TRAINING = f"images/training/{DOCKERFILE}"

NO_RESULT: dict[str, Text] = {Env.RESULT_OF: "driver"}
"""Has ``set_result()`` refuse, where what it is given would be lost, and name the role that it is for."""

Program = tuple[Text, ...]
"""The user's application as a command with its arguments."""


class Adapter(ABC):
    """What a framework needs: subclass it, and its dotted path is an ``adapter=``.

    :cvar decides: name of the role whose end is the job's end.
    :cvar client: ``module:attribute.path`` that ``practicus_runtime.get_client()`` calls, if there is one.
    :cvar framework: what the replicas' Python has to have.
    :cvar links: label -> port of the web pages that the framework serves; on loopback is enough.
    :cvar apart: roles that load nothing of the user's, unless they decide.
    :cvar ranked: whether a worker may be several processes, as ``spec.procs_per_worker`` says.
    """

    decides: ClassVar[str] = "driver"
    client: ClassVar[str | None] = None
    framework: ClassVar[Framework | None] = None
    links: ClassVar[dict[str, Port]] = {}
    apart: ClassVar[frozenset[str]] = frozenset({"coordinator"})
    ranked: ClassVar[bool] = False

    def pod_roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """The roles where replicas are pods; override it if the framework makes its own there, as Spark does."""
        return self.roles(spec, program)

    def decider(self, spec: JobSpec) -> str:
        """Name of the role whose end is the job's end: :attr:`decides`, unless that depends on the spec."""
        return self.decides

    @abstractmethod
    def roles(self, spec: JobSpec, program: Program) -> tuple[Role, ...]:
        """The cluster's roles, the deciding one among them.

        :param program: starts the user's application; the deciding role runs it as (or inside) its command.
        :raises SpecError: something in ``spec`` that this framework cannot do.
        """


def load(name: str) -> Adapter:
    """The adapter of that name.

    :param name: of a built-in, of an entry point, or a dotted path ``package.module.Class``.
    :raises AdapterError: there is none, or it does not load.
    """
    # The entry points are those of all packages that are installed, which takes longer than a DAG file with ten jobs.
    target = BUILT_IN.get(name) or _targets().get(name, name)
    module, _, attribute = target.replace(":", ".").rpartition(".")
    if not module:
        known = sorted(_targets())
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise AdapterError("adapter", name, f"{hint}choose one of {', '.join(known)}, or give 'module.Class'")
    try:
        cls = getattr(import_module(module), attribute)
    except Exception as error:
        raise AdapterError("adapter", name, f"cannot load {target!r}: {type(error).__name__}: {error}") from error
    if not (isinstance(cls, type) and issubclass(cls, Adapter)):
        raise AdapterError("adapter", name, f"{target!r} is not a subclass of practicus_provider.adapters.Adapter")
    try:
        return cls()
    except TypeError as error:
        raise AdapterError("adapter", name, f"cannot make {target!r}: {error}") from error


def make_plan(
    spec: JobSpec,
    program: Program,
    files: dict[str, bytes] | None = None,
    *,
    executable: Collection[str] = (),
    pods: bool = False,
) -> Plan:
    """The plan that the spec's adapter makes.

    :param files: path below ``Here.APP`` -> content of what ``program`` runs.
    :param executable: those of ``files`` that may be run as programs.
    :param pods: whether the backend's replicas are pods, and the framework may make some itself.
    :raises AdapterError: the adapter is unknown, broken, or returned what is not a plan.
    :raises SpecError: the adapter refuses the spec.
    """
    adapter = load(spec.adapter)
    if spec.procs_per_worker is not None and not adapter.ranked:
        way_out = f"a worker of {spec.adapter} is one process: leave it out, and give more workers or more cpu"
        raise SpecError("procs_per_worker", spec.procs_per_worker, way_out)
    if spec.progress_timeout is not None and not adapter.ranked:
        way_out = f"{spec.adapter} has no ranks that could be heard: leave it out, and give timeout="
        raise SpecError("progress_timeout", spec.progress_timeout, way_out)
    if spec.groups and not adapter.ranked:
        way_out = f"the workers of {spec.adapter} are alike: give their number, and worker_resources="
        raise SpecError("workers", list(spec.groups), way_out)
    try:
        roles = adapter.pod_roles(spec, program) if pods else adapter.roles(spec, program)
    except PracticusError:
        raise
    except Exception as error:
        raise AdapterError("adapter", spec.adapter, f"its roles() failed: {type(error).__name__}: {error}") from error
    if not isinstance(roles, tuple):
        raise AdapterError("adapter", spec.adapter, f"its roles() returned {type(roles).__name__}, not a tuple of Role")
    _check_queue(spec, roles)
    plan = Plan(
        adapter=spec.adapter,
        roles=roles,
        decides=adapter.decider(spec),
        timeout=spec.timeout,
        files=files or {},
        client=adapter.client,
        framework=adapter.framework,
        links=adapter.links,
        pod=spec.pod,
        volumes=spec.volumes,
        checkpoints=spec.checkpoints,
        start_timeout=spec.start_timeout,
        grace=spec.grace,
        executable=frozenset(executable),
    )
    # With requirements= they are for pip, which may have to compile, or to choose among them.
    archives = [] if spec.requirements else importable(plan.files)
    plan = _beside(plan, program, archives)
    return _installing(plan, spec.requirements, adapter.apart) if spec.requirements else plan


def _beside(plan: Plan, program: Program, archives: Sequence[str]) -> Plan:
    """With the folder of the application's script on the search path of all replicas, as it is on that of the script:
    what that sends to others may need the modules beside it. So with the archives among the shipped files.
    """
    *before, script = parts(program[1]) if len(program) > 1 else ("",)
    folder = script.rpartition("/")[0] if type(script) is str else ""
    search: list[Text] = [(*before, folder)] if folder else []  # the shipped files' own folder is there anyway
    search += [(Here.APP, "/", name) for name in archives]
    if not search:
        return plan

    def found(role: Role) -> Role:
        theirs = role.launch.env.get("PYTHONPATH")
        path = tuple(part for text in (*search, *([theirs] if theirs else ())) for part in (":", *parts(text)))[1:]
        return replace(role, launch=replace(role.launch, env={**role.launch.env, "PYTHONPATH": path}))

    return replace(plan, roles=tuple(map(found, plan.roles)))


def _installing(plan: Plan, requirements: tuple[str, ...], apart: frozenset[str]) -> Plan:
    """With every replica installing them before it starts, where something of the user's is loaded."""
    install = (Here.PYTHON, "-m", "practicus_runtime.requirements", Here.APP, *requirements, "--")
    roles = tuple(
        replace(role, launch=replace(role.launch, command=(*install, *role.launch.command)))
        if role.name not in apart or plan.decisive(role)
        else role
        for role in plan.roles
    )
    return replace(plan, roles=roles)


def _check_queue(spec: JobSpec, roles: tuple[Role, ...]) -> None:
    """Refuse what Kueue would admit in part: it looks at one Job, which is one role of fixed size."""
    if spec.pod.queue_name is not None and (len(roles) > 1 or roles[0].elastic):
        parts = ", ".join(role.name for role in roles)
        way_out = (
            f"Kueue admits one Job, and a cluster of {spec.adapter} is more than that here ({parts}): a part of it "
            "could hold what the rest waits for. Leave it out; a fixed number of workers that have ranks, and are "
            "alike, is one Job"
        )
        raise SpecError("queue_name", spec.pod.queue_name, way_out)


def _targets() -> dict[str, str]:
    """Name -> dotted path; an entry point may add a name, never replace a built-in."""
    found = {point.name: point.value for point in entry_points(group=ENTRY_POINT_GROUP)}
    return found | BUILT_IN
