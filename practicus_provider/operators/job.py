"""The one operator under all frameworks: one task, one cluster, one job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.definitions.xcom_arg import XComArg

from practicus_provider import compat
from practicus_provider.operators.arguments import ClusterArguments, check_early, job_spec, shipment_of
from practicus_provider.operators.base import task_facts, task_key
from practicus_provider.spec import Function, JobSpec, StreamLogs, Teardown

if TYPE_CHECKING:
    from airflow.sdk import Context

    from practicus_provider.backends.base import Backend, Handle
    from practicus_provider.lifecycle import Outcome, Policy
    from practicus_provider.plan import Plan
    from practicus_provider.status import Verdict


class PracticusRunJobOperator(ClusterArguments):
    """Runs an application on a temporary cluster of its own: created, watched, removed.

    Arguments that are wrong fail when the DAG is parsed, as far as they are known then. It takes those of
    :class:`~practicus_provider.operators.arguments.ClusterArguments`, and these:

    :param application: a Python file, or a folder with a ``__main__.py`` or ``main.py``, which travels with the job: a
        relative path starts at the folder of the DAG's file, whatever module makes the DAG, and in the zip that this is
        in; ``local:///path`` that is there where the job runs; or an http(s) URL. (templated)
    :param application_args: list of strings; numbers and booleans become strings. (templated)
    :param files: further files and folders that travel with it. (templated)
    :param procs_per_worker: ranks of one worker, for frameworks that have ranks; None: as many as it has GPUs, else 1.
    :param conf: may also be the path of a JSON file beside the DAG; DeepSpeed's also a ``local:///path`` that is there
        where the job runs. (templated)
    :param queue_name: a LocalQueue of Kueue's, which then decides when the job starts, for workers that have ranks, are
        alike and of a fixed number, on Kubernetes. Airflow's own ``queue`` is of tasks. (templated)
    :param checkpoint_dir: folder on one of them, in which each task instance has its own for what it saves, whatever
        its try; None: ``checkpoints`` on the first that keeps what is written.
    :param progress_timeout: how long all ranks may neither write anything nor report progress, likewise, for frameworks
        that have ranks; then the job fails, and its log says where each rank was. None: for ever.
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
        "files",
        *ClusterArguments.template_fields,
        "queue_name",
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
        application: str | Function | XComArg,
        application_args: Sequence[str] | XComArg = (),
        files: Sequence[str] | XComArg = (),
        procs_per_worker: int | None = None,
        queue_name: str | None = None,
        checkpoint_dir: str | None = None,
        progress_timeout: float | timedelta | None = None,
        preemption_retries: int = 0,
        oom_memory_factor: float | None = None,
        teardown: Teardown = "always",
        stream_logs: StreamLogs = "coordinator",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.application = application
        self.application_args = application_args
        self.files = files
        self.procs_per_worker = procs_per_worker
        self.queue_name = queue_name
        self.checkpoint_dir = checkpoint_dir
        self.progress_timeout = progress_timeout
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


def _memory_factors(context: Context) -> dict[str, float]:
    """Field of the spec -> by how much it has grown over the tries so far."""
    stored: Any = context["task_state_store"].get(MEMORY_FACTORS)
    return dict(stored or {})


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
