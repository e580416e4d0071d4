"""The one operator under all frameworks: one task, one cluster, one job."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.definitions.xcom_arg import XComArg

from practicus_provider import compat
from practicus_provider.errors import SpecError
from practicus_provider.operators.base import ClusterOperator, seconds, task_facts, task_key
from practicus_provider.spec import Elastic, Function, JobSpec, Resources, StreamLogs, Teardown, Volume, WorkerGroup

if TYPE_CHECKING:
    from airflow.sdk import Context

    from practicus_provider.application import Shipment
    from practicus_provider.backends.base import Backend, Handle
    from practicus_provider.lifecycle import Outcome, Policy
    from practicus_provider.plan import Plan
    from practicus_provider.status import Verdict


class PracticusRunJobOperator(ClusterOperator):
    """Runs an application on a temporary cluster of its own: created, watched, removed.

    Arguments that are wrong fail when the DAG is parsed, as far as they are known then.

    :param adapter: ``"spark"``, ``"dask"``, ``"torch"``, ``"deepspeed"``, ``"fairscale"``, ``"horovod"``, the name of
        an entry point in the group ``practicus_provider.adapters``, or the dotted path of a class of yours.
    :param application: a Python file, or a folder with a ``__main__.py`` or ``main.py``, which travels with the job: a
        relative path starts at the folder of the DAG's file, whatever module makes the DAG, and in the zip that this is
        in; ``local:///path`` that is there where the job runs; or an http(s) URL. (templated)
    :param application_args: list of strings; numbers and booleans become strings. (templated)
    :param env: environment variables of the application and of the workers, whose values are such strings. (templated)
    :param files: further files and folders that travel with it. (templated)
    :param requirements: packages that each replica but a coordinator installs by pip before it starts, as PEP 508 has
        them, such as ``"polars>=1"``.
    :param workers: their number; ``Elastic(min, max)`` to follow the job's demand; or, for frameworks that have ranks,
        a list of :class:`~practicus_provider.spec.WorkerGroup`, whose ranks follow each other. (templated)
    :param worker_resources: of one worker.
    :param coordinator_resources: of the coordinator, and of the driver where that is a process of its own.
    :param procs_per_worker: ranks of one worker, for frameworks that have ranks; None: as many as it has GPUs, else 1.
    :param conf: the framework's own settings, or the path of a JSON file of them beside the DAG; DeepSpeed's may also
        be at a ``local:///path`` that is there where the job runs. (templated)
    :param image: of the containers, on Kubernetes; None: the connection's. (templated)
    :param secrets: environment variable -> ``"secret-name/key"``, a Kubernetes secret by reference.
    :param egress: CIDRs that replicas may reach beside each other, on Kubernetes; by default none.
    :param pod_overrides: part of a pod template (``metadata``, ``spec``) that is merged into every pod by Kubernetes'
        strategic-merge rules; the container's name is ``main``. (templated)
    :param queue_name: a LocalQueue of Kueue's, which then decides when the job starts, for workers that have ranks, are
        alike and of a fixed number, on Kubernetes. Airflow's own ``queue`` is of tasks. (templated)
    :param scheduler_name: who places the pods, on Kubernetes (``schedulerName``). (templated)
    :param priority_class: of the pods, on Kubernetes (``priorityClassName``). (templated)
    :param volumes: list of :class:`~practicus_provider.spec.Volume`, which every replica finds at their paths.
    :param checkpoint_dir: folder on one of them, in which each task instance has its own for what it saves, whatever
        its try; None: ``checkpoints`` on the first that keeps what is written.
    :param timeout: the cluster's whole life, in seconds or as a timedelta; the backend enforces it.
    :param start_timeout: until all replicas that must run do, likewise.
    :param progress_timeout: how long all ranks may neither write anything nor report progress, likewise, for frameworks
        that have ranks; then the job fails, and its log says where each rank was. None: for ever.
    :param grace: how long a replica has between SIGTERM and SIGKILL, likewise, as to save a checkpoint; the pods' own
        ``terminationGracePeriodSeconds`` is 2 s more, and one in ``pod_overrides`` comes before this. None: 8 s on
        Kubernetes, 3 s on the local backend.
    :param preemption_retries: how often the job starts anew, from its checkpoint, after it was evicted, preempted or
        lost with its node: apart from Airflow's ``retries``, and without a try of the task's.
    :param oom_memory_factor: by how much more memory the replicas have at the next of Airflow's ``retries``, where one
        like them was killed for want of it (``OOMKilled``); None: as much.
    :param teardown: ``"always"``, ``"on_success"`` or ``"never"``; what stays is removed an hour later.
    :param stream_logs: whose output becomes the task's log: ``"coordinator"`` (where the application runs), ``"all"``,
        or ``"none"``.
    :raises SpecError: naming the argument, its value, and the way out.
    """

    template_fields: Sequence[str] = (
        "application",
        "application_args",
        "env",
        "files",
        "workers",
        "conf",
        "image",
        "namespace",
        "pod_overrides",
        "queue_name",
        "scheduler_name",
        "priority_class",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        "application_args": "json",
        "env": "json",
        "conf": "json",
        "pod_overrides": "json",
    }

    def __init__(
        self,
        *,
        adapter: str,
        application: str | Function | XComArg,
        application_args: Sequence[str] | XComArg = (),
        env: Mapping[str, str] | XComArg | None = None,
        files: Sequence[str] | XComArg = (),
        requirements: Sequence[str] = (),
        workers: int | str | Elastic | Sequence[WorkerGroup] | XComArg = 1,
        worker_resources: Resources = Resources(),
        coordinator_resources: Resources = Resources(),
        procs_per_worker: int | None = None,
        conf: Mapping[str, Any] | str | XComArg | None = None,
        image: str | None = None,
        secrets: Mapping[str, str] | None = None,
        egress: Sequence[str] = (),
        pod_overrides: Mapping[str, Any] | XComArg | None = None,
        queue_name: str | None = None,
        scheduler_name: str | None = None,
        priority_class: str | None = None,
        volumes: Sequence[Volume] = (),
        checkpoint_dir: str | None = None,
        timeout: float | timedelta = timedelta(days=1),
        start_timeout: float | timedelta = timedelta(minutes=10),
        progress_timeout: float | timedelta | None = None,
        grace: float | timedelta | None = None,
        preemption_retries: int = 0,
        oom_memory_factor: float | None = None,
        teardown: Teardown = "always",
        stream_logs: StreamLogs = "coordinator",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.adapter = adapter
        self.application = application
        self.application_args = application_args
        self.env = env or {}
        self.files = files
        self.requirements = requirements
        self.workers = workers
        self.worker_resources = worker_resources
        self.coordinator_resources = coordinator_resources
        self.procs_per_worker = procs_per_worker
        self.conf = conf or {}
        self.image = image
        self.secrets = secrets or {}
        self.egress = egress
        self.pod_overrides = pod_overrides or {}
        self.queue_name = queue_name
        self.scheduler_name = scheduler_name
        self.priority_class = priority_class
        self.volumes = volumes
        self.checkpoint_dir = checkpoint_dir
        self.timeout = timeout
        self.start_timeout = start_timeout
        self.progress_timeout = progress_timeout
        self.grace = grace
        self.preemption_retries = preemption_retries
        self.oom_memory_factor = oom_memory_factor
        self.teardown = teardown
        self.stream_logs = stream_logs
        if oom_memory_factor is not None and not compat.HAS_TASK_STATE:
            compat.refuse("oom_memory_factor", oom_memory_factor)
        check_early(self)

    def spec(self) -> JobSpec:
        """What the arguments ask for.

        :raises SpecError: naming the first that is wrong.
        """
        return job_spec(self)

    async def launch(self, backend: Backend, context: Context) -> tuple[Handle, Policy]:
        """See :meth:`ClusterOperator.launch`."""
        from practicus_provider.lifecycle import Policy

        spec, lease = with_lineage(self.spec(), context), self.lease(context)
        if spec.oom_memory_factor:
            spec = spec.with_memory(_memory_factors(context))
        plan = self._plan(spec, backend)
        name, facts = task_key(context).cluster_name(), self._facts(context)
        handle = await backend.create(name, plan, task=facts, lease=lease)
        return handle, Policy.of(spec, plan, lease=lease, attempt=self._attempt)

    def preview(self, backend: Backend, context: Context) -> Any:
        """See :meth:`ClusterOperator.preview`."""
        name, lease = task_key(context).cluster_name(), self.lease(context)
        return backend.preview(name, self._plan(self.spec(), backend), task=self._facts(context), lease=lease)

    def _facts(self, context: Context) -> dict[str, Any]:
        return {**task_facts(context), "attempt": self._attempt}

    def finishes_as_any(self) -> bool:
        """See :meth:`ClusterOperator.finishes_as_any`."""
        return type(self).finish is PracticusRunJobOperator.finish and self.oom_memory_factor is None

    def finish(self, outcome: Outcome, context: Context) -> Any:
        """See :meth:`ClusterOperator.finish`; the next try is told of what memory was too little."""
        from practicus_provider.status import Reason

        verdict = outcome.verdict
        if self.oom_memory_factor and verdict.reason is Reason.OOM_KILLED:
            self._grow(verdict, context)
        return super().finish(outcome, context)

    def _grow(self, verdict: Verdict, context: Context) -> None:
        grown = verdict.argument
        if grown is None:
            told = "the next try has as much memory: adapter %r, and no argument of the operator, says how much %s has"
            self.log.warning(told, self.adapter, verdict.replica)
            return
        factors = _memory_factors(context)
        factors[grown] = factors.get(grown, 1) * (self.oom_memory_factor or 1)
        context["task_state_store"].set(MEMORY_FACTORS, {**factors})
        self.log.info("the next try has %g times the memory of %s", factors[grown], grown)

    def _plan(self, spec: JobSpec, backend: Backend) -> Plan:
        from practicus_provider import adapters

        shipment = shipment_of(self, spec)
        return adapters.make_plan(
            spec, shipment.program, shipment.files, executable=shipment.executable, pods=backend.pods
        )


MEMORY_FACTORS = "practicus_memory_factors"
"""Key in the task instance's state store, which outlives its tries: field of the spec -> by how much it has grown."""
SPEC_FIELDS = tuple(JobSpec.__dataclass_fields__)


def _memory_factors(context: Context) -> dict[str, float]:
    """Field of the spec -> by how much it has grown over the tries so far."""
    stored: Any = context["task_state_store"].get(MEMORY_FACTORS)
    return dict(stored or {})


def job_spec(operator: Any, **known: Any) -> JobSpec:
    """The spec in an operator's attributes of the same names; ``known`` ones come first."""
    from practicus_provider.application import read_settings

    values = {name: getattr(operator, name) for name in SPEC_FIELDS if hasattr(operator, name)} | known
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
    return JobSpec(**values)


def _text(value: Any) -> Any:
    """A number or a boolean as a command line has it; anything else stays."""
    return str(value) if isinstance(value, bool | int | float) else value


def with_lineage(spec: JobSpec, context: Context) -> JobSpec:
    """Spark's own events of lineage are told of the task, where Airflow's settings of OpenLineage ask for it."""
    parent, transport = (
        compat.conf.getboolean("openlineage", f"spark_inject_{what}_info", fallback=False)
        for what in ("parent_job", "transport")
    )
    if spec.adapter != "spark" or not (parent or transport):
        return spec
    from airflow.providers.common.compat.openlineage.utils import spark

    settings = dict(spec.settings)
    if parent:
        settings = spark.inject_parent_job_information_into_spark_properties(settings, context)
    if transport:
        settings = spark.inject_transport_information_into_spark_properties(settings, context)
    return replace(spec, conf=settings)


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

    unknown = {name for name in SPEC_FIELDS if _later(getattr(operator, name, None))}
    if isinstance(operator.conf, str) and not operator.has_dag():
        unknown.add("conf")
    stand_in: dict[str, Any] = {
        "application": None,
        "application_args": (),
        "env": {},
        "files": (),
        "workers": 1,
        "conf": {},
        "image": None,
        "pod_overrides": {},
        "queue_name": None,
        "scheduler_name": None,
        "priority_class": None,
    }
    for name in sorted(unknown - stand_in.keys()):
        raise SpecError(name, getattr(operator, name), "this argument is not templated: give the value itself")
    if "application" not in unknown and getattr(operator, "application", "") is None:
        raise SpecError("application", None, "give a path, a local:///path or a URL")
    spec = job_spec(operator, **{name: stand_in[name] for name in unknown} | known)
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
