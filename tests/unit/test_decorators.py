from __future__ import annotations

import json
import re

import pytest
from airflow.sdk import DAG, Param, task

from practicus_provider.decorators.practicus import PracticusDecoratedOperator, practicus_task
from practicus_provider.errors import AdapterError, SpecError
from practicus_provider.operators.cluster import PracticusSubmitJobOperator, _shared_spec, practicus_cluster
from practicus_provider.spec import Elastic, Function, JobSpec

OUTSIDE = 1


@task.practicus(adapter="dask", workers=2)
def double(x: int, ds: str | None = None) -> list:
    """Twice as much."""
    return [x, x]


def refused(kind: type[Exception], message: str) -> pytest.RaisesExc[Exception]:
    return pytest.raises(kind, match=f"^{re.escape(message)}")


def test_airflow_finds_the_decorator_by_its_name():
    assert task.practicus is practicus_task


def test_a_call_makes_a_task_whose_application_is_the_function():
    with DAG("d") as dag:
        double(3)
        double.override(task_id="more", workers=Elastic(1, 5))(4)
    once, more = dag.get_task("double"), dag.get_task("more")
    assert isinstance(once, PracticusDecoratedOperator)
    assert (once.spec().workers, more.spec().workers) == (2, Elastic(1, 5))
    assert once.doc_md == "Twice as much."
    assert once.custom_operator_name == "@task.practicus"
    function = once.spec().application
    assert isinstance(function, Function)
    assert function.source.startswith("def double(x: int, ds: str | None = None) -> list:\n")


def test_arguments_are_given_as_airflow_has_rendered_them_and_texts_of_the_context_by_themselves():
    with DAG("d", params={"n": Param(7)}) as dag:
        double("{{ params.n }}")
    once = dag.get_task("double")
    once.render_template_fields({"params": {"n": 7}, "ds": "2013-01-05"})
    assert json.loads(once.spec().application.arguments) == {"args": ["7"], "kwargs": {"ds": "2013-01-05"}}


def test_what_a_function_requires_is_its_job_s_or_the_shared_cluster_s():
    with DAG("d") as dag:
        double.override(requirements=["polars>=1"])(1)
        with practicus_cluster(adapter="dask", requirements=["polars>=1"]) as cluster:

            @task.practicus(cluster=cluster, requirements=["pyarrow"])
            def half(): ...

            half()
        with refused(SpecError, "requirements='polars 1': give requirements such as 'polars>=1,<2'"):
            double.override(requirements=["polars 1"])(1)
    assert dag.get_task("double").spec().requirements == ("polars>=1",)
    assert dag.get_task("cluster.create").requirements == ["polars>=1"]
    assert dag.get_task("cluster.half").requirements == ["pyarrow"]


def test_what_another_task_returns_is_known_when_it_runs():
    with DAG("d") as dag:
        double(double(1))
    assert dag.get_task("double__1").upstream_task_ids == {"double"}


def test_a_mapped_task_has_one_function_and_many_arguments():
    with DAG("d") as dag:
        double.expand(x=[1, 2])
    mapped = dag.get_task("double")
    assert mapped.operator_name == "@task.practicus"
    one = mapped.unmap({"op_kwargs": {"x": 2}})
    assert json.loads(one.spec().application.arguments)["kwargs"]["x"] == 2


def test_a_dict_is_several_xcoms_where_the_function_is_annotated_so():
    with DAG("d") as dag:

        @task.practicus(adapter="dask")
        def metrics() -> dict[str, int]:
            return {}

        @task.practicus(adapter="dask", multiple_outputs=False)
        def whole() -> dict[str, int]:
            return {}

        metrics()
        whole()
    assert [task.multiple_outputs for task in dag.tasks] == [True, False]


def test_a_function_runs_on_a_shared_cluster_too_and_is_what_that_is():
    with DAG("d") as dag, practicus_cluster(adapter="dask", workers=3) as cluster:

        @task.practicus(cluster=cluster, conf={"distributed.scheduler.work-stealing": False})
        def half(x: int):
            return x / 2

        half(4)
    job = dag.get_task("cluster.half")
    assert isinstance(job, PracticusSubmitJobOperator)
    assert job.upstream_task_ids == {"cluster.create"}
    job.cluster = {"name": "n", "uid": "u", "spec": _shared_spec(JobSpec.of(adapter="dask", workers=3))}
    spec = job.spec()
    assert (spec.adapter, spec.workers, dict(spec.settings)) == (
        "dask",
        3,
        {"distributed.scheduler.work-stealing": False},
    )
    assert json.loads(spec.application.arguments) == {"args": [4], "kwargs": {}}


def test_what_cannot_be_shipped_is_refused_when_the_dag_is_parsed_mapped_or_not():
    with refused(SpecError, "python_callable='outside': only its own source travels"):

        @task.practicus(adapter="dask")
        def outside():
            return OUTSIDE

    with refused(SpecError, "parameter='ti': call it otherwise, or ask practicus_runtime.context(): of the context"):

        @task.practicus(adapter="dask")
        def of_context(ti=None): ...


def test_arguments_that_cannot_be_are_refused_when_the_dag_is_parsed():
    with DAG("d"):
        with refused(SpecError, "x=<object"):
            double(x=object())
        with refused(SpecError, "workers=0: give a whole number of at least 1"):
            double.override(workers=0)(1)
        with refused(AdapterError, "adapter='dusk': did you mean 'dask'?"):
            double.override(adapter="dusk")(1)
        with refused(SpecError, "application='x.py': leave it out: the application is the function"):
            double.override(application="x.py")(1)
        with refused(TypeError, "missing a required argument: 'x'"):
            double()
