"""The Role that ``airflow practicus rbac`` prints is enough for whoever has it, and all of it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from practicus_provider import lifecycle
from practicus_provider.adapters import make_plan
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.admission import right_to_look
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.backends.kubernetes.rbac import role_of_the_user
from practicus_provider.errors import BackendError
from practicus_provider.lifecycle import Policy
from practicus_provider.plan import Here
from practicus_provider.spec import Elastic, JobSpec, Resources
from tests.kubernetes import Namespace, account, pods
from tests.plans import TASK, plan, role

pytestmark = pytest.mark.cluster
SMALL = Resources(cpu="500m", memory="1Gi")


@pytest.fixture
def user(namespace: Namespace, kubectl: Callable[..., str], image: Callable[[str], str]) -> Iterator[KubernetesBackend]:
    """A service account that may do what the command prints, and nothing else."""
    kubectl("create", "serviceaccount", "airflow", "-n", namespace.name)
    to_look = right_to_look(namespace.name, namespace.name, "airflow")
    for manifest in (*role_of_the_user(namespace.name, namespace.name, "airflow"), *to_look):
        kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    yield replace(pods(namespace, image("python")), access=account(namespace, kubectl, "airflow"))
    for manifest in to_look:  # they are no part of the namespace
        kubectl("delete", manifest["kind"], manifest["metadata"]["name"])


async def test_it_satisfies_the_check(user: KubernetesBackend, namespace: Namespace) -> None:
    assert (await user.check()).startswith(f"replicas run as pods in namespace {namespace.name} of https://")
    assert "may not" not in await user.check()
    assert "advice" not in await user.check()


async def test_a_job_runs_from_its_creation_to_its_removal(user: KubernetesBackend) -> None:
    job = plan(role("driver", "import practicus_runtime as p; p.set_result(42)"))
    handle = await user.create("job", job, task=TASK)
    outcome = await lifecycle.follow(user, handle, Policy(2**40, ("driver",)), print)
    assert outcome.value() == 42
    await user.delete(handle)
    assert await user.list() == []


@pytest.mark.parametrize(
    ("adapter", "workers", "add_up"),
    [
        ("dask", Elastic(1, 2), "p.get_client().submit(sum, [1, 2]).result()"),
        ("spark", 1, "p.get_client().range(1, 3).agg({'id': 'sum'}).first()[0]"),
    ],
)
async def test_a_job_whose_replicas_start_pods_runs_too(
    user: KubernetesBackend, image: Callable[[str], str], adapter: str, workers: int | Elastic, add_up: str
) -> None:
    spec = JobSpec.of(
        adapter=adapter,
        workers=workers,
        image=image(adapter),
        worker_resources=SMALL,
        coordinator_resources=SMALL,
    )
    script = f"import practicus_runtime as p; p.set_result({add_up})".encode()
    whole = make_plan(spec, (Here.PYTHON, (Here.APP, "/job.py")), {"job.py": script}, pods=True)
    handle = await user.create("job", whole, task=TASK)
    assert (await lifecycle.follow(user, handle, Policy.of(spec, whole), print)).value() == 3
    await user.delete(handle)


async def test_another_namespace_is_closed_to_it(user: KubernetesBackend) -> None:
    with pytest.raises(BackendError, match=r"in namespace default this user may not get jobs.batch, list jobs.batch"):
        await replace(user, site=Site("default", "i")).check()
