"""A user's changes to pods, beside a real kubectl and a real API server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.errors import BackendError
from practicus_provider.status import State
from tests.kubernetes import Namespace, plain
from tests.plans import TASK, created, end, plan, role
from tests.unit.test_kubernetes_overrides import CHANGES, TEMPLATE, by_key, changed

pytestmark = pytest.mark.cluster


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_merged_as_kubectl_does(name: str, kubectl: Callable[..., str], tmp_path: Path) -> None:
    pod = tmp_path / "pod.json"
    pod.write_text(json.dumps({"apiVersion": "v1", "kind": "Pod", **TEMPLATE}))
    patch = ("--type", "strategic", "--patch", json.dumps(CHANGES[name]))
    found = json.loads(kubectl("patch", "--local", "-f", str(pod), *patch, "-o", "json"))
    ours = changed(CHANGES[name])
    assert by_key(without_defaults({part: found[part] for part in ours})) == by_key(without_defaults(ours))


def without_defaults(value: Any) -> Any:
    """Without what kubectl writes although it is empty, and what is empty and it does not write."""
    if isinstance(value, dict):
        kept = {key: without_defaults(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if item not in ({}, [], None)}
    return [without_defaults(item) for item in value] if isinstance(value, list) else value


@pytest.fixture
def backend(namespace: Namespace, image: Callable[[str], str]) -> KubernetesBackend:
    return plain(namespace, image("python"))


async def test_what_is_changed_is_there_in_the_pod(backend: KubernetesBackend) -> None:
    overrides = {
        "metadata": {"annotations": {"team": "sales"}},
        "spec": {
            "containers": [{"name": "main", "volumeMounts": [{"name": "info", "mountPath": "/info"}]}],
            "volumes": [
                {
                    "name": "info",
                    "downwardAPI": {
                        "items": [{"path": "team", "fieldRef": {"fieldPath": "metadata.annotations['team']"}}]
                    },
                }
            ],
        },
    }
    code = "import practicus_runtime as p; p.set_result(open('/info/team').read())"
    async with created(backend, "job", plan(role("driver", code), pod_overrides=overrides)) as handle:
        status = await end(backend, handle)
    assert (status.state, status.result) == (State.SUCCEEDED, '"sales"')


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"nodeSelectro": {"disk": "ssd"}}, 'unknown field "spec.template.spec.nodeSelectro"'),
        ({"containers": [{"name": "main", "resources": {"limits": {"cpu": "x"}}}]}, "quantities must match"),
        ({"containers": [{"name": "main", "ports": [{"containerPort": 99999}]}]}, "must be between 1 and 65535"),
    ],
)
async def test_what_kubernetes_refuses_is_said_and_nothing_is_left(
    backend: KubernetesBackend, spec: dict[str, Any], said: str
) -> None:
    with pytest.raises(BackendError, match=said):
        await backend.create("job", plan(role("driver", "pass"), pod_overrides={"spec": spec}), task=TASK)
    assert await backend.list() == []
