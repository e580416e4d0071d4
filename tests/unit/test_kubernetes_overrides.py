"""A user's changes to pods. That the rules are Kubernetes' own is tested beside a real kubectl."""

from __future__ import annotations

import json
from typing import Any

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.overrides import merged
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.render import render
from practicus_provider.errors import SpecError
from practicus_provider.spec import Elastic, JobSpec
from tests.plans import TASK, plan, role

TEMPLATE = {
    "metadata": {"labels": {"a": "1"}},
    "spec": {
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "main",
                "image": "i",
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
            }
        ],
        "tolerations": [{"key": "k", "operator": "Exists"}],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
    },
}
CHANGES: dict[str, Manifest] = {
    "a map is merged": {"metadata": {"labels": {"b": "2"}, "annotations": {"c": "3"}}},
    "null removes a key": {"spec": {"restartPolicy": None}},
    "an item of a known list is merged by its key": {
        "spec": {"containers": [{"name": "main", "env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}]}]}
    },
    "a further container and volume are added": {
        "spec": {
            "containers": [{"name": "side", "image": "s"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "d"}}],
        }
    },
    "mounts are merged by their path": {
        "spec": {"containers": [{"name": "main", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}
    },
    "another list is replaced": {"spec": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}},
    "an item is deleted by a directive": {"spec": {"volumes": [{"name": "scratch", "$patch": "delete"}]}},
    "a map is replaced by a directive": {"metadata": {"labels": {"$patch": "replace", "z": "26"}}},
    "a new map that has lists": {
        "spec": {"affinity": {"nodeAffinity": {"x": [{"weight": 1}]}}, "nodeSelector": {"disk": "ssd"}}
    },
}
JOB = plan(role("driver", "pass"))


def by_key(value: Any) -> Any:
    """Lists of named items as sets: kubectl sorts them otherwise than we do, and Kubernetes does not care."""
    if isinstance(value, dict):
        return {key: by_key(item) for key, item in value.items()}
    if isinstance(value, list):
        return sorted((by_key(item) for item in value), key=json.dumps)
    return value


def changed(overrides: dict[str, Any]) -> Manifest:
    return merged(TEMPLATE, overrides, lambda _: None)


def test_changes_are_merged_as_kubernetes_does():
    result = changed(CHANGES["an item of a known list is merged by its key"])
    expected = [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}]
    assert result["spec"]["containers"][0]["env"] == expected
    assert result["spec"]["containers"][0]["image"] == "i"
    assert changed(CHANGES["null removes a key"])["spec"].keys() == TEMPLATE["spec"].keys() - {"restartPolicy"}
    assert changed(CHANGES["another list is replaced"])["spec"]["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert changed(CHANGES["an item is deleted by a directive"])["spec"]["volumes"] == []
    assert changed(CHANGES["a map is replaced by a directive"])["metadata"] == {"labels": {"z": "26"}}


def test_no_changes_are_none():
    assert changed({}) is TEMPLATE


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"spec": {"volumes": [{"emptyDir": {}}]}}, "pod_overrides.spec.volumes[0]={'emptyDir': {}}: each item needs"),
        ({"spec": {"$patch": "delete"}}, "pod_overrides.spec.$patch='delete': give 'replace', or 'delete' in an item"),
        (
            {"spec": {"$setElementOrder/x": []}},
            "pod_overrides.spec='$setElementOrder/x': of the directives only $patch",
        ),
    ],
)
def test_what_is_no_strategic_merge_is_refused_with_its_place(overrides, said):
    with pytest.raises(SpecError) as error:
        changed(overrides)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize(
    "overrides",
    [
        {"metadata": {"labels": {"practicus.ai/cluster": "other"}}},
        {"spec": {"restartPolicy": "Always"}},
        {"spec": {"hostname": "h"}},
        {"spec": {"containers": [{"name": "main", "command": ["sh"]}]}},
        {"spec": {"containers": [{"name": "main", "$patch": "delete"}]}},
        {"spec": {"containers": [{"name": "main", "env": [{"name": "PRACTICUS_INDEX", "value": "7"}]}]}},
        {"spec": {"volumes": [{"name": "bundle", "configMap": {"name": "other"}}]}},
        {"spec": {"containers": [{"name": "main", "volumeMounts": [{"mountPath": "/practicus/bundle", "name": "x"}]}]}},
    ],
)
def test_what_makes_a_replica_may_not_be_changed(overrides):
    job = plan(role("driver", "pass"), pod_overrides=overrides)
    with pytest.raises(SpecError, match=r"^pod_overrides=.*they may not change what makes a replica"):
        render("c-job", job, Site("jobs", "python:3"), TASK, lease=None, parent=None)


@pytest.mark.parametrize(
    ("given", "site", "image"),
    [
        ("own:1", Site("jobs", "any:1", {}, {"test": "adapter:1"}), "own:1"),
        (None, Site("jobs", "any:1", {}, {"test": "adapter:1"}), "adapter:1"),
        (None, Site("jobs", "any:1", {}, {"other": "adapter:1"}), "any:1"),
    ],
)
def test_the_image_is_the_jobs_then_its_adapters_then_the_connections(given, site, image):
    root = render("c-job", plan(role("driver", "pass"), image=given), site, TASK, lease=None, parent=None).root
    assert root["spec"]["template"]["spec"]["containers"][0]["image"] == image


def test_the_jobs_changes_come_after_the_connections_and_both_reach_every_pod():
    spec = JobSpec.of(
        adapter="dask",
        workers=Elastic(1, 2),
        image="dask:2",
        pod_overrides={"spec": {"nodeSelector": {"disk": "ssd"}, "priorityClassName": "high"}},
    )
    site = Site("jobs", None, {"spec": {"nodeSelector": {"disk": "hdd", "zone": "a"}}})
    found = render("c-job", make_plan(spec, ("x",), pods=True), site, TASK, lease=None, parent=None)
    specs = [found.root["spec"]["template"]["spec"]]
    for manifest in found.others:
        match manifest["kind"]:
            case "Job":
                specs.append(manifest["spec"]["template"]["spec"])
            case "Pod":
                specs.append(manifest["spec"])
            case "ConfigMap":
                specs.append(json.loads(manifest["data"]["pod-worker.json"])["spec"])
    assert len(specs) == 4
    for pod in specs:
        assert (pod["nodeSelector"], pod["priorityClassName"]) == ({"disk": "ssd", "zone": "a"}, "high")
