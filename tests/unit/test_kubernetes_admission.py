"""What a token that starts pods may do. ``PRACTICUS_GOLDEN=write`` rewrites the golden file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from practicus_provider.adapters import make_plan
from practicus_provider.backends.kubernetes import admission
from practicus_provider.backends.kubernetes.admission import words_of
from practicus_provider.backends.kubernetes.labels import INDEX
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.render import render
from practicus_provider.plan import Here
from practicus_provider.spec import Elastic, JobSpec, Volume
from tests.plans import TASK

GOLDEN = Path(__file__).parent / "golden" / "admission.yaml"


def test_what_an_administrator_applies_is_the_golden_file():
    found = json.loads(
        json.dumps(
            [
                *admission.policy("jobs"),
                *admission.right_to_look("jobs", "airflow", "airflow-worker"),
                admission.default_deny("jobs"),
            ]
        )
    )
    if os.environ.get("PRACTICUS_GOLDEN") == "write":
        GOLDEN.write_text(yaml.safe_dump_all(found, sort_keys=False, width=116))
    assert found == list(yaml.safe_load_all(GOLDEN.read_text()))


def template(**spec: Any) -> dict[str, Any]:
    """Of the workers that are started inside a cluster."""
    job = JobSpec.of(adapter="dask", workers=Elastic(1, 2), image="i", **spec)
    plan = make_plan(job, (Here.PYTHON, (Here.APP, "/job.py")), {"job.py": b""}, pods=True)
    manifests = render("c-job", plan, Site("jobs"), TASK, lease=None, parent=None)
    (config,) = [manifest for manifest in manifests.others if manifest["kind"] == "ConfigMap"]
    found: dict[str, Any] = json.loads(config["data"]["pod-worker.json"])
    return found


OWN = [
    "label:app.kubernetes.io/managed-by=practicus",
    "label:practicus.ai/cluster=c-job",
    "label:practicus.ai/network=c-job",
    "label:practicus.ai/role=worker",
    "label:sidecar.istio.io/inject=false",
    f"key:{INDEX}",
    "grace:10",
]


def test_a_pod_says_its_labels_how_long_it_has_to_end_and_its_cluster_s_configmap():
    assert words_of(template(), ()).split(" ") == [*OWN, "configmap:c-job"]


def test_labels_that_a_framework_adds_are_keys_alone():
    assert words_of(template(), ("spark-role",)).split(" ") == [
        *OWN[:-1],
        "key:spark-role",
        "grace:10",
        "configmap:c-job",
    ]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"secrets": {"A": "store/token", "B": "store/key", "C": "other/key"}}, ["secret:other", "secret:store"]),
        ({"volumes": (Volume(path="/data", claim="data"),)}, ["claim:data"]),
        ({"volumes": (Volume(path="/data", nfs="10.0.0.5:/export"),)}, ["nfs:10.0.0.5:/export"]),
        ({"volumes": (Volume(path="/data", empty_dir="1Gi"),)}, []),
        ({"pod_overrides": {"spec": {"imagePullSecrets": [{"name": "registry"}]}}}, ["secret:registry"]),
        ({"pod_overrides": {"spec": {"volumes": [{"name": "s", "secret": {"secretName": "tls"}}]}}}, ["secret:tls"]),
        ({"pod_overrides": {"spec": {"volumes": [{"name": "c", "configMap": {"name": "conf"}}]}}}, ["configmap:conf"]),
        (
            {
                "pod_overrides": {
                    "spec": {
                        "containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "all"}}]}],
                        "initContainers": [
                            {
                                "name": "first",
                                "env": [
                                    {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "a"}}},
                                    {"name": "B", "value": "b"},
                                ],
                                "envFrom": [{"configMapRef": {"name": "more"}}],
                            }
                        ],
                    }
                }
            },
            ["configmap:conf", "configmap:more", "secret:all"],
        ),
        (
            {
                "pod_overrides": {
                    "spec": {
                        "volumes": [
                            {
                                "name": "p",
                                "projected": {
                                    "sources": [
                                        {"secret": {"name": "tls"}},
                                        {"configMap": {"name": "ca"}},
                                        {"downwardAPI": {}},
                                        {"serviceAccountToken": {"audience": "vault", "path": "token"}},
                                    ]
                                },
                            }
                        ]
                    }
                }
            },
            ["configmap:ca", "secret:tls", "token:vault"],
        ),
    ],
)
def test_a_pod_says_what_of_the_namespace_and_the_network_it_uses(spec, words):
    assert sorted(set(words_of(template(**spec), ()).split(" ")) - {*OWN}) == sorted([*words, "configmap:c-job"])


def test_of_a_volume_that_restricted_does_not_allow_a_pod_has_no_word():
    assert words_of(template(volumes=(Volume(path="/d", host_path="/d"),)), ()) == words_of(template(), ())


def test_a_grace_that_an_override_removes_is_kubernetes_own():
    override = {"spec": {"terminationGracePeriodSeconds": None}}
    assert "grace:30" in words_of(template(pod_overrides=override), ()).split(" ")
