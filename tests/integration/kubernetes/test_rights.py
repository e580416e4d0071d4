"""Who may do what, by the Roles of the documentation; and what the page *Clusters* sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest
import yaml

from practicus_provider.backends.base import Usage
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.admission import name_of
from practicus_provider.backends.kubernetes.labels import CLUSTER, INDEX, MANAGED, ROLE
from practicus_provider.errors import BackendError
from practicus_provider.plan import Port
from practicus_provider.status import State
from tests.cluster.layout import REPOSITORY
from tests.kubernetes import Namespace, account
from tests.plans import SLEEP, TASK, created, end, plan, role, until
from tests.plans import page as page_role


async def test_no_replica_has_a_token_unless_it_starts_pods(backend: KubernetesBackend) -> None:
    code = "import os, practicus_runtime as p; p.set_result(os.path.exists('/var/run/secrets/kubernetes.io'))"
    async with created(backend, "job", plan(role("driver", code))) as handle:
        assert (await end(backend, handle)).result == "false"


async def test_the_test_button_names_what_this_user_may_not_do(
    backend: KubernetesBackend, namespace: Namespace, kubectl: Callable[..., str]
) -> None:
    assert (await backend.check()).startswith(f"replicas run as pods in namespace {namespace.name} of https://")
    nobody = replace(backend, access=account(namespace, kubectl, "default"))
    with pytest.raises(BackendError, match=f"in namespace {namespace.name} this user may not get jobs.batch, list"):
        await nobody.check()
    with pytest.raises(BackendError, match=r"Kubernetes forbids it \(403: jobs.batch is forbidden"):
        await nobody.create("job", plan(role("driver", SLEEP)), task=TASK)


async def test_the_test_button_advises_what_an_administrator_could_do_for_hostile_jobs(
    backend: KubernetesBackend, namespace: Namespace, kubectl: Callable[..., str], grant: Callable[..., Access]
) -> None:
    assert "advice" not in await backend.check()  # the suite's namespaces have it all
    blind = replace(backend, access=grant("practicus"))
    assert (await blind.check()).endswith(
        "; this user may not look whether the admission policy is there that holds Spark's drivers: "
        "'airflow practicus rbac --admission' prints it, and the right to look"
    )
    kubectl("label", "namespace", namespace.name, "pod-security.kubernetes.io/enforce=baseline", "--overwrite")
    kubectl("delete", "validatingadmissionpolicybinding", name_of(namespace.name))
    assert (await backend.check()).endswith(
        "; advice: have the namespace enforce Pod Security 'restricted' by the label "
        "pod-security.kubernetes.io/enforce: it enforces 'baseline'; advice: have an admission policy hold jobs whose "
        "replicas start pods: 'airflow practicus rbac --admission' prints it, and the right to look"
    )


@pytest.fixture
def grant(namespace: Namespace, kubectl: Callable[..., str]) -> Callable[..., Access]:
    """Gives the namespace's default service account a Role of the documentation, and how to act as it."""

    def grant(name: str, without: str = "") -> Access:
        blocks = (REPOSITORY / "docs" / "kubernetes.md").read_text().split("```")
        (block,) = [block for block in blocks if f"kind: Role\nmetadata: {{name: {name}," in block]
        role = next(yaml.safe_load_all(block.removeprefix("yaml\n")))
        role["metadata"]["namespace"] = namespace.name
        role["rules"] = [rule for rule in role["rules"] if rule["resources"] != [without]]
        kubectl("apply", "-f", "-", stdin=json.dumps(role))
        whose = f"--serviceaccount={namespace.name}:default"
        kubectl("create", "rolebinding", name, f"--role={name}", whose, "-n", namespace.name)
        return account(namespace, kubectl, "default")

    return grant


async def test_who_only_shows_dashboards_needs_only_the_rights_that_the_documentation_says(
    backend: KubernetesBackend, grant: Callable[..., Access]
) -> None:
    page = Port("coordinator", "page")
    shows = replace(backend, access=grant("practicus-dashboards"))
    async with created(backend, "cluster", plan(page_role(), decides=None, links={"Page": page})) as handle:
        await until(backend, handle, lambda status: status.state is State.RUNNING)
        assert (await shows.find("cluster")).links == {"Page": page}
        await (await shows.connect(handle, page)).close()
    with pytest.raises(BackendError, match=r"may not list jobs\.batch, watch jobs\.batch"):
        await shows.check()


async def test_a_user_who_may_not_forward_ports_runs_jobs_and_sees_no_dashboard(
    backend: KubernetesBackend, grant: Callable[..., Access]
) -> None:
    runs = replace(backend, access=grant("practicus", without="pods/portforward"))
    assert (
        "; it may not get pods/portforward or create pods/portforward, so dashboards do not open" in await runs.check()
    )
    async with created(runs, "cluster", plan(page_role(), decides=None)) as handle:
        await until(runs, handle, lambda status: status.state is State.RUNNING)
        with pytest.raises(BackendError, match=r"Kubernetes forbids it \(403: pods/cluster-0-.*/portforward answers"):
            await runs.connect(handle, Port("coordinator", "page"))


async def test_who_only_shows_clusters_needs_only_the_rights_that_the_documentation_says(
    backend: KubernetesBackend, grant: Callable[..., Access]
) -> None:
    shows = replace(backend, access=grant("practicus-page"))
    async with created(backend, "cluster", plan(role("driver", "print('here')"))) as handle:
        lines = [line async for line in shows.logs(handle, ["driver-0"], whole=True)]
        assert [line.text for line in lines] == ["here"]
        assert [listing.handle for listing in await shows.list()] == [handle]
        assert await shows.usage() is None
        await shows.delete(handle, wait=False)


async def test_what_pods_use_is_what_the_metrics_api_says(
    backend: KubernetesBackend, kubectl: Callable[..., str]
) -> None:
    """Stands in for metrics-server: the same path, kinds and labels, by a custom resource."""
    assert await backend.usage() is None
    kubectl("apply", "-f", "-", stdin=json.dumps(POD_METRICS))
    try:
        kubectl("wait", "--for=condition=Established", "crd/pods.metrics.k8s.io")
        names = {"name": "c-worker-2-x", "namespace": backend.site.namespace}
        labels = {**MANAGED, CLUSTER: "c", ROLE: "worker", INDEX: "2"}
        measured = {"containers": [{"name": "main", "usage": {"cpu": "250m", "memory": "64Mi"}}]}
        for name, own in ((names, labels), ({**names, "name": "another-s"}, {})):
            item = {"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics", "metadata": {**name, "labels": own}}
            kubectl("apply", "-f", "-", stdin=json.dumps({**item, **measured}))
        assert await backend.usage() == {"c": {"worker-2": Usage(0.25, 64 * 2**20)}}
    finally:
        kubectl("delete", "crd", "pods.metrics.k8s.io")


POD_METRICS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {
        "name": "pods.metrics.k8s.io",
        "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"},
    },
    "spec": {
        "group": "metrics.k8s.io",
        "scope": "Namespaced",
        "names": {"plural": "pods", "singular": "pod", "kind": "PodMetrics"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
            }
        ],
    },
}
