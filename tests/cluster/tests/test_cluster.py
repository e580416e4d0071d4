"""The cluster does what other tests rely on; with ``PRACTICUS_TEST_KUBECONFIG``, a user's own cluster does."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster.fixture import Kubectl

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
SLEEP = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit()); signal.pause()"
ASK = """
import os, socket, ssl, urllib.request
print(os.getuid(), socket.gethostbyname("kubernetes.default") == os.environ["KUBERNETES_SERVICE_HOST"])
unverified = ssl._create_unverified_context()
print(urllib.request.urlopen("https://kubernetes.default.svc/readyz", context=unverified).read().decode())
"""


@pytest.fixture
def namespace(kubectl: Kubectl) -> Iterator[str]:
    """A namespace in which only restricted pods may run."""
    name = f"practicus-test-{uuid.uuid4().hex[:8]}"
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    create(kubectl, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    kubectl("--namespace", name, "wait", "--for=create", "serviceaccount/default", "--timeout=30s")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def create(kubectl: Kubectl, *objects: dict[str, Any]) -> None:
    for each in objects:
        kubectl("create", "--filename=-", stdin=json.dumps(each))


def pod(image: str, code: str, **spec: Any) -> dict[str, Any]:
    """The spec of a pod that runs ``code`` in Python."""
    container = {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", code],
        "securityContext": RESTRICTED,
    }
    return {"restartPolicy": "Never", "containers": [container], **spec}


def job(name: str, namespace: str, template: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backoffLimit": 0, **spec, "template": {"metadata": {"labels": {"app": name}}, "spec": template}},
    }


def test_a_job_completes_and_its_pods_find_the_api_server_by_name(
    kubectl: Kubectl, namespace: str, image: Callable[[str], str]
) -> None:
    create(kubectl, job("ask", namespace, pod(image("python"), ASK), completions=2, parallelism=2))
    kubectl("--namespace", namespace, "wait", "--for=condition=Complete", "job/ask", "--timeout=60s")
    printed = kubectl("--namespace", namespace, "logs", "--selector=app=ask", "--tail=-1")
    assert printed == "1000 True\nok\n" * 2


def test_a_command_runs_in_a_container(kubectl: Kubectl, namespace: str, image: Callable[[str], str]) -> None:
    create(kubectl, job("sleep", namespace, pod(image("python"), SLEEP)))
    kubectl("--namespace", namespace, "wait", "--for=jsonpath={.status.ready}=1", "job/sleep", "--timeout=60s")
    printed = kubectl("--namespace", namespace, "exec", "job/sleep", "--", "python3", "-c", "print(6 * 7)")
    assert printed == "42\n"


def test_pod_security_is_enforced(kubectl: Kubectl, namespace: str, image: Callable[[str], str]) -> None:
    root = pod(image("python"), "")
    root["containers"][0]["securityContext"] = {"privileged": True}
    with pytest.raises(subprocess.CalledProcessError) as refused:
        create(
            kubectl,
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "root", "namespace": namespace}, "spec": root},
        )
    assert 'violates PodSecurity "restricted:latest": privileged' in refused.value.stderr
