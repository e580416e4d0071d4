"""What a cluster takes of a namespace's quotas."""

from __future__ import annotations

from decimal import Decimal

import pytest

from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.quota import exceeded, largest, needed_of_quota, quantity
from practicus_provider.backends.kubernetes.render import render
from practicus_provider.plan import Role
from practicus_provider.spec import Resources
from tests.plans import TASK, plan, role


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("0m", 0), ("2", 2), ("500m", Decimal("0.5")), ("1Ki", 1024)])
def test_a_quotas_quantity_may_be_none(text, number):
    assert quantity(text) == number


def test_the_largest_node_is_the_most_of_each_resource_that_any_has():
    nodes = [
        {"status": {"allocatable": {"cpu": "7910m", "memory": "32409000Ki", "pods": "110", "vendor.com/gpu": "0"}}},
        {"status": {"allocatable": {"cpu": "16", "memory": "16Gi", "ephemeral-storage": "101430960Ki"}}},
        {"status": {}},
    ]
    assert largest(nodes) == {
        "cpu": "16",
        "memory": "30.9Gi",
        "pods": "110",
        "vendor.com/gpu": "0",
        "ephemeral-storage": "96.7Gi",
    }


def test_a_cluster_takes_what_its_objects_and_the_pods_of_its_jobs_do():
    workers = Role("worker", role("worker", "").launch, 3, Resources(cpu="500m", memory="1Gi"))
    manifests = render("c", plan(workers, role("driver", "")), Site("jobs", "i"), TASK, lease=None, parent=None)
    gib = 1 << 30
    assert needed_of_quota([manifests.root, *manifests.others]) == {
        "pods": 4,
        "count/pods": 4,
        "count/jobs.batch": 2,
        "configmaps": 1,
        "count/configmaps": 1,
        "services": 1,
        "count/services": 1,
        **dict.fromkeys(("cpu", "requests.cpu", "limits.cpu"), Decimal("2.5")),
        **dict.fromkeys(("memory", "requests.memory", "limits.memory"), 5 * gib),
    }


def test_a_quota_that_is_too_small_is_named_with_what_is_used_and_what_more_is_needed():
    workers = Role("worker", role("worker", "").launch, 3, Resources(cpu="500m", memory="1Gi"))
    manifests = render("c", plan(workers, role("driver", "")), Site("jobs", "i"), TASK, lease=None, parent=None)
    quotas = [
        {"metadata": {"name": "fresh"}, "status": {}},
        {
            "metadata": {"name": "team"},
            "status": {
                "hard": {"pods": "5", "requests.cpu": "4", "count/jobs.batch": "2", "persistentvolumeclaims": "0"},
                "used": {"pods": "2", "requests.cpu": "1500m"},
            },
        },
    ]
    assert exceeded(quotas, [manifests.root, *manifests.others]) == ["quota team: pods 4 more on 2 of 5"]
