from __future__ import annotations

import asyncio
import json
import re
import runpy
import sys
import types
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.listeners import hookimpl
from airflow.models.taskinstance import TaskInstance
from airflow.sdk import DAG, Asset, BaseOperator, Param, TriggerRule, task
from airflow.sdk.execution_time import comms, task_runner
from airflow.sdk.execution_time.supervisor import InProcessSupervisorComms
from airflow.triggers.base import TaskFailedEvent, TaskSuccessEvent

from practicus_provider import compat
from practicus_provider.adapters import make_plan
from practicus_provider.errors import AdapterError, JobFailed, SpecError
from practicus_provider.lifecycle import Outcome, Policy
from practicus_provider.operators.base import (
    LAST_TRY_LEASE,
    RETRY_SLACK,
    task_facts,
    task_key,
    trigger_may_end_task,
)
from practicus_provider.operators.cluster import (
    PracticusCreateClusterOperator,
    PracticusDeleteClusterOperator,
    PracticusSubmitJobOperator,
    as_handle,
    practicus_cluster,
)
from practicus_provider.operators.dask import PracticusDaskOperator
from practicus_provider.operators.job import PracticusRunJobOperator, shipment_of, with_lineage
from practicus_provider.sensors.job import PracticusJobSensor
from practicus_provider.spec import Elastic, JobSpec, Resources, WorkerGroup
from practicus_provider.status import Reason, State, Verdict
from practicus_provider.triggers.job import PracticusJobTrigger, event_of
from tests.airflow_names import (
    BACKOFFS,
    DOUBLED,
    DagSerialization,
    dag_bag,
    deserialize,
    get_listener_manager,
    serialize,
)

JOB = "local:///job.py"
CLUSTER = {
    "name": "c-1",
    "uid": "u",
    "spec": {
        "adapter": "dask",
        "workers": {"min": 2, "max": 3},
        "worker_resources": {"cpu": 2, "memory": "4Gi"},
        "coordinator_resources": {"cpu": 1, "memory": "2Gi"},
        "conf": {"a": 1, "b": 1},
        "image": None,
        "scheduler_name": "volcano",
        "priority_class": None,
    },
}
Parse = Callable[..., BaseOperator]


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    """Parses a DAG file with one task, which is given as source, beside ``job.py``; gives the task."""

    def parse(source: str, imports: str = "") -> BaseOperator:
        (tmp_path / "jobs").mkdir(exist_ok=True)
        (tmp_path / "jobs" / "job.py").write_text("print()")
        (tmp_path / "dag.py").write_text(
            "from airflow.sdk import DAG\n"
            "from practicus_provider.operators.cluster import *\n"
            "from practicus_provider.operators.dask import PracticusDaskOperator\n"
            "from practicus_provider.operators.job import PracticusRunJobOperator\n"
            f"from practicus_provider.spec import Elastic, Resources\n{imports}\n"
            f"with DAG('sales') as dag:\n    {source}\n"
        )
        dag = runpy.run_path(str(tmp_path / "dag.py"))["dag"]
        return dag.get_task("t")

    return parse


def dask(**more: Any) -> PracticusDaskOperator:
    return PracticusDaskOperator(**{"task_id": "t", "application": JOB} | more)


def refused(kind: type[Exception], message: str) -> pytest.RaisesExc[Exception]:
    return pytest.raises(kind, match=f"^{re.escape(message)}")


def ti(**more: Any) -> dict[str, Any]:
    """The context of a task instance."""
    one = {"dag_id": "sales", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1, "max_tries": 0}
    return {"ti": SimpleNamespace(**one | {"task": SimpleNamespace(retries=0)} | more)}


# ---- what a wrong DAG says when it is parsed


@pytest.mark.parametrize(
    ("argument", "kind", "message"),
    [
        ("adapter='dsak'", AdapterError, "adapter='dsak': did you mean 'dask'? choose one of dask, deepspeed"),
        ("adapter=''", AdapterError, "adapter='': choose one of dask, deepspeed"),
        ("adapter='os.getcwd'", AdapterError, "adapter='os.getcwd': 'os.getcwd' is not a subclass of"),
        ("application='gone.py'", SpecError, "application='gone.py': there is no such file or folder; looked for /"),
        ("application='jobs'", SpecError, "application='jobs': the folder has no __main__.py and no main.py to start"),
        ("application='s3://b/job.py'", SpecError, "application='s3://b/job.py': give a path, a local:///path, or an"),
        ("application='local:///job.jar'", SpecError, "application='local:///job.jar': give a Python file (.py, .pyz"),
        ("application=''", SpecError, "application='': give a path"),
        ("application=None", SpecError, "application=None: give a path"),
        ("application_args='--x'", SpecError, "application_args='--x': give a list of strings"),
        ("application_args=[None]", SpecError, "application_args=(None,): give a list of strings"),
        ("application_args=None", SpecError, "application_args=None: give a list of strings"),
        ("files=['gone.csv']", SpecError, "files='gone.csv': there is no such file or folder; looked for /"),
        ("files='jobs'", SpecError, "files='jobs': give a list of strings"),
        ("workers=0", SpecError, "workers=0: give a whole number of at least 1 or Elastic(min, max)"),
        ("workers='many'", SpecError, "workers='many': give a whole number of at least 1"),
        ("workers='0'", SpecError, "workers=0: give a whole number of at least 1"),
        ("workers=Elastic(3, 1)", SpecError, "workers=Elastic(min=3, max=1): min (3) is over max (1); swap them"),
        ("worker_resources=Resources(memory='4 Gi')", SpecError, "memory='4 Gi': give a positive Kubernetes quantity"),
        ("worker_resources={'cpu': 1}", SpecError, "worker_resources={'cpu': 1}: give Resources(cpu=..., memory=...)"),
        ("conf={1: 2}", SpecError, "conf={1: 2}: give a dict whose keys are strings"),
        ("conf={'no key': 2}", SpecError, "conf='no key': give a dotted Dask key"),
        ("conf=['x']", SpecError, "conf=['x']: give a dict whose keys are strings"),
        ("env={'A B': 'x'}", SpecError, "env={'A B': 'x'}: names are letters, digits and _"),
        ("env={'A': None}", SpecError, "env={'A': None}: names are letters, digits and _; values are strings"),
        ("timeout=0", SpecError, "timeout=0: give a positive number of seconds or a timedelta"),
        ("timeout=None", SpecError, "timeout=None: give a positive number of seconds or a timedelta"),
        ("start_timeout='5m'", SpecError, "start_timeout='5m': give a positive number of seconds or a timedelta"),
        ("queue_name='Team A'", SpecError, "queue_name='Team A': give a LocalQueue of Kueue's by its name"),
        ("queue_name='team-a'", SpecError, "queue_name='team-a': Kueue admits one Job, and a cluster of dask is more"),
        ("scheduler_name=''", SpecError, "scheduler_name='': give a scheduler's name, such as 'volcano'"),
        ("priority_class=1000", SpecError, "priority_class=1000: give a PriorityClass by its name"),
        ("teardown='Always'", SpecError, "teardown='Always': choose one of always, on_success, never"),
        ("stream_logs=True", SpecError, "stream_logs=True: choose one of coordinator, all, none"),
        ("teardown='{{ x }}'", SpecError, "teardown='{{ x }}': this argument is not templated: give the value itself"),
        ("adapter='{{ x }}'", SpecError, "adapter='{{ x }}': this argument is not templated"),
        ("wokers=2", TypeError, "Invalid arguments were passed to PracticusRunJobOperator (task_id: t). Invalid"),
    ],
)
def test_a_wrong_argument_fails_when_the_dag_is_parsed_with_its_name_and_value(parse, argument, kind, message):
    name, value = argument.split("=", 1)
    arguments = {"adapter": "'dask'", "application": "'jobs/job.py'"} | {name: value}
    given = ", ".join(f"{key}={text}" for key, text in arguments.items())
    with refused(kind, message):
        parse(f"PracticusRunJobOperator(task_id='t', {given})")


def test_an_unknown_argument_of_a_frameworks_operator_is_named(parse):
    with pytest.raises(TypeError, match=r"passed to PracticusDaskOperator \(task_id: t\)[^{]*\{'wokers': 2\}"):
        parse("PracticusDaskOperator(task_id='t', application='jobs/job.py', wokers=2)")


@pytest.mark.parametrize("operator", ["PracticusRunJobOperator(adapter='dask', ", "PracticusDaskOperator("])
def test_a_job_without_an_application_is_refused_by_its_name(parse, operator):
    with pytest.raises(TypeError, match="application"):
        parse(f"{operator}task_id='t')")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("adapter='dsak'", "adapter='dsak': did you mean 'dask'?"),
        ("adapter='dask', workers=0", "workers=0: give a whole number"),
        ("adapter='dask', conf={'no key': 1}", "conf='no key': give a dotted Dask key"),
        ("adapter='example_dags.mapreduce.MapReduceAdapter'", "adapter='example_dags.mapreduce.MapReduceAdapter': its"),
        (
            "adapter='tests.e2e.dags.single.SingleAdapter'",
            "adapter='tests.e2e.dags.single.SingleAdapter': its replicas are the job: there is no cluster to share",
        ),
    ],
)
def test_a_wrong_cluster_fails_when_the_dag_is_parsed(parse, arguments, message):
    with refused(SpecError, message):
        parse(f"PracticusCreateClusterOperator(task_id='t', {arguments})")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("application='gone.py'", "application='gone.py': there is no such file or folder; looked for /"),
        ("application=JOB, application_args='--x'", "application_args='--x': give a list of strings"),
        ("application=JOB, env={'A': None}", "env={'A': None}: names are letters, digits and _; values are strings"),
        ("application=JOB, timeout=0", "timeout=0: give a positive number of seconds or a timedelta"),
        ("application=JOB, stream_logs=True", "stream_logs=True: choose one of coordinator, all, none"),
    ],
)
def test_a_wrong_job_for_a_shared_cluster_fails_when_the_dag_is_parsed(parse, arguments, message):
    with refused(SpecError, message):
        parse(f"PracticusSubmitJobOperator(task_id='t', cluster='{{{{ c }}}}', {arguments})", f"JOB = '{JOB}'")


def test_airflow_shows_the_argument_in_the_dags_import_error(tmp_path):
    (tmp_path / "wrong.py").write_text(
        "from airflow.sdk import DAG\n"
        "from practicus_provider.operators.dask import PracticusDaskOperator\n"
        "with DAG('wrong'):\n"
        f"    PracticusDaskOperator(task_id='t', application='{JOB}', workers=0)\n"
    )
    bag = dag_bag(tmp_path)
    [error] = bag.import_errors.values()
    assert "workers=0: give a whole number of at least 1 or Elastic(min, max)" in error


# ---- what is known only when the task runs


@pytest.mark.parametrize(
    "arguments",
    [
        "application='{{ params.application }}'",
        "application='jobs/{% if params.x %}a{% endif %}.py'",
        "application='jobs/job.py', application_args=['--date', '{{ ds }}']",
        "application='jobs/job.py', files=['{{ params.file }}']",
        "application='jobs/job.py', workers='{{ params.n }}'",
        "application='jobs/job.py', env={'DATE': '{{ ds }}'}",
        "application='jobs/job.py', conf={'a': {'b': ['{{ ds }}']}}",
        "application=upstream.output",
        "application='jobs/job.py', application_args=upstream.output",
        "application='jobs/job.py', application_args=['--from', upstream.output]",
        "application='jobs/job.py', files=upstream.output",
        "application='jobs/job.py', workers=upstream.output",
        "application='jobs/job.py', env={'A': upstream.output}",
        "application='jobs/job.py', env=upstream.output",
        "application='jobs/job.py', conf=upstream.output",
    ],
)
def test_what_a_template_or_another_task_fills_in_does_not_fail_at_parse(parse, arguments):
    upstream = "from airflow.providers.standard.operators.empty import EmptyOperator"
    source = f"upstream = EmptyOperator(task_id='u'); PracticusDaskOperator(task_id='t', {arguments})"
    found = parse(source, upstream)
    assert found.upstream_task_ids == ({"u"} if "upstream.output" in arguments else set())


def test_one_argument_that_comes_later_does_not_hide_another_that_is_wrong(parse):
    with refused(SpecError, "workers=0: give a whole number"):
        parse("PracticusDaskOperator(task_id='t', application='{{ params.x }}', workers=0)")


@pytest.mark.parametrize("rendered", ["4", " 4 ", 4])
def test_a_worker_count_from_a_template_becomes_a_number(rendered):
    with DAG("sales", params={"n": Param(rendered)}):
        operator = dask(workers="{{ params.n }}", application_args=["--date", "{{ ds }}"], env={"A": "{{ ds }}"})
    operator.render_template_fields({"params": {"n": rendered}, "ds": "2013-01-05"})
    assert operator.spec() == JobSpec.of(
        adapter="dask",
        application=JOB,
        application_args=("--date", "2013-01-05"),
        env={"A": "2013-01-05"},
        workers=4,
    )


@pytest.mark.parametrize("rendered", ["0", "-1", "many", "", "4.5"])
def test_a_worker_count_from_a_template_that_is_wrong_is_refused_when_the_task_runs(rendered):
    with DAG("sales"):
        operator = dask(workers="{{ n }}")
    operator.render_template_fields({"n": rendered})
    with refused(SpecError, "workers="):
        operator.spec()


@pytest.mark.parametrize(
    ("value", "text"), [(3, "3"), (0.5, "0.5"), (True, "True"), ("x", "x"), (20130105, "20130105")]
)
@pytest.mark.parametrize("native", [True, False])
def test_a_number_or_a_boolean_from_a_template_becomes_text_where_text_is_wanted(value, text, native):
    with DAG("sales", render_template_as_native_obj=native):
        operator = dask(application_args=["--n", "{{ n }}"], env={"N": "{{ n }}"})
    operator.render_template_fields({"n": value})
    spec = operator.spec()
    assert (spec.application_args, spec.env) == (("--n", text), {"N": text})


@pytest.mark.parametrize("native", [True, False])
def test_a_list_or_a_dict_from_another_task_may_hold_numbers(native):
    with DAG("sales", render_template_as_native_obj=native):
        operator = dask(application_args=[1, 2.5, False], env={"N": 1, "B": True})
    spec = operator.spec()
    assert (spec.application_args, spec.env) == (("1", "2.5", "False"), {"N": "1", "B": "True"})


def test_a_range_of_workers_passes_through_rendering():
    with DAG("sales"):
        operator = dask(workers=Elastic(2, 20))
    operator.render_template_fields({})
    assert operator.spec().workers == Elastic(2, 20)


def test_groups_of_workers_pass_through_rendering():
    with DAG("sales"):
        operator = PracticusRunJobOperator(
            task_id="t", adapter="torch", application=JOB, workers=[WorkerGroup(2, Resources(gpu=1)), WorkerGroup(4)]
        )
    operator.render_template_fields({})
    assert operator.spec().workers == (WorkerGroup(2, Resources(gpu=1)), WorkerGroup(4))


# ---- how arguments are read


def test_an_application_is_looked_for_beside_the_dag(parse, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    operator = parse("PracticusDaskOperator(task_id='t', application='jobs/job.py', files=['dag.py'])")
    shipment = shipment_of(operator, operator.spec())
    assert shipment.files == {"job.py": b"print()", "dag.py": (tmp_path / "dag.py").read_bytes()}


FACTORY = """
from airflow.sdk import DAG
from practicus_provider.operators.dask import PracticusDaskOperator

def make():
    with DAG("made") as dag:
        PracticusDaskOperator(task_id="t", application="jobs/job.py", files=["lib/"])
    return dag
"""
CALLER = "# airflow: a DAG\nimport sys\nsys.path.insert(0, {path!r})\nfrom lib.factory import make\ndag = make()\n"


def test_a_dag_that_a_factory_in_another_folder_makes_has_its_application_beside_its_own_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job.py").write_text("print()")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "factory.py").write_text(FACTORY)
    (tmp_path / "dag.py").write_text(CALLER.format(path=str(tmp_path)))
    bag = dag_bag(tmp_path / "dag.py", tmp_path)
    for name in ("lib.factory", "lib"):
        sys.modules.pop(name, None)
    assert bag.import_errors == {}
    operator = bag.dags["made"].get_task("t")
    assert shipment_of(operator, operator.spec()).files == {"job.py": b"print()", "lib/factory.py": FACTORY.encode()}


def test_a_dag_in_a_zip_has_its_application_beside_it_in_the_zip(tmp_path):
    with zipfile.ZipFile(tmp_path / "dags.zip", "w") as archive:
        archive.writestr("zipped_dag.py", FACTORY.replace('"lib/"', '"lib"') + "\ndag = make()\n")
        archive.writestr("jobs/job.py", "print()")
        archive.writestr("lib/deep/helper.py", "")
    bag = dag_bag(tmp_path / "dags.zip", tmp_path)
    sys.modules.pop("zipped_dag", None)
    assert bag.import_errors == {}
    operator = bag.dags["made"].get_task("t")
    assert shipment_of(operator, operator.spec()).files == {"job.py": b"print()", "lib/deep/helper.py": b""}


def test_without_a_dag_an_application_is_looked_for_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text("")
    operator = dask(application="job.py")
    assert shipment_of(operator, operator.spec()).files == {"job.py": b""}


def test_the_arguments_are_the_spec():
    operator = PracticusRunJobOperator(
        task_id="t",
        adapter="dask",
        application=JOB,
        application_args=["a"],
        env={"A": "b"},
        files=["c"],
        workers=3,
        worker_resources=Resources(2, "4Gi"),
        coordinator_resources=Resources(1, "1Gi"),
        conf={"a.b": 1},
        timeout=timedelta(hours=1),
        start_timeout=timedelta(seconds=90),
        grace=timedelta(minutes=2),
        teardown="never",
        stream_logs="all",
    )
    assert operator.spec() == JobSpec.of(
        adapter="dask",
        application=JOB,
        application_args=("a",),
        env={"A": "b"},
        files=("c",),
        workers=3,
        worker_resources=Resources(2, "4Gi"),
        coordinator_resources=Resources(1, "1Gi"),
        conf={"a.b": 1},
        timeout=3600,
        start_timeout=90,
        grace=120,
        teardown="never",
        stream_logs="all",
    )


@pytest.fixture
def deepspeed(parse, tmp_path):
    """Parses a DAG with one DeepSpeed task beside the files ``ds.json`` and ``list.json``."""
    (tmp_path / "ds.json").write_text('{"train_batch_size": 8}')
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "broken.json").write_text("{")
    imports = "from practicus_provider.operators.deepspeed import PracticusDeepSpeedOperator"

    def deepspeed(arguments: str) -> BaseOperator:
        return parse(f"PracticusDeepSpeedOperator(task_id='t', application='jobs/job.py', {arguments})", imports)

    return deepspeed


@pytest.mark.parametrize(
    ("given", "conf"),
    [
        ("ds_config={'train_batch_size': 8}", {"train_batch_size": 8}),
        ("conf={'train_batch_size': 8}", {"train_batch_size": 8}),
        ("ds_config='ds.json'", {"train_batch_size": 8}),
        ("ds_config='local:///etc/ds.json'", "local:///etc/ds.json"),
        ("", {}),
    ],
)
def test_deepspeeds_configuration_is_a_dict_a_file_beside_the_dag_or_one_where_the_job_runs(deepspeed, given, conf):
    spec = deepspeed(f"workers=2, procs_per_worker=2, {given}").spec()
    assert spec == JobSpec.of(adapter="deepspeed", application="jobs/job.py", workers=2, procs_per_worker=2, conf=conf)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("ds_config='gone.json'", "conf='gone.json': there is no such file or folder; looked for /"),
        ("ds_config='list.json'", "conf='list.json': it holds a list: give a JSON file that holds an object"),
        ("ds_config='broken.json'", "conf='broken.json': give a dict, or the path of a JSON file beside the DAG: "),
        ("ds_config='local://x'", "conf='local://x': give a dict whose keys are strings"),
        ("ds_config='ds.json', workers=3", "ds_config['train_batch_size']=8: 8 is no multiple of 3 (ranks: 3 workers"),
        ("ds_config={}, conf={}", "conf={}: it is what ds_config= gives: leave one of them out"),
        ("procs_per_worker='{{ x }}'", "procs_per_worker='{{ x }}': this argument is not templated"),
        ("procs_per_worker=0", "procs_per_worker=0: give a whole number of at least 1"),
        ("local_rank='no'", "local_rank='no': give True or False"),
        ("ds_config_argument='deepspeed'", "ds_config_argument='deepspeed': give an argument's name, such as '--deep"),
        ("ds_config_argument='--a b'", "ds_config_argument='--a b': give an argument's name, such as '--deepspeed' "),
        ("ds_config_argument=None", "ds_config_argument=None: give an argument's name, such as '--deepspeed' for H"),
    ],
)
def test_a_wrong_training_fails_when_the_dag_is_parsed(deepspeed, given, message):
    with refused(SpecError, message):
        deepspeed(given)


def test_the_script_s_own_arguments_for_deepspeed_are_the_spec_s(deepspeed):
    spec = deepspeed("ds_config_argument='--deepspeed', local_rank=False").spec()
    assert spec == replace(deepspeed("").spec(), ds_config_argument="--deepspeed", local_rank=False)


def test_a_configuration_whose_name_a_template_gives_is_read_when_the_task_runs(deepspeed):
    operator = deepspeed("ds_config='{{ params.config }}.json'")
    operator.conf = "ds.json"  # as rendered
    assert operator.spec().conf == {"train_batch_size": 8}


def test_a_framework_whose_settings_are_no_file_takes_one_beside_the_dag(parse, tmp_path):
    (tmp_path / "dask.json").write_text('{"distributed.worker.memory.target": 0.7}')
    operator = parse("PracticusDaskOperator(task_id='t', application='jobs/job.py', conf='dask.json')")
    assert operator.spec().conf == {"distributed.worker.memory.target": 0.7}


def test_what_is_not_given_is_as_the_spec_has_it():
    assert dask().spec() == JobSpec.of(adapter="dask", application=JOB)


def test_a_dags_default_arguments_reach_every_operator():
    defaults = {"workers": 5, "practicus_conn_id": "there", "deferrable": True, "conf": {"a": 1}, "teardown": "never"}
    with DAG("sales", default_args=defaults):
        operator = dask()
        create = PracticusCreateClusterOperator(task_id="c", adapter="dask")
    assert (operator.workers, operator.practicus_conn_id, operator.deferrable, operator.conf, operator.teardown) == (
        5,
        "there",
        True,
        {"a": 1},
        "never",
    )
    assert (create.workers, create.practicus_conn_id, create.conf) == (5, "there", {"a": 1})


@pytest.mark.parametrize(("setting", "deferrable"), [("True", True), ("False", False)])
def test_whether_a_task_defers_is_airflows_setting_unless_it_says(monkeypatch, setting, deferrable):
    monkeypatch.setenv("AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE", setting)
    assert dask().deferrable is deferrable
    assert dask(deferrable=not deferrable).deferrable is not deferrable


def test_a_dag_of_all_operators_is_serialized():
    with DAG("sales") as dag:
        create = PracticusCreateClusterOperator(task_id="create", adapter="dask", workers=Elastic(1, 2))
        job = PracticusSubmitJobOperator(
            task_id="job", cluster=create.output, application=JOB, wait_for_completion=False
        )
        wait = PracticusJobSensor(task_id="wait", job=job.output)
        delete = PracticusDeleteClusterOperator(task_id="delete", cluster=create.output)
        wait >> delete.as_teardown(setups=create)
        dask(workers=Elastic(2, 3), worker_resources=Resources(2, "4Gi"))
        PracticusDaskOperator.partial(task_id="mapped", application=JOB).expand(workers=[1, 2])
    read = DagSerialization.from_dict(json.loads(json.dumps(DagSerialization.to_dict(dag))))
    assert set(read.task_dict) == {"create", "job", "wait", "delete", "t", "mapped"}
    assert read.get_task("delete").trigger_rule == TriggerRule.ALL_DONE_SETUP_SUCCESS
    links = {name: [link.name for link in read.get_task(name).operator_extra_links] for name in ("t", "job", "mapped")}
    every = ["Cluster", "Logs of replicas"]
    dask_s, other = ["Dask dashboard", *every], ["Cluster dashboard", *every]
    assert links == {"t": dask_s, "job": other, "mapped": dask_s}


def test_an_unknown_argument_of_a_mapped_operator_is_named():
    with pytest.raises(TypeError, match="unexpected keyword argument 'wokers'"):
        PracticusDaskOperator.partial(task_id="t", application=JOB, wokers=2)


# ---- a shared cluster


def test_a_cluster_for_a_group_of_tasks_is_their_setup_and_its_deletion_their_teardown():
    with DAG("d") as dag:
        before = BaseOperator(task_id="before")
        with practicus_cluster("etl", adapter="dask", workers=3, namespace="n") as cluster:
            before >> cluster
            first = PracticusSubmitJobOperator(task_id="first", cluster=cluster, application=JOB)
            first >> PracticusSubmitJobOperator(task_id="second", cluster=cluster, application=JOB)
    create, delete = dag.get_task("etl.create"), dag.get_task("etl.delete")
    assert (create.is_setup, create.workers, create.namespace) == (True, 3, "n")
    assert (delete.is_teardown, delete.trigger_rule, delete.namespace) == (True, "all_done_setup_success", "n")
    assert {task.task_id: task.upstream_task_ids for task in dag.tasks} == {
        "before": set(),
        "etl.create": {"before"},
        "etl.first": {"etl.create"},
        "etl.second": {"etl.create", "etl.first"},
        "etl.delete": {"etl.create", "etl.second"},
    }


def test_a_job_on_a_shared_cluster_has_the_clusters_spec_and_its_own_settings_over_it():
    operator = PracticusSubmitJobOperator(
        task_id="t", cluster=CLUSTER, application=JOB, conf={"b": 2}, timeout=timedelta(minutes=1)
    )
    assert operator._shared() == {
        "adapter": "dask",
        "workers": Elastic(2, 3),
        "worker_resources": Resources(2, "4Gi"),
        "coordinator_resources": Resources(1, "2Gi"),
        "conf": {"a": 1, "b": 2},
        "image": None,
        "image_pull_policy": None,
        "run_as_uid": None,
        "scheduler_name": "volcano",
        "priority_class": None,
    }


@pytest.mark.parametrize("cluster", [None, "c-1", {"name": "c-1", "uid": "u"}, {}])
def test_a_job_on_what_is_not_a_shared_cluster_is_refused(cluster):
    operator = PracticusSubmitJobOperator(task_id="t", cluster=cluster, application=JOB)
    with pytest.raises(SpecError, match=f"^{re.escape(f'cluster={cluster!r}: give the output of')}"):
        asyncio.run(operator.launch(None, ti()))


@pytest.mark.parametrize("value", [None, "c-1", {}, {"name": "c-1"}, {"name": 1, "uid": 2}])
def test_what_is_not_a_handle_is_refused(value):
    with refused(SpecError, f"job={value!r}: give the output of the operator that made it, such as create.output"):
        as_handle("job", value)


@pytest.mark.parametrize("cluster", [None, "", {}])
def test_deleting_a_cluster_that_was_never_made_is_fine(cluster):
    PracticusDeleteClusterOperator(task_id="t", cluster=cluster, practicus_conn_id="absent").execute({})


# ---- which cluster, and for how long


@pytest.mark.parametrize("map_index", [None, -1])
def test_a_task_that_is_not_mapped_has_the_map_index_minus_one(map_index):
    assert task_key(ti(map_index=map_index)) == task_key(ti())


def test_the_application_is_told_its_task_instance():
    assert task_facts(ti(map_index=3, try_number=2)) == {
        "dag_id": "sales",
        "run_id": "r",
        "task_id": "t",
        "map_index": 3,
        "try_number": 2,
        "first_try": 1,
        "logical_date": None,
    }


@pytest.mark.parametrize(
    ("max_tries", "retries", "first"),
    [(0, 0, 1), (3, 3, 1), (1, 0, 2), (5, 3, 3), (None, None, 1)],
    ids=["no retries", "retries", "cleared", "cleared after two tries", "unknown"],
)
def test_a_task_that_is_cleared_begins_with_another_try(max_tries, retries, first):
    facts = task_facts(ti(max_tries=max_tries, task=SimpleNamespace(retries=retries)))
    assert facts["first_try"] == first


def test_a_new_try_is_the_same_task_instance():
    assert task_key(ti(try_number=1)) == task_key(ti(try_number=2))


@pytest.mark.parametrize(("try_number", "max_tries"), [(1, 0), (1, None), (3, 2), (4, 2)])
def test_on_its_last_try_a_cluster_outlives_its_task_for_seconds(try_number, max_tries):
    assert dask(deferrable=False).lease(ti(try_number=try_number, max_tries=max_tries)) == LAST_TRY_LEASE == 5


@pytest.mark.parametrize(
    ("arguments", "try_number", "delay"),
    [
        ({}, 1, 300),
        ({"retry_delay": timedelta(seconds=7)}, 2, 7),
        ({"retry_delay": 7}, 1, 7),
        ({"max_retry_delay": 60}, 1, 300),  # Airflow bounds exponential delays only
        ({"retry_delay": timedelta(days=2)}, 1, 2 * 86_400),
        ({"retry_exponential_backoff": DOUBLED}, 3, 2400),
        ({"retry_exponential_backoff": DOUBLED, "max_retry_delay": timedelta(minutes=1)}, 3, 60),
        ({"retry_exponential_backoff": DOUBLED, "max_retry_delay": 60}, 3, 60),
        ({"retry_exponential_backoff": DOUBLED}, 50, 86_400),
        ({"retry_exponential_backoff": DOUBLED}, 5000, 86_400),
    ],
)
def test_where_retries_are_left_a_cluster_waits_for_the_next(arguments, try_number, delay):
    operator = dask(deferrable=False, **arguments)
    assert operator.lease(ti(try_number=try_number, max_tries=9999)) == delay + RETRY_SLACK


def test_a_cluster_heeds_airflows_own_setting_of_the_longest_delay(monkeypatch):
    monkeypatch.setenv("AIRFLOW__CORE__MAX_TASK_RETRY_DELAY", "90000")
    operator = dask(deferrable=False, retry_exponential_backoff=DOUBLED)
    assert operator.lease(ti(try_number=50, max_tries=9999)) == 90_000 + RETRY_SLACK


@pytest.mark.parametrize("multiplier", BACKOFFS)
@pytest.mark.parametrize("more", [{}, {"max_retry_delay": 60}, {"retry_delay": timedelta(days=2)}])
def test_a_cluster_waits_longer_than_airflow_lets_the_next_try_wait(multiplier, more):
    operator = dask(deferrable=False, retry_exponential_backoff=multiplier, **{"retry_delay": 3600.0} | more)
    for try_number in (1, 2, 5):
        for date in range(20):  # Airflow adds up to as much again, by a hash
            failed = SimpleNamespace(
                dag_id="sales",
                task_id="t",
                logical_date=date,
                try_number=try_number,
                task=operator,
                retry_delay_override=None,
                end_date=datetime(2013, 1, 5),
            )
            waits = (TaskInstance.next_retry_datetime(failed) - failed.end_date).total_seconds()
            assert operator.lease(ti(try_number=try_number, max_tries=9)) >= waits + RETRY_SLACK


@pytest.mark.parametrize("max_tries", [0, 3])
def test_a_deferred_tasks_cluster_lives_until_its_timeout(max_tries):
    assert dask(deferrable=True).lease(ti(max_tries=max_tries)) is None


# ---- the trigger


@pytest.fixture
def trigger() -> PracticusJobTrigger:
    return PracticusJobTrigger("there", {"name": "c-1", "uid": "u"}, Policy(1.5, ("driver",)).to_json(), True, False)


def test_a_trigger_is_the_same_after_its_way_through_airflow(trigger):
    path, arguments = trigger.serialize()
    assert path == "practicus_provider.triggers.job.PracticusJobTrigger"
    read = deserialize(json.loads(json.dumps(serialize(arguments))))
    assert PracticusJobTrigger(**read).serialize() == (path, arguments)
    assert Policy.from_json(read["policy"]) == Policy(1.5, ("driver",))


GOOD = Outcome(Verdict(State.SUCCEEDED, Reason.COMPLETED, "done"), '{"rows": 3}')
NOTHING = Outcome(Verdict(State.SUCCEEDED, Reason.COMPLETED, "done"))
BAD = Outcome(Verdict(State.FAILED, Reason.ERROR, "driver-0 exited with code 1", log_tail=("x",)))


@pytest.mark.parametrize("outcome", [GOOD, NOTHING])
def test_a_trigger_that_ends_the_task_lets_it_succeed_where_the_job_did(outcome):
    assert event_of(outcome, ends_task=True) == TaskSuccessEvent()


def test_a_trigger_that_ends_the_task_fails_it_where_the_job_failed():
    assert isinstance(event_of(BAD, ends_task=True), TaskFailedEvent)


@pytest.mark.parametrize("outcome", [GOOD, NOTHING])
def test_a_task_that_resumes_has_the_result_that_the_trigger_saw(outcome):
    payload = json.loads(json.dumps(event_of(outcome, ends_task=False).payload))
    assert dask().execute_complete({}, payload) == outcome.value()
    assert PracticusJobSensor(task_id="s", job=CLUSTER).execute_complete({}, payload) == outcome.value()


def test_a_task_that_resumes_fails_with_the_verdict_that_the_trigger_saw():
    with pytest.raises(JobFailed) as error:
        dask().execute_complete({}, json.loads(json.dumps(event_of(BAD, ends_task=False).payload)))
    assert error.value.verdict == BAD.verdict


def told(context: Any, result: Any = None) -> None:
    """A callback, or a hook."""


class Ending(PracticusDaskOperator):
    """A user's own, which does something after the job."""

    def post_execute(self, context: Any, result: Any = None) -> None:
        pass


DEFERRED: dict[str, Callable[..., BaseOperator]] = {
    "operator": lambda **more: dask(**more),
    "shared": lambda **more: PracticusSubmitJobOperator(task_id="s", cluster=CLUSTER, application=JOB, **more),
    "sensor": lambda **more: PracticusJobSensor(task_id="w", job=CLUSTER, **more),
}


@pytest.mark.parametrize("make", DEFERRED.values(), ids=DEFERRED)
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"retries": 0, "on_execute_callback": told},
        {"pre_execute": told},
        {"on_skipped_callback": told},
        {"on_failure_callback": []},
        {"email": "ops@example.com", "email_on_failure": False, "email_on_retry": False},
    ],
    ids=lambda more: " ".join(more) or "plain",
)
@pytest.mark.filterwarnings("ignore:Setting email")
def test_the_trigger_ends_a_task_of_whose_end_nobody_is_told(make, more):
    with DAG("sales"):
        assert trigger_may_end_task(make(**more))


@pytest.mark.parametrize("make", DEFERRED.values(), ids=DEFERRED)
@pytest.mark.parametrize(
    "more",
    [
        {"on_success_callback": told},
        {"on_failure_callback": told},
        {"on_failure_callback": [told, told]},
        {"on_retry_callback": told},
        {"post_execute": told},
        {"email": "ops@example.com"},
        {"email": ["ops@example.com"], "email_on_failure": False},
        {"email": ["ops@example.com"], "email_on_retry": False},
    ],
    ids=" ".join,
)
@pytest.mark.filterwarnings("ignore:Setting email")
def test_the_trigger_does_not_end_a_task_of_whose_end_somebody_is_told(make, more):
    with DAG("sales"):
        assert not trigger_may_end_task(make(**more))


@pytest.mark.parametrize(
    ("airflow", "ends"), [("3.1.8", False), ("3.2.2", False), ("3.3.0", False), ("3.3.1", True), ("3.4.0", True)]
)
def test_the_trigger_ends_a_task_that_may_be_tried_again_where_airflow_then_does_so(monkeypatch, airflow, ends):
    monkeypatch.setattr(compat, "AIRFLOW", airflow)
    with DAG("sales"):
        assert trigger_may_end_task(dask(retries=2)) is ends
        assert trigger_may_end_task(dask(task_id="once", retries=0))


def test_the_trigger_does_not_end_a_task_whose_index_has_a_name_that_airflow_would_not_keep(monkeypatch):
    monkeypatch.setattr(comms, "SetRenderedMapIndex", None, raising=False)
    with DAG("sales"):
        assert trigger_may_end_task(dask(map_index_template="{{ day }}"))
    monkeypatch.delattr(comms, "SetRenderedMapIndex")
    with DAG("sales"):
        assert not trigger_may_end_task(dask(map_index_template="{{ day }}"))
        assert trigger_may_end_task(dask(task_id="plain"))


def test_the_trigger_does_not_end_a_task_whose_dag_gives_all_its_tasks_a_callback():
    with DAG("sales", default_args={"on_failure_callback": told}):
        assert not trigger_may_end_task(dask())


def test_the_trigger_does_not_end_a_task_that_does_something_after_the_job():
    with DAG("sales"):
        own, patched = Ending(task_id="own", application=JOB), dask()
        patched.post_execute = told
    assert not trigger_may_end_task(own)
    assert not trigger_may_end_task(patched)


def test_the_trigger_does_not_end_a_task_whose_success_is_an_asset_event():
    with DAG("sales"):
        assert not trigger_may_end_task(dask(outlets=[Asset("rates")]))


def test_the_trigger_does_not_end_a_task_that_others_are_mapped_over():
    @task
    def use(item):
        pass

    with DAG("sales"):
        operator = dask()
        use.expand(item=operator.output)
    assert not trigger_may_end_task(operator)


def test_the_trigger_does_not_end_a_task_with_several_outputs():
    with DAG("sales"):
        assert not trigger_may_end_task(dask(multiple_outputs=True))


@pytest.mark.skipif(not compat.HAS_RETRY_POLICIES, reason="this Airflow has no retry policies")
def test_the_trigger_does_not_end_a_task_that_decides_by_its_error_whether_to_retry():
    class Never(compat.RetryPolicy):
        def evaluate(self, *args, **kwargs):
            raise NotImplementedError

    with DAG("sales"):
        assert not trigger_may_end_task(dask(retry_policy=Never()))


def test_the_trigger_does_not_end_a_task_that_somebody_listens_to():
    manager, listener = get_listener_manager(), types.ModuleType("listener")
    listener.on_task_instance_success = hookimpl(lambda previous_state, task_instance: None)
    manager.add_listener(listener)
    try:
        with DAG("sales"):
            assert not trigger_may_end_task(dask())
    finally:
        manager.clear()


def test_the_trigger_does_not_end_a_task_of_a_dag_that_is_tested(monkeypatch):
    comms = InProcessSupervisorComms.__new__(InProcessSupervisorComms)
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
    with DAG("sales"):
        assert not trigger_may_end_task(dask())


# ---- lineage


def traced() -> Any:
    """The context of a task instance, as OpenLineage's provider looks at it."""
    one = {"dag_id": "sales", "task_id": "etl", "map_index": -1, "try_number": 1}
    run = SimpleNamespace(run_after=datetime(2013, 1, 5, tzinfo=UTC), logical_date=None, clear_number=0, conf={})
    ti = SimpleNamespace(**one, dag_run=run, get_template_context=lambda: {"dag_run": run})
    return {"ti": ti}


def test_spark_is_not_told_of_its_task_unless_airflow_is_told_to():
    spec = JobSpec.of(adapter="spark", conf={"spark.a": "b"})
    assert with_lineage(spec, traced()) == spec


def test_spark_s_lineage_is_told_of_its_task_where_airflow_is_told_to(monkeypatch):
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__SPARK_INJECT_PARENT_JOB_INFO", "true")
    told = with_lineage(JobSpec.of(adapter="spark", conf={"spark.a": "b"}), traced()).settings
    assert told["spark.a"] == "b"
    assert told["spark.openlineage.parentJobName"] == "sales.etl"
    assert told["spark.openlineage.rootParentJobName"] == "sales"
    assert {"spark.openlineage.parentRunId", "spark.openlineage.parentJobNamespace"} <= told.keys()
    assert make_plan(JobSpec.of(adapter="spark", conf=told), ("x",), pods=True).decides == "driver"


@pytest.mark.parametrize(
    "spec",
    [JobSpec.of(adapter="dask"), JobSpec(adapter="spark", conf={"spark.openlineage.parentRunId": "mine"})],
    ids=["another framework", "told by the user"],
)
def test_nobody_else_is_told_anything(monkeypatch, spec):
    monkeypatch.setenv("AIRFLOW__OPENLINEAGE__SPARK_INJECT_PARENT_JOB_INFO", "true")
    assert with_lineage(spec, traced()) == spec
