"""A task of a DAG with its templates rendered, as ``airflow tasks render`` does it, and without a run of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.cli.commands.task_command import _get_template_context, _get_ti
from airflow.sdk.definitions.xcom_arg import XComArg
from airflow.sdk.exceptions import AirflowException
from airflow.utils.cli import get_bagged_dag, get_db_dag

from practicus_provider.errors import SpecError
from practicus_provider.operators.base import ClusterOperator

if TYPE_CHECKING:
    import argparse

    from airflow.sdk import Context


def rendered_operator(args: argparse.Namespace) -> tuple[ClusterOperator, Context]:
    """The operator, and the context of a run on ``args.logical_date`` that exists in memory at most.

    Airflow has no public way to do this: it is what its own command does (``airflow.cli.commands.task_command``,
    ``task_render``). Outputs of other tasks are not there without a run: a text in ``<>`` stands for each.

    :raises SpecError: the task is none of ours, or its templates cannot be rendered without a run.
    """
    try:
        operator: Any = get_bagged_dag(args.bundle_name, args.dag_id).get_task(args.task_id)
        scheduled = get_db_dag(args.bundle_name, args.dag_id).get_task(args.task_id)
    except AirflowException as error:
        raise SpecError("task", f"{args.dag_id}.{args.task_id}", str(error)) from error
    if not isinstance(operator, ClusterOperator):
        raise SpecError("task", operator.task_id, f"it is a {type(operator).__name__}, which makes no cluster")
    when = args.logical_date or datetime.now(UTC).isoformat()
    ti, made_up = _get_ti(scheduled, args.map_index, logical_date_or_run_id=when, create_if_necessary="memory")
    if made_up and ti.dag_run.logical_date is None:
        way_out = f"give a date, such as 2026-11-28, or the id of a run of {args.dag_id} that there is"
        raise SpecError("--logical-date", when, way_out)
    for field in operator.template_fields:
        setattr(operator, field, _without_outputs(getattr(operator, field)))
    context: Any = _get_template_context(ti, operator)
    try:
        operator.render_template_fields(context)
    except Exception as error:
        raise SpecError("task", operator.task_id, f"its templates need a run: {error}") from error
    rendered: Any = context["task"]
    return rendered, context


def _without_outputs(value: Any) -> Any:
    match value:
        case XComArg():
            return f"<output of {', '.join(sorted(task.task_id for task, _ in value.iter_references()))}>"
        case dict():
            return {key: _without_outputs(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_without_outputs(item) for item in value)
    return value
