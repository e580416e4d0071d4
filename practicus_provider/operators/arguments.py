"""The arguments that operators share, and the spec that is made of them, as the DAG is parsed and as the task runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.definitions.xcom_arg import XComArg

from practicus_provider.errors import SpecError
from practicus_provider.operators.base import ClusterOperator, seconds
from practicus_provider.pod_settings import PodSettings
from practicus_provider.spec import Elastic, JobSpec, Resources, Volume, WorkerGroup

if TYPE_CHECKING:
    from practicus_provider.application import Shipment


class PodArguments(ClusterOperator):
    """Whatever starts pods takes these arguments.

    :param env: environment variables of the application and of the workers, whose values are strings; numbers and
        booleans become strings. (templated)
    :param requirements: packages that each replica but a coordinator installs by pip before it starts, as PEP 508 has
        them, such as ``"polars>=1"``.
    :param conf: the framework's own settings. (templated)
    :param image: of the containers, on Kubernetes; None: the connection's. (templated)
    :param image_pull_policy: when a node pulls it: ``"Always"``, ``"IfNotPresent"`` or ``"Never"``; None: Kubernetes'
        default, by the image's tag. (templated)
    :param run_as_uid: number of the user that the containers run as, on Kubernetes, where the image's own is root or
        has only a name; None: the image's.
    :param secrets: environment variable -> ``"secret-name/key"``, a Kubernetes secret by reference.
    :param egress: CIDRs that replicas may reach beside each other, on Kubernetes; by default none.
    :param pod_overrides: part of a pod template (``metadata``, ``spec``) that is merged into every pod by Kubernetes'
        strategic-merge rules; the container's name is ``main``. (templated)
    :param scheduler_name: who places the pods, on Kubernetes (``schedulerName``). (templated)
    :param priority_class: of the pods, on Kubernetes (``priorityClassName``). (templated)
    :param volumes: list of :class:`~practicus_provider.spec.Volume`, which every replica finds at their paths.
    :param timeout: the whole life of what is started, in seconds or as a timedelta; the backend enforces it.
    :param start_timeout: until all replicas that must run do, likewise.
    :param grace: how long a replica has between SIGTERM and SIGKILL, likewise, as to save a checkpoint; the pods' own
        ``terminationGracePeriodSeconds`` is 2 s more, and one in ``pod_overrides`` comes before this. None: 8 s on
        Kubernetes, 3 s on the local backend.
    """

    template_fields: Sequence[str] = (
        "env",
        "conf",
        "namespace",
        "image",
        "image_pull_policy",
        "pod_overrides",
        "scheduler_name",
        "priority_class",
    )

    def __init__(
        self,
        *,
        env: Mapping[str, str] | XComArg | None = None,
        requirements: Sequence[str] = (),
        conf: Mapping[str, Any] | str | XComArg | None = None,
        image: str | None = None,
        image_pull_policy: str | None = None,
        run_as_uid: int | None = None,
        secrets: Mapping[str, str] | None = None,
        egress: Sequence[str] = (),
        pod_overrides: Mapping[str, Any] | XComArg | None = None,
        scheduler_name: str | None = None,
        priority_class: str | None = None,
        volumes: Sequence[Volume] = (),
        timeout: float | timedelta = timedelta(days=1),
        start_timeout: float | timedelta = timedelta(minutes=10),
        grace: float | timedelta | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.env = env or {}
        self.requirements = requirements
        self.conf: Any = conf or {}
        self.image = image
        self.image_pull_policy = image_pull_policy
        self.run_as_uid = run_as_uid
        self.secrets = secrets or {}
        self.egress = egress
        self.pod_overrides = pod_overrides or {}
        self.scheduler_name = scheduler_name
        self.priority_class = priority_class
        self.volumes = volumes
        self.timeout = timeout
        self.start_timeout = start_timeout
        self.grace = grace


class ClusterArguments(PodArguments):
    """Whatever makes a cluster takes these, too.

    :param adapter: ``"spark"``, ``"dask"``, ``"torch"``, ``"deepspeed"``, ``"fairscale"``, ``"horovod"``, the name of
        an entry point in the group ``practicus_provider.adapters``, or the dotted path of a class of yours.
    :param workers: their number; ``Elastic(min, max)`` to follow the job's demand; or, for frameworks that have ranks,
        a list of :class:`~practicus_provider.spec.WorkerGroup`, whose ranks follow each other. (templated)
    :param worker_resources: of one worker.
    :param coordinator_resources: of the coordinator, and of the driver where that is a process of its own.
    """

    template_fields: Sequence[str] = (*PodArguments.template_fields, "workers")

    def __init__(
        self,
        *,
        adapter: str,
        workers: int | str | Elastic | Sequence[WorkerGroup] | XComArg = 1,
        worker_resources: Resources = Resources(),
        coordinator_resources: Resources = Resources(),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.adapter = adapter
        self.workers = workers
        self.worker_resources = worker_resources
        self.coordinator_resources = coordinator_resources


def _default(argument: Field[Any]) -> Any:
    if argument.default_factory is not MISSING:
        return argument.default_factory()
    return None if argument.default is MISSING else argument.default


DEFAULTS = {
    argument.name: _default(argument) for argument in (*fields(JobSpec), *fields(PodSettings)) if argument.name != "pod"
}
"""Argument -> what stands for a value that is known only when the task runs, as the DAG is parsed."""


def job_spec(operator: Any, **known: Any) -> JobSpec:
    """The spec in an operator's attributes of the same names; ``known`` ones come first."""
    from practicus_provider.application import read_settings

    values = {name: getattr(operator, name) for name in DEFAULTS if hasattr(operator, name)} | known
    for name in ("timeout", "start_timeout", "progress_timeout", "grace"):
        if values.get(name) is not None:
            values[name] = seconds(values[name])
    for name in ("application_args", "files", "requirements", "egress", "volumes", "workers"):
        if isinstance(values.get(name), list):
            values[name] = tuple(values[name])
    # What a template makes of a number is one, where a DAG has render_template_as_native_obj.
    if isinstance(values.get("application_args"), tuple):
        values["application_args"] = tuple(map(_text, values["application_args"]))
    if isinstance(values.get("env"), Mapping):
        values["env"] = {name: _text(value) for name, value in values["env"].items()}
    workers = values.get("workers")
    if isinstance(workers, str) and workers.strip().isdecimal():
        values["workers"] = int(workers)
    if isinstance(values.get("conf"), str) and not values["conf"].startswith("local://"):
        values["conf"] = read_settings("conf", values["conf"], dag_folder(operator))
    return JobSpec.of(**values)


def _text(value: Any) -> Any:
    """A number or a boolean as a command line has it; anything else stays."""
    return str(value) if isinstance(value, bool | int | float) else value


def shipment_of(operator: Any, spec: JobSpec) -> Shipment:
    """The application that a spec names, read from beside the operator's DAG."""
    from practicus_provider.application import ship

    if spec.application is None:
        raise SpecError("application", None, "give a path, a local:///path or a URL")
    return ship(spec.application, spec.application_args, spec.files, dag_folder(operator))


def dag_folder(operator: Any) -> Path:
    """Where the DAG's file lies, whatever module makes the DAG: where an application's relative path starts."""
    return Path(_parsed_file() or operator.dag.fileloc).parent if operator.has_dag() else Path.cwd()


def _parsed_file() -> str | None:
    """The DAG's file that Airflow parses now; None: it parses none.

    Until it has, ``fileloc`` is the module's that calls ``DAG()``, which may be a factory's in another folder. Then it
    is the DAG file's (``airflow.dag_processing.importers.python_importer``, ``_process_modules``).
    """
    from airflow.sdk.definitions._internal.contextmanager import DagContext

    module = sys.modules.get(DagContext.current_autoregister_module_name or "")
    return getattr(module, "__file__", None)


def check_early(operator: Any, **known: Any) -> None:
    """Refuse at parse what is wrong already; what a template or an XCom will fill in is left out.

    :raises SpecError: naming the argument.
    """
    from practicus_provider import adapters
    from practicus_provider.application import locate, ship

    unknown = {name for name in DEFAULTS if _later(getattr(operator, name, None))}
    for name in sorted(unknown.difference(operator.template_fields)):
        raise SpecError(name, getattr(operator, name), "this argument is not templated: give the value itself")
    if isinstance(operator.conf, str) and not operator.has_dag():
        unknown.add("conf")
    if "application" not in unknown and getattr(operator, "application", "") is None:
        raise SpecError("application", None, "give a path, a local:///path or a URL")
    spec = job_spec(operator, **{name: DEFAULTS[name] for name in unknown} | known)
    if hasattr(operator, "adapter"):  # else it is the shared cluster's, known when the task runs
        plan = adapters.make_plan(spec, ("application",))
        if hasattr(operator, "application"):
            adapters.make_plan(spec, ("application",), pods=True)
        else:
            plan.serving()
    if not operator.has_dag():
        return
    if spec.application is not None:
        ship(spec.application, (), (), dag_folder(operator))
    for name in spec.files:
        locate("files", name, dag_folder(operator))


def _later(value: Any) -> bool:
    """Whether a value is known only when the task runs."""
    match value:
        case XComArg():
            return True
        case str():
            return "{{" in value or "{%" in value
        case Mapping():
            return any(_later(item) for item in value.values())
        case list() | tuple():
            return any(map(_later, value))
    return False
