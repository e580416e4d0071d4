from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.api_fastapi.core_api.datamodels.connections import ConnectionResponse
from airflow.providers_manager import ProvidersManager

import practicus_provider
from practicus_provider.errors import PracticusError
from practicus_provider.get_provider_info import get_provider_info
from tests.docs import REPO

PACKAGE = Path(practicus_provider.__file__).parent
INFO = get_provider_info()
MODULES = [
    module
    for kind in ("operators", "sensors", "hooks", "triggers")
    for group in INFO[kind]
    for module in group["python-modules"]
]
CLASSES = [*INFO["extra-links"], *(connection["hook-class-name"] for connection in INFO["connection-types"])]

PUBLIC = [
    "practicus_provider.adapters.Adapter",
    "practicus_provider.adapters.elastic.ElasticAdapter",
    "practicus_provider.adapters.spmd.SpmdAdapter",
    "practicus_provider.decorators.practicus.practicus_task",
    "practicus_provider.hooks.practicus.PracticusHook",
    "practicus_provider.operators.cluster.PracticusCreateClusterOperator",
    "practicus_provider.operators.cluster.PracticusDeleteClusterOperator",
    "practicus_provider.operators.cluster.PracticusSubmitJobOperator",
    "practicus_provider.operators.cluster.practicus_cluster",
    "practicus_provider.operators.dask.PracticusDaskOperator",
    "practicus_provider.operators.deepspeed.PracticusDeepSpeedOperator",
    "practicus_provider.operators.fairscale.PracticusFairScaleOperator",
    "practicus_provider.operators.horovod.PracticusHorovodOperator",
    "practicus_provider.operators.job.PracticusRunJobOperator",
    "practicus_provider.operators.retry_policy.VerdictRetryPolicy",
    "practicus_provider.operators.spark.PracticusSparkOperator",
    "practicus_provider.operators.torch.PracticusTorchOperator",
    "practicus_provider.plan.Launch",
    "practicus_provider.plan.Plan",
    "practicus_provider.plan.Role",
    "practicus_provider.sensors.job.PracticusJobSensor",
    "practicus_provider.spec.Elastic",
    "practicus_provider.spec.JobSpec",
    "practicus_provider.spec.Resources",
    "practicus_provider.spec.Volume",
    "practicus_provider.spec.WorkerGroup",
    "practicus_provider.status.State",
    "practicus_provider.status.Verdict",
    "practicus_provider.triggers.job.PracticusJobTrigger",
]


def get(dotted_path: str) -> object:
    module, _, name = dotted_path.rpartition(".")
    return getattr(import_module(module), name)


def schema(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((files("airflow") / name).read_text())
    return found


def test_the_provider_info_is_valid_against_airflows_schema():
    jsonschema.validate(INFO, schema("provider_info.schema.json"))


def test_the_connection_and_its_form_are_valid_against_airflows_schema():
    connections = schema("provider.yaml.schema.json")["properties"]["connection-types"]
    jsonschema.validate(INFO["connection-types"], connections)


@pytest.mark.parametrize("part", ["integrations", "operators", "sensors", "hooks", "triggers", "versions", "lifecycle"])
def test_what_registries_of_providers_show_is_valid_against_airflows_schema(part):
    known = schema("provider.yaml.schema.json")["properties"]
    jsonschema.validate(INFO[part], known.get(part, {}))  # an older Airflow does not know each of them


def test_every_module_belongs_to_an_integration_whose_pages_are_there():
    integrations = {integration["integration-name"]: integration for integration in INFO["integrations"]}
    groups = [group for kind in ("operators", "sensors", "hooks", "triggers") for group in INFO[kind]]
    assert {group["integration-name"] for group in groups} == set(integrations)
    start = f"/docs/{INFO['package-name']}/"
    pages = [page for integration in integrations.values() for page in integration["how-to-guide"]]
    assert [page for page in pages if not (REPO / "docs" / page.removeprefix(start)).is_file()] == []


def test_the_version_that_registries_show_is_that_of_what_is_installed():
    assert INFO["versions"] == [practicus_provider.__version__] == [distribution(INFO["package-name"]).version]


@pytest.mark.skipif(
    "conn-fields" not in json.dumps(schema("provider.yaml.schema.json")),
    reason="this Airflow takes no form from a provider's info",
)
def test_airflow_shows_the_connections_form_without_importing_the_hook():
    manager = ProvidersManager()
    manager.initialize_providers_hooks()
    widgets = manager.connection_form_widgets
    assert {widget.field_name for key, widget in widgets.items() if key.startswith("extra__practicus__")} == {
        "backend",
        "namespace",
        "image",
        "images",
        "pod_overrides",
        "run_as_uid",
        "image_pull_policy",
        "egress",
        "secrets",
        "scheduler_name",
        "priority_class",
        "pricing",
        "kubeconfig",
        "kubeconfig_secret",
        "context",
        "in_cluster",
        "kubernetes_conn_id",
        "spark_history",
        "root",
        "python",
        "pythons",
        "ttl",
        "log_limit",
    }
    assert "password" in manager.field_behaviours["practicus"]["hidden_fields"]


def test_a_kubeconfigs_content_has_a_field_that_airflow_masks_wherever_it_shows_connections():
    (form,) = (found["conn-fields"] for found in INFO["connection-types"])
    assert form["kubeconfig_secret"]["schema"]["format"] == "password"
    given = {"connection_id": "there", "conn_type": "practicus", "extra": '{"kubeconfig_secret": "apiVersion: v1"}'}
    shown = ConnectionResponse.model_validate({name: None for name in ConnectionResponse.model_fields} | given)
    assert json.loads(shown.extra or "") == {"kubeconfig_secret": "***"}


def test_the_api_server_trusts_no_kubeconfig_unless_the_deployment_says_so():
    (option,) = INFO["config"]["practicus"]["options"].items()
    assert (option[0], option[1]["default"]) == ("trust_kubeconfigs", "False")


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_the_provider_info_names_can_be_imported(module):
    import_module(module)


@pytest.mark.parametrize("path", CLASSES)
def test_every_class_that_the_provider_info_names_is_there(path):
    assert isinstance(get(path), type)


def test_the_provider_info_names_every_operator_sensor_hook_and_trigger_module():
    there = {
        f"practicus_provider.{path.parent.name}.{path.stem}"
        for kind in ("operators", "sensors", "hooks", "triggers")
        for path in (PACKAGE / kind).glob("[!_]*.py")
        if path.stem not in ("arguments", "base", "retry_policy")
    }
    assert set(MODULES) == there


def test_airflow_finds_the_provider_and_the_plugin_by_their_entry_points():
    (provider,) = distribution(INFO["package-name"]).entry_points.select(group="apache_airflow_provider")
    assert provider.load() is get_provider_info
    (plugin,) = distribution(INFO["package-name"]).entry_points.select(group="airflow.plugins")
    assert plugin.load().name == "practicus"


@pytest.mark.parametrize("path", PUBLIC)
def test_a_public_name_stays_where_it_is(path):
    assert get(path).__name__ == path.rpartition(".")[2]


@pytest.mark.parametrize("path", sorted((PACKAGE / "adapters").glob("[!_]*.py")), ids=lambda path: path.stem)
def test_an_adapter_stays_under_150_lines(path):
    assert len(path.read_text().splitlines()) < 150


HEAVY = (
    *("dask", "deepspeed", "distributed", "fairscale", "horovod", "kubernetes", "kubernetes_asyncio", "pandas"),
    *("pyspark", "torch"),
)


def test_what_a_dag_file_imports_brings_no_client_and_no_framework():
    modules = [name for name in MODULES if ".triggers." not in name]
    code = f"import sys, {', '.join(modules)}; sys.exit(' '.join({set(HEAVY)} & sys.modules.keys()) or 0)"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_task_without_a_dashboard_has_an_empty_link(monkeypatch):
    links = import_module("practicus_provider.links")
    monkeypatch.setattr(links.XCom, "get_value", lambda *, ti_key, key: {"dashboard": ti_key}[key])
    link = links.PracticusDashboardLink()
    assert link.get_link(None, ti_key="http://localhost:8787") == "http://localhost:8787"
    assert link.get_link(None, ti_key=None) == ""


class Asked(Exception):
    """Airflow was asked for an XCom, which logs an error where there is none."""


@pytest.mark.parametrize("known", [{}, {"dashboard": "/there", "cluster_logs": "/logs"}], ids=["none", "some"])
def test_airflow_is_not_asked_for_the_links_of_a_task_that_launches_its_cluster_or_could_not(monkeypatch, known):
    links, operators = import_module("practicus_provider.links"), import_module("practicus_provider.operators.dask")

    def get_value(*, ti_key: Any, key: str) -> Any:
        raise Asked

    monkeypatch.setattr(links.XCom, "get_value", get_value)
    operator = operators.PracticusDaskOperator(task_id="t", application="local:///job.py")
    if known:
        operator.known_links = known
    found = {link.key: link.get_link(operator, ti_key=None) for link in operator.operator_extra_links}
    assert found == {"dashboard": "", "cluster_page": "", "cluster_logs": ""} | known
    with pytest.raises(PracticusError):
        operator.resume_execution("execute_complete", {"event": BAD}, {})
    with pytest.raises(Asked):  # another process has pushed them
        operator.operator_extra_links[0].get_link(operator, ti_key=None)


BAD = {"verdict": {"state": "failed", "reason": "Error", "message": "exited", "log_tail": []}}
"""An outcome that a task resumes with."""


def test_the_plugin_costs_other_processes_than_the_api_server_nothing():
    served = {"practicus_provider.plugins.clusters", "practicus_provider.plugins.dashboards"}
    code = f"import sys, practicus_provider.plugins; sys.exit(' '.join({served} & sys.modules.keys()) or 0)"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code]).returncode == 0
