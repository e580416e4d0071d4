"""``@task.practicus``: a function as a job."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, TaskDecorator, task_decorator_factory
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.context import KNOWN_CONTEXT_KEYS

from practicus_provider import function
from practicus_provider.errors import SpecError
from practicus_provider.operators.cluster import PracticusSubmitJobOperator
from practicus_provider.operators.job import PracticusRunJobOperator
from practicus_provider.spec import JobSpec

TEXTS = ("ds", "ds_nodash", "run_id", "task_instance_key_str", "ts", "ts_nodash", "ts_nodash_with_tz")
"""What of Airflow's context is text, and so may be a parameter that nobody gives."""


class FunctionOperator(DecoratedOperator):
    """What runs a function where its other base runs a file."""

    custom_operator_name = "@task.practicus"
    application: Any

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] = (),
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in ("application", "application_args"):
            if name in kwargs:
                raise SpecError(name, kwargs[name], "leave it out: the application is the function")
        op_kwargs = {name: f"{{{{ {name} }}}}" for name in _texts(python_callable)} | dict(op_kwargs or {})
        function.arguments(op_args, op_kwargs, _later)
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            application=function.read(python_callable),
            **kwargs,
        )

    def spec(self) -> JobSpec:
        """As of the other base; the function's arguments are known once the task runs."""
        spec: JobSpec = super().spec()  # type: ignore[misc]
        given = function.arguments(self.op_args, self.op_kwargs, _later)
        return replace(spec, application=replace(self.application, arguments=given))


def _fields(operator: type[Any]) -> tuple[str, ...]:
    others = (name for name in operator.template_fields if not name.startswith("application"))
    return (*DecoratedOperator.template_fields, *others)


class PracticusDecoratedOperator(FunctionOperator, PracticusRunJobOperator):
    """Runs a function where :class:`~practicus_provider.operators.job.PracticusRunJobOperator` runs a file."""

    template_fields: Sequence[str] = _fields(PracticusRunJobOperator)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **PracticusRunJobOperator.template_fields_renderers,
    }


class PracticusSubmitDecoratedOperator(FunctionOperator, PracticusSubmitJobOperator):
    """Runs a function where :class:`~practicus_provider.operators.cluster.PracticusSubmitJobOperator` runs a file."""

    template_fields: Sequence[str] = _fields(PracticusSubmitJobOperator)
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **PracticusSubmitJobOperator.template_fields_renderers,
    }


def practicus_task(
    python_callable: Callable[..., Any] | None = None, multiple_outputs: bool | None = None, **kwargs: Any
) -> Any:
    """Make a function a task that runs it as a job on a temporary cluster of its own, or on a shared ``cluster``.

    Only the function's source travels, so it imports inside itself what it uses. It is called where an application
    would run, by each rank if there are ranks; its arguments and its result are what JSON can hold. A parameter that
    has one of the names :data:`TEXTS` is given what Airflow's context has by that name.

    What it returns is a task's decorated function, as ``@task`` does, or with no function yet the decorator.

    :param python_callable: the function.
    :param multiple_outputs: whether each key of the dict that it returns is an XCom of its own; None: whether it is
        annotated to return a dict.
    :param kwargs: of :class:`~practicus_provider.operators.job.PracticusRunJobOperator`, but for the application; with
        ``cluster`` of :class:`~practicus_provider.operators.cluster.PracticusSubmitJobOperator`.
    :raises SpecError: the function takes something from outside itself, or an argument is wrong.
    """

    def decorate(decorated: Callable[..., Any]) -> TaskDecorator:
        function.read(decorated)  # where the task is mapped, nobody else does before it runs
        _texts(decorated)
        return task_decorator_factory(
            python_callable=decorated,
            multiple_outputs=multiple_outputs,
            decorated_operator_class=PracticusSubmitDecoratedOperator
            if "cluster" in kwargs
            else PracticusDecoratedOperator,
            **kwargs,
        )

    return decorate(python_callable) if python_callable else decorate


def _texts(python_callable: Callable[..., Any]) -> list[str]:
    """Parameters that Airflow's context has a text for.

    :raises SpecError: it has something else for one.
    """
    wanted = KNOWN_CONTEXT_KEYS & inspect.signature(python_callable).parameters.keys()
    for name in sorted(wanted.difference(TEXTS)):
        way_out = f"call it otherwise, or ask practicus_runtime.context(): of the context a job gets {', '.join(TEXTS)}"
        raise SpecError("parameter", name, way_out)
    return sorted(wanted)


def _later(value: Any) -> bool:
    """Whether Airflow will put another in its place."""
    return isinstance(value, ResolveMixin)
