"""What a cluster refuses, and images that do not fit: told with the way out, and nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from practicus_provider import lifecycle
from practicus_provider.adapters import make_plan
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.errors import BackendError, SpecError
from practicus_provider.lifecycle import Policy
from practicus_provider.plan import Here, Plan
from practicus_provider.spec import Elastic, JobSpec, Resources
from practicus_provider.status import Reason, State, Verdict
from tests.cluster.fixture import KUBECONFIG
from tests.cluster.images import PAUSE
from tests.kubernetes import Namespace, account
from tests.plans import PATIENCE, SLEEP, TASK, created, end, plan, role, until, verdict_of, with_pods
from tests.said import Said

pytestmark = pytest.mark.cluster

DRIVER = plan(role("driver", SLEEP))
SMALL = Resources(cpu="100m", memory="128Mi")


# ---- who we are, and what we may


@pytest.fixture
def someone(namespace: Namespace, kubectl: Callable[..., str]) -> Callable[..., Access]:
    """How a service account without rights reaches the cluster, by a token that ends with a secret."""
    kubectl("create", "serviceaccount", "someone", "-n", namespace.name)
    kubectl("create", "secret", "generic", "bound", "-n", namespace.name)
    bound = ("--bound-object-kind=Secret", "--bound-object-name=bound")
    someone = account(namespace, kubectl, "someone", *bound)

    def access(*rules: str) -> Access:
        for number, rule in enumerate(rules):
            verbs, resource = rule.split()
            name = f"someone-{number}"
            kubectl("create", "role", name, f"--verb={verbs}", f"--resource={resource}", "-n", namespace.name)
            whose = f"--serviceaccount={namespace.name}:someone"
            kubectl("create", "rolebinding", name, f"--role={name}", whose, "-n", namespace.name)
        return someone

    return access


async def test_a_token_that_is_over_is_told_as_such(
    backend: KubernetesBackend, namespace: Namespace, someone: Callable[..., Access], kubectl: Callable[..., str]
) -> None:
    expired = replace(backend, access=someone())
    kubectl("delete", "secret", "bound", "-n", namespace.name)
    with pytest.raises(BackendError, match=r"does not know who we are \(401: Unauthorized\); renew the connection's"):
        await expired.create("job", DRIVER, task=TASK)
    with pytest.raises(BackendError, match="does not know who we are"):
        await expired.check()


async def test_what_is_forbidden_is_told_with_the_rule_that_is_missing_and_nothing_is_left(
    backend: KubernetesBackend, someone: Callable[..., Access]
) -> None:
    access = someone(
        "get,list,watch,create,patch,delete jobs",
        *(f"create,patch {resource}" for resource in ("configmaps", "serviceaccounts", "services")),
    )
    limited = replace(backend, access=access)
    rule = '{"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": ["patch"]}'
    with pytest.raises(BackendError) as error:
        await limited.create("job", DRIVER, task=TASK)
    assert 'cannot patch resource "networkpolicies" in API group "networking.k8s.io"' in str(error.value)
    assert str(error.value).endswith(f"the namespaced Role of the documentation, or at least one with the rule {rule}")
    assert await backend.list() == []


# ---- what is not admitted


@pytest.fixture
def policy(namespace: Namespace, kubectl: Callable[..., str]) -> Iterator[Callable[[str], None]]:
    """Has the namespace refuse a resource, as a cluster's administrators do."""
    name = f"practicus-test-{namespace.name}"
    base: dict[str, Any] = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    selector = {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}}

    def refuse(group: str, version: str, resource: str) -> None:
        rule = {"apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": ["CREATE"]}
        validations = [{"expression": "'team' in object.metadata.annotations", "message": "name your team"}]
        spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": validations}
        binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector}}
        for kind, content in (("", spec), ("Binding", binding)):
            kubectl(
                "apply",
                "-f",
                "-",
                stdin=json.dumps({**base, "kind": f"ValidatingAdmissionPolicy{kind}", "spec": content}),
            )
        probe = {"apiVersion": f"{group}/{version}".lstrip("/"), "metadata": {"name": "probe"}, **PROBES[resource]}
        give_up = time.monotonic() + 20
        while kubectl_accepts(kubectl, namespace, probe):  # it takes a moment until it acts
            assert time.monotonic() < give_up

    yield refuse
    for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
        kubectl("delete", kind, name, "--ignore-not-found")


CONTAINER = {"name": "main", "image": "x"}
PROBES: dict[str, dict[str, Any]] = {
    "jobs": {"kind": "Job", "spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [CONTAINER]}}}},
    "pods": {
        "kind": "Pod",
        "spec": {
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    **CONTAINER,
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                }
            ],
        },
    },
}


def kubectl_accepts(kubectl: Callable[..., str], namespace: Namespace, manifest: dict[str, Any]) -> bool:
    import subprocess

    with contextlib.suppress(subprocess.CalledProcessError):
        kubectl("create", "--dry-run=server", "-n", namespace.name, "-f", "-", stdin=json.dumps(manifest))
        return True
    return False


async def test_a_job_that_a_policy_refuses_is_told_with_the_policys_words(
    backend: KubernetesBackend, policy: Callable[..., None]
) -> None:
    policy("batch", "v1", "jobs")
    with pytest.raises(BackendError, match=r"^Kubernetes does not admit it \(422\): .*denied request: name your team$"):
        await backend.create("job", DRIVER, task=TASK)
    assert await backend.list() == []


async def test_pods_that_a_policy_refuses_end_the_job_with_the_policys_words(
    backend: KubernetesBackend, policy: Callable[..., None]
) -> None:
    policy("", "v1", "pods")
    verdict = await verdict_of(backend, DRIVER)
    assert verdict.reason is Reason.CONFIG_ERROR
    assert verdict.message.startswith("cluster job may not have its pods: Error creating: pods ")
    assert verdict.message.endswith("denied request: name your team")
    elastic = role("worker", SLEEP, replicas=1, elastic=Elastic(1, 2))
    with pytest.raises(BackendError, match=r"^Kubernetes does not admit it \(422\): .*denied request: name your team$"):
        await backend.create("job", plan(elastic, role("driver", SLEEP)), task=TASK)
    assert await backend.list() == []


async def test_pods_that_are_not_secure_enough_end_the_job_with_what_is_not(backend: KubernetesBackend) -> None:
    verdict = await verdict_of(backend, with_pods(DRIVER, pod_overrides={"spec": {"hostNetwork": True}}))
    assert verdict.reason is Reason.CONFIG_ERROR
    assert 'violates PodSecurity "restricted:latest": host namespaces (hostNetwork=true)' in verdict.message


async def test_a_namespace_that_is_being_deleted_is_said(
    backend: KubernetesBackend, namespace: Namespace, kubectl: Callable[..., str]
) -> None:
    held = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "held", "finalizers": ["practicus.test/held"]},
    }
    kubectl("create", "-n", namespace.name, "-f", "-", stdin=json.dumps(held))
    async with created(backend, "job", DRIVER) as handle:
        await until(backend, handle, lambda status: status.state is State.RUNNING)
        watching = asyncio.create_task(end(backend, handle))
        namespace.core.delete_namespace(namespace.name)
        verdict = (await watching).verdict
    assert verdict is not None
    gone = (Reason.KILLED, "Its pod was deleted: by somebody, or with its namespace.")
    assert (verdict.reason, verdict.advice) in (gone, (Reason.DELETED, ""))  # whichever the server deletes first
    try:
        with pytest.raises(
            BackendError, match=f"^namespace '{namespace.name}' is being deleted: wait until it is gone"
        ):
            await backend.create("job", DRIVER, task=TASK)
    finally:
        patch = json.dumps({"metadata": {"finalizers": []}})
        kubectl("patch", "configmap", "held", "-n", namespace.name, "--type=merge", "-p", patch)


async def test_an_application_that_is_too_large_is_told_with_the_ways_out_and_nothing_is_made(
    backend: KubernetesBackend,
) -> None:
    large = replace(DRIVER, files={"data.bin": random.Random(0).randbytes(1 << 20)})
    ways = r"put the code in the image \(local:///path\), the data on a volume, or the file behind a URL"
    with pytest.raises(SpecError, match=rf"^application='\d+ bytes': .*{ways}"):
        await backend.create("job", large, task=TASK)
    assert await backend.list() == []


# ---- images


async def test_an_image_without_python_is_told_so(backend: KubernetesBackend) -> None:
    pause = "registry.k8s.io/pause:3.10" if os.environ.get(KUBECONFIG) else PAUSE
    verdict = await verdict_of(backend, with_pods(DRIVER, image=pause))
    assert (verdict.reason, verdict.replica) == (Reason.CONFIG_ERROR, "driver-0")
    assert verdict.message.startswith(f"driver-0 cannot start in image {pause}: ")
    assert 'exec: "python3": executable file not found in $PATH' in verdict.message
    assert verdict.advice == "An image needs python3 (3.8 or newer) on its PATH, and what the job imports."


async def verdict_of_spec(backend: KubernetesBackend, spec: JobSpec, code: str = SLEEP) -> Verdict:
    program = (Here.PYTHON, (Here.APP, "/job.py"))
    return await verdict_of(backend, make_plan(spec, program, {"job.py": code.encode()}, pods=True))


async def test_an_image_without_dask_is_told_so(backend: KubernetesBackend) -> None:
    spec = JobSpec.of(adapter="dask", workers=1, worker_resources=SMALL, coordinator_resources=SMALL)
    verdict = await verdict_of_spec(backend, spec)
    assert verdict.reason is Reason.REPLICA_LOST
    assert verdict.replica in ("coordinator-0", "worker-0")  # both lack it: the first to fail is named
    assert verdict.advice == (
        f"Image {backend.site.image} has no Python module 'distributed', which adapter 'dask' needs: give image= one "
        "that has it. images/dask/Dockerfile of airflow-provider-practicus makes one."
    )


async def test_an_image_without_torch_is_told_so(backend: KubernetesBackend) -> None:
    verdict = await verdict_of_spec(backend, JobSpec.of(adapter="torch", worker_resources=SMALL), "import torch.nn")
    assert (verdict.message, verdict.advice) == (
        "rank 0 (worker-0) exited with code 1",
        f"Image {backend.site.image} has no Python module 'torch', which adapter 'torch' needs: give image= one that "
        "has it. images/training/Dockerfile of airflow-provider-practicus makes one.",
    )


@pytest.mark.parametrize(
    ("env", "missing"),
    [
        ({}, "No module named 'pyspark', and no SPARK_HOME is set"),
        ({"SPARK_HOME": "/opt/spark"}, "Spark needs Java 17 or newer: there is none."),
    ],
    ids=["without Spark", "without Java"],
)
async def test_an_image_that_cannot_run_spark_is_told_with_what_is_missing(
    backend: KubernetesBackend, env: dict[str, str], missing: str
) -> None:
    small = Resources(cpu="100m", memory="1Gi")
    spec = JobSpec.of(adapter="spark", workers=1, env=env, worker_resources=small, coordinator_resources=small)
    verdict = await verdict_of_spec(backend, spec)
    assert (verdict.reason, verdict.replica) == (Reason.ERROR, "driver-0")
    assert missing in verdict.log_tail[-1]
    assert ("images/spark/Dockerfile" in verdict.advice) == ("SPARK_HOME" not in env)


# ---- what pods wait for


async def test_an_init_container_that_fails_is_named_with_its_last_lines(
    backend: KubernetesBackend, image: Callable[[str], str]
) -> None:
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    fetch = {
        "name": "fetch",
        "image": image("python"),
        "command": ["python3", "-c", "print('no such bucket'); raise SystemExit(3)"],
        "securityContext": security,
    }
    verdict = await verdict_of(backend, with_pods(DRIVER, pod_overrides={"spec": {"initContainers": [fetch]}}))
    assert (verdict.reason, verdict.replica, verdict.log_tail) == (Reason.INIT_FAILED, "driver-0", ("no such bucket",))
    assert verdict.message == "driver-0 cannot start: its init container fetch exited with 3"


@contextlib.asynccontextmanager
async def followed(backend: KubernetesBackend, job: Plan) -> AsyncIterator[list[str]]:
    """What the task's log says of a job that does not start."""
    said = Said()
    async with created(backend, "job", job) as handle:
        policy = Policy(time.time() + 60, ("driver",))
        following = asyncio.create_task(lifecycle.follow(backend, handle, policy, said))
        try:
            async with asyncio.timeout(2 * PATIENCE):
                yield said
        finally:
            following.cancel()
            await asyncio.wait((following,))


async def is_said(said: list[str], words: str) -> None:
    while not any(words in line for line in said):
        await asyncio.sleep(0.1)


def pending(said: list[str]) -> list[str]:
    return [line for line in said if line.startswith("pending: ")]


async def test_a_registry_that_does_not_answer_is_said_once_however_often_it_is_tried(
    backend: KubernetesBackend, namespace: Namespace
) -> None:
    seen = set()
    async with followed(backend, with_pods(DRIVER, image="127.0.0.1:9/nothing:1")) as said:
        while {"ErrImagePull", "ImagePullBackOff"} - seen:
            for pod in namespace.core.list_namespaced_pod(namespace.name).items:
                waiting = [status.state.waiting for status in pod.status.container_statuses or ()]
                seen.update(state.reason for state in waiting if state)
            await asyncio.sleep(0.1)
        await is_said(said, "connection refused")
    first, told = pending(said)
    assert first == "pending: driver 1 pending"
    assert told.startswith("pending: driver 1 pending (ErrImagePull: ")
    assert "connection refused" in told


async def test_a_reason_that_changes_is_said_again(
    backend: KubernetesBackend, namespace: Namespace, kubectl: Callable[..., str]
) -> None:
    """First there is no claim, then no volume for it."""
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    async with followed(backend, with_pods(DRIVER, pod_overrides={"spec": {"volumes": [volume]}})) as said:
        await is_said(said, 'persistentvolumeclaim "data" not found')
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "none",
            "resources": {"requests": {"storage": "1Gi"}},
        }
        claim = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": spec}
        kubectl("create", "-n", namespace.name, "-f", "-", stdin=json.dumps(claim))
        await is_said(said, "unbound immediate PersistentVolumeClaims")
    assert len(set(said)) == len(said)


async def test_a_volume_that_cannot_be_mounted_is_said(backend: KubernetesBackend) -> None:
    spec = {
        "volumes": [{"name": "keys", "secret": {"secretName": "no-such-secret"}}],
        "containers": [{"name": "main", "volumeMounts": [{"name": "keys", "mountPath": "/keys"}]}],
    }
    async with created(backend, "job", with_pods(DRIVER, pod_overrides={"spec": spec})) as handle:
        await until(backend, handle, lambda status: '"no-such-secret" not found' in status.summary())
