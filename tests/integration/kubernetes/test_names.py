"""Names of replicas, by DNS that listens where the cluster's network policies act, or is out of reach."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.plan import Here, Host, Launch, Plan, Port, Role
from practicus_provider.runtime.practicus_runtime.contract import NO_DNS
from practicus_provider.status import Reason, State
from tests.kubernetes import Namespace
from tests.plans import created, end, plan, role, server, verdict_of, with_pods

GREETED = """
import socket, sys
print(socket.create_connection((sys.argv[1], int(sys.argv[2]))).recv(100), flush=True)
"""
GREET = Port("coordinator", "greet")
AFTER = role("driver", GREETED, Host("coordinator"), GREET, after=(GREET,))
RANK = Role(
    "driver",
    Launch(
        (Here.PYTHON, "-S", "-m", "practicus_runtime.ranks", "/dev/null"),
        {"MASTER_ADDR": Host("coordinator"), "LOCAL_WORLD_SIZE": "1"},
    ),
)


@pytest.fixture
def dns(namespace: Namespace, kubectl: Callable[..., str]) -> Callable[[int], Mapping[str, Any]]:
    """A Service on port 53 of the cluster's DNS server, which is asked on another port; what has pods use it."""

    def made(port: int) -> Mapping[str, Any]:
        selector = "--selector=kubernetes.io/service-name=kube-dns"
        (real, *_) = json.loads(kubectl("get", "endpointslices", "-n", "kube-system", selector, "-o", "json"))["items"]
        meta = {"name": "names", "namespace": namespace.name}
        protocols = [{"name": name, "protocol": name.upper()} for name in ("udp", "tcp")]
        service = {"ports": [{**each, "port": 53, "targetPort": port} for each in protocols]}
        behind = {
            "addressType": real["addressType"],
            "endpoints": [{"addresses": real["endpoints"][0]["addresses"], "conditions": {"ready": True}}],
            "ports": [{**each, "port": port} for each in protocols],
        }
        labels = {"kubernetes.io/service-name": "names"}
        for manifest in (
            {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": service},
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**meta, "labels": labels},
                **behind,
            },
        ):
            kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        address = kubectl("get", "service/names", "-n", namespace.name, "-o", "jsonpath={.spec.clusterIP}")
        searches = [f"{namespace.name}.svc.cluster.local", "svc.cluster.local"]
        return {"spec": {"dnsPolicy": "None", "dnsConfig": {"nameservers": [address], "searches": searches}}}

    return made


@pytest.mark.usefixtures("machines")
async def test_names_resolve_where_the_pods_of_dns_listen_on_5353(backend: KubernetesBackend, dns: Any) -> None:
    async with created(backend, "job", plan(server(), AFTER, pod_overrides=dns(5353))) as handle:
        assert (await end(backend, handle)).state is State.SUCCEEDED


@pytest.mark.parametrize("job", [plan(server(), AFTER), plan(server(), RANK)], ids=["a port", "the ranks' place"])
async def test_where_no_dns_answers_it_is_said_and_given_up(backend: KubernetesBackend, dns: Any, job: Plan) -> None:
    verdict = await verdict_of(backend, with_pods(replace(job, start_timeout=12), pod_overrides=dns(5454)))
    assert (verdict.reason, verdict.replica) == (Reason.UNREACHABLE, "driver-0")
    assert verdict.message.endswith(f" in vain: {NO_DNS}")
    assert all(word in verdict.advice for word in ("DNS", "NetworkPolicy", "egress="))
    waited, gave_up = verdict.log_tail[0], verdict.log_tail[-1]
    assert (waited.startswith("waiting for "), gave_up.startswith("gave up waiting for ")) == (True, True)
    assert (waited.endswith(f" s: {NO_DNS}"), gave_up.endswith(f" s: {NO_DNS}")) == (True, True)
