"""Jobs run where pods have addresses of both families, that of IPv6 first: on a cluster of these tests' own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from practicus_provider.adapters import make_plan
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.labels import CLUSTER, ROLE
from practicus_provider.plan import Here, Host, Port
from practicus_provider.spec import JobSpec
from practicus_provider.status import State
from tests.cluster import target
from tests.cluster.fixture import BOOTS_ITS_OWN, Kubectl, needed
from tests.cluster.images import PREFIX
from tests.kubernetes import Namespace, pods
from tests.plans import PATIENCE, SLEEP, created, end, plan, read, role, server, until

pytestmark = BOOTS_ITS_OWN

NUMBER = "8"


def run(folder: Path, *arguments: str) -> None:
    target.run(*arguments, folder=folder, number=NUMBER)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("dual") / "cluster"
    try:
        with needed():
            run(folder, "stock")
            run(folder, "up", "--families", "ipv6,ipv4")
        yield folder
    finally:
        run(folder, "down")


@pytest.fixture(scope="module")
def kubernetes(folder: Path) -> Path:
    return folder / "kubeconfig"


@pytest.fixture(scope="module")
def kubectl(folder: Path) -> Kubectl:
    return Kubectl((str(folder / "kubectl"), f"--kubeconfig={folder / 'kubeconfig'}"))


@pytest.fixture(scope="module")
def image(folder: Path) -> Callable[[str], str]:
    def loaded(name: str) -> str:
        with needed():
            run(folder, "load", name)
        return f"{PREFIX}{name}:dev"

    return loaded


@pytest.fixture
def backend(namespace: Namespace, image: Callable[[str], str]) -> KubernetesBackend:
    return pods(namespace, image("python"))


CALL = """
import os, socket
connection = socket.create_connection(os.environ["AT"].rsplit(":", 1))
print(connection.makefile().readline() + connection.getsockname()[0] + "\\n" + os.environ["PRACTICUS_HOST"])
"""


async def test_a_replica_reaches_another_one_by_reference(backend: KubernetesBackend) -> None:
    greet = Port("coordinator", "greet")
    driver = role("driver", CALL, env={"AT": (Host("coordinator"), ":", greet)}, after=(greet,))
    async with created(backend, "job", plan(driver, server())) as handle:
        assert (await end(backend, handle)).state is State.SUCCEEDED
        hello, address, own = [line.text for line in await read(backend, handle, "driver")][:3]
    assert (hello, address, ip_address(address).version) == ("hello", own, 6)


LISTEN = """
import socket, sys
with socket.create_server(("", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True) as server:
    while True:
        server.accept()[0].close()
"""
REACH = """
import json, socket, sys
def reached(address):
    try:
        return bool(socket.create_connection((address, 9000), 2))
    except OSError:
        return False
print(json.dumps([address for address in sys.argv[1:] if reached(address)]))
"""


async def test_nobody_but_its_own_replicas_reaches_a_cluster_at_either_address(
    backend: KubernetesBackend, namespace: Namespace, kubectl: Kubectl
) -> None:
    listen = role("coordinator", LISTEN, Port("coordinator", "greet"), ports={"greet": 9000}, ready="greet")
    both = plan(listen, role("driver", SLEEP, after=(Port("coordinator", "greet"),)))
    found: dict[str, list[str]] = {}
    async with created(backend, "one", both) as one, created(backend, "other", both) as other:
        for handle in (one, other):
            await until(backend, handle, lambda status: status.state is State.RUNNING)
        servers = {each: addresses(kubectl, namespace, each) for each in ("one", "other")}
        for each in servers:
            tried = [address for addresses in servers.values() for address in addresses]
            python = ("exec", f"job/{each}", "--", "python3", "-c", REACH)
            found[each] = json.loads(kubectl("-n", namespace.name, *python, *tried))
    assert [[ip_address(address).version for address in its] for its in servers.values()] == [[6, 4], [6, 4]]
    assert found == servers


def addresses(kubectl: Kubectl, namespace: Namespace, cluster: str) -> list[str]:
    """Those of a cluster's coordinator."""
    selector = f"--selector={CLUSTER}={cluster},{ROLE}=coordinator"
    (pod,) = json.loads(kubectl("-n", namespace.name, "get", "pods", selector, "--output=json"))["items"]
    return [each["ip"] for each in pod["status"]["podIPs"]]


COUNT = b"""
split = str.split
map = lambda word: [(word, 1)]
reduce = lambda word, ones: sum(ones)
"""
DASK = b"""
import practicus_runtime as pr
client = pr.get_client()
client.wait_for_workers(2, timeout=120)
hosts = [address.rpartition(":")[0] for address in client.run(lambda: None)]
pr.set_result([client.submit(sum, client.map(abs, range(-9, 10))).result(), all("[" in host for host in hosts)])
"""
SPARK = b"""
import practicus_runtime as pr
spark = pr.get_client()
pr.set_result(spark.sparkContext.parallelize(range(8), 4).map(lambda i: i * i).sum())
"""


@pytest.mark.parametrize(
    ("adapter", "with_image", "job", "arguments", "result"),
    [
        ("example_dags.mapreduce.MapReduceAdapter", "python", COUNT, ["a b a"], {"a": 2, "b": 1}),
        ("dask", "dask", DASK, [], [90, True]),
        ("spark", "spark", SPARK, [], 140),
    ],
    ids=["an adapter of one's own", "dask", "spark"],
)
async def test_a_job_runs(
    backend: KubernetesBackend,
    image: Callable[[str], str],
    adapter: str,
    with_image: str,
    job: bytes,
    arguments: list[str],
    result: Any,
) -> None:
    spec = JobSpec.of(adapter=adapter, workers=2, image=image(with_image))
    whole = make_plan(spec, (Here.PYTHON, (Here.APP, "/job.py"), *arguments), {"job.py": job}, pods=True)
    async with created(backend, "job", whole) as handle:
        status = await end(backend, handle, 3 * PATIENCE)
        lines = [line.text for line in await read(backend, handle)]
    assert status.state is State.SUCCEEDED, lines
    assert json.loads(status.result or "") == result
    assert [line for line in lines if "suitable IP address" in line] == []
