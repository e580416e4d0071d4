"""A cluster that several tasks share: create it, submit jobs to it, delete it.

They are Airflow's setup and teardown, which :func:`practicus_cluster` makes of them::

    with practicus_cluster("flights", adapter="dask", workers=4) as cluster:
        PracticusSubmitJobOperator(task_id="job", cluster=cluster, application="job.py")
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator, TaskGroup
from airflow.sdk.definitions.xcom_arg import XComArg

from practicus_provider.errors import SpecError
from practicus_provider.hooks.practicus import PracticusHook
from practicus_provider.operators.arguments import ClusterArguments, PodArguments, check_early, job_spec, shipment_of
from practicus_provider.operators.base import ClusterOperator, task_facts, task_key
from practicus_provider.operators.job import with_lineage
from practicus_provider.pod_settings import SHARED
from practicus_provider.spec import Elastic, JobSpec, Resources, StreamLogs
from practicus_provider.tasklog import NoFramesOfOurs

if TYPE_CHECKING:
    from airflow.sdk import Context

    from practicus_provider.backends.base import Backend, Handle
    from practicus_provider.lifecycle import Outcome, Policy
    from practicus_provider.plan import Plan


class PracticusCreateClusterOperator(ClusterArguments):
    """Creates a cluster and waits until it runs. Its XCom is what the other two take as ``cluster``.

    It takes the arguments of :class:`~practicus_provider.operators.arguments.ClusterArguments`; its ``timeout`` is the
    cluster's whole life, should nobody delete it.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_early(self)

    async def launch(self, backend: Backend, context: Context) -> tuple[Handle, Policy]:
        """See :meth:`ClusterOperator.launch`."""
        from practicus_provider.lifecycle import Policy

        plan, lease = self._plan(), self.lease(context)
        handle = await backend.create(task_key(context).cluster_name(), plan, task=task_facts(context), lease=lease)
        spec = job_spec(self, stream_logs="none")
        return handle, Policy.of(spec, plan, lease=lease, until_running=True)

    def preview(self, backend: Backend, context: Context) -> Any:
        """See :meth:`ClusterOperator.preview`."""
        name, lease = task_key(context).cluster_name(), self.lease(context)
        return backend.preview(name, self._plan(), task=task_facts(context), lease=lease)

    def _plan(self) -> Plan:
        from practicus_provider import adapters

        return adapters.make_plan(job_spec(self, stream_logs="none"), ("application",)).serving()

    def finish(self, outcome: Outcome, context: Context) -> dict[str, Any]:
        """The cluster as the other operators take it."""
        outcome.value()
        spec = job_spec(self)
        key = task_key(context)
        handle = context["ti"].xcom_pull(task_ids=self.task_id, key="cluster", map_indexes=key.map_index)
        return {**handle, "spec": _shared_spec(spec)}


class PracticusSubmitJobOperator(PodArguments):
    """Runs an application on a cluster that :class:`PracticusCreateClusterOperator` made.

    :param cluster: that operator's output. (templated)
    :param wait_for_completion: else the task ends at once, and its XCom is what
        :class:`~practicus_provider.sensors.job.PracticusJobSensor` takes as ``job``.

    The others are those of :class:`~practicus_provider.operators.arguments.PodArguments`, and of the same names of
    :class:`~practicus_provider.operators.job.PracticusRunJobOperator`. What of its pods the cluster has been told, and
    it is not, is as there (:data:`~practicus_provider.pod_settings.SHARED`).
    """

    template_fields: Sequence[str] = (
        "cluster",
        "application",
        "application_args",
        "files",
        *PodArguments.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"application_args": "json", "env": "json", "conf": "json"}

    def __init__(
        self,
        *,
        cluster: Mapping[str, Any] | XComArg | str,
        application: str | XComArg,
        application_args: Sequence[str] | XComArg = (),
        files: Sequence[str] | XComArg = (),
        checkpoint_dir: str | None = None,
        stream_logs: StreamLogs = "coordinator",
        wait_for_completion: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.application = application
        self.application_args = application_args
        self.files = files
        self.checkpoint_dir = checkpoint_dir
        self.stream_logs = stream_logs
        self.wait_for_completion = wait_for_completion
        check_early(self, adapter="the cluster's")

    @NoFramesOfOurs()
    def execute(self, context: Context) -> Any:
        """Launch, then follow unless told not to wait."""
        if self.wait_for_completion:
            return super().execute(context)
        backend = self.hook.get_conn()
        handle, _ = asyncio.run(self._launch(backend, context))
        return handle.to_json()

    async def launch(self, backend: Backend, context: Context) -> tuple[Handle, Policy]:
        """See :meth:`ClusterOperator.launch`."""
        from practicus_provider import adapters
        from practicus_provider.lifecycle import Policy
        from practicus_provider.names import job_name

        parent, spec = as_handle("cluster", self.cluster), with_lineage(self.spec(), context)
        shipment = shipment_of(self, spec)
        plan = adapters.make_plan(spec, shipment.program, shipment.files, executable=shipment.executable).deciding()
        lease = self.lease(context) if self.wait_for_completion else None
        handle = await backend.create(
            job_name(parent.name, task_key(context)), plan, task=task_facts(context), lease=lease, parent=parent
        )
        return handle, Policy.of(spec, plan, lease=lease)

    def spec(self) -> JobSpec:
        """What the arguments ask for, on the cluster as it is.

        :raises SpecError: naming the first that is wrong.
        """
        return job_spec(self, **self._shared())

    def _shared(self) -> dict[str, Any]:
        """What the cluster's own spec says, this job's ``conf`` over its."""
        if not (isinstance(self.cluster, Mapping) and "spec" in self.cluster):
            raise SpecError("cluster", self.cluster, "give the output of a PracticusCreateClusterOperator")
        shared = self.cluster["spec"]
        workers = shared["workers"]
        return {
            "adapter": shared["adapter"],
            "workers": workers if isinstance(workers, int) else Elastic(**workers),
            "worker_resources": Resources(**shared["worker_resources"]),
            "coordinator_resources": Resources(**shared["coordinator_resources"]),
            "conf": {**shared["conf"], **job_spec(self, adapter=shared["adapter"]).settings},
            **{name: getattr(self, name) or shared.get(name) for name in SHARED},
        }


class PracticusDeleteClusterOperator(BaseOperator):
    """Removes a shared cluster, and every job that still runs on it. Absent is fine: use it as a teardown.

    :param cluster: output of :class:`PracticusCreateClusterOperator`; None (it made none) is fine. (templated)
    :param practicus_conn_id: the connection that says where it runs.
    :param namespace: of its pods on Kubernetes; None: the connection's. (templated)
    """

    template_fields: Sequence[str] = ("cluster", "namespace")
    ui_color = ClusterOperator.ui_color

    def __init__(
        self,
        *,
        cluster: Mapping[str, Any] | XComArg | str | None,
        practicus_conn_id: str = PracticusHook.default_conn_name,
        namespace: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cluster = cluster
        self.practicus_conn_id = practicus_conn_id
        self.namespace = namespace

    @NoFramesOfOurs()
    def execute(self, context: Context) -> None:
        """Delete it."""
        if not self.cluster:
            self.log.info("there is no cluster to delete")
            return
        backend = PracticusHook(self.practicus_conn_id, self.namespace).get_conn()
        handle = as_handle("cluster", self.cluster)
        asyncio.run(backend.delete(handle))
        self.log.info("cluster %s is removed", handle.name)


@contextlib.contextmanager
def practicus_cluster(group_id: str = "cluster", **kwargs: Any) -> Iterator[XComArg]:
    """A task group whose tasks share a cluster. It is made before the first of them that takes it, and deleted after
    the last of them, whatever has become of them.

    What comes before the cluster, so that this is not idle meanwhile, is ``upstream >> cluster``.

    :param group_id: of the task group; its other two tasks are ``create`` and ``delete``.
    :param kwargs: of :class:`PracticusCreateClusterOperator`.
    :return: what :class:`PracticusSubmitJobOperator` takes as ``cluster``.
    :raises SpecError: an argument is wrong.
    """
    with TaskGroup(group_id):
        create = PracticusCreateClusterOperator(task_id="create", **kwargs)
        delete = PracticusDeleteClusterOperator(
            task_id="delete",
            cluster=create.output,
            practicus_conn_id=create.practicus_conn_id,
            namespace=create.namespace,
        )
        with delete.as_teardown(setups=create):
            yield create.output


def as_handle(field: str, value: object) -> Handle:
    """The handle in an operator's output.

    :raises SpecError: it is none.
    """
    from practicus_provider.backends.base import Handle

    match value:
        case {"name": str(name), "uid": str(uid)}:
            return Handle(name, uid)
    raise SpecError(field, value, "give the output of the operator that made it, such as create.output")


def _shared_spec(spec: JobSpec) -> dict[str, Any]:
    """What a job must know of the cluster that it runs on, as JSON."""
    return {
        "adapter": spec.adapter,
        "workers": asdict(spec.workers) if isinstance(spec.workers, Elastic) else spec.workers,
        "worker_resources": asdict(spec.worker_resources),
        "coordinator_resources": asdict(spec.coordinator_resources),
        "conf": dict(spec.settings),
        **{name: getattr(spec.pod, name) for name in SHARED},
    }
