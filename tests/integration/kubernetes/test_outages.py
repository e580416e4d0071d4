"""An API server that is away, slow or forgetful, and connections that break: jobs go on, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace

import pytest

from practicus_provider import lifecycle
from practicus_provider.backends import kubernetes
from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend, api, logs, mirror
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.errors import BackendError
from practicus_provider.lifecycle import Outcome, Policy
from practicus_provider.plan import Plan
from practicus_provider.status import State
from tests.cluster.cluster import Cluster
from tests.cluster.fixture import repair
from tests.kubernetes import Namespace
from tests.plans import PATIENCE, TASK, plan, role, with_pods
from tests.proxy import Proxy, proxied
from tests.said import Said

pytestmark = pytest.mark.cluster

LINES = 100
TALK = """
import sys, time, practicus_runtime as p
lines, pause, width = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
for number in range(lines):
    print(number, "." * width, flush=True)
    time.sleep(pause)
p.set_result(lines)
"""


def talk(seconds: float, width: int = 1) -> Plan:
    """A job that writes :data:`LINES` lines in that time."""
    return plan(role("driver", TALK, str(LINES), str(seconds / LINES), str(width)))


@dataclass
class Followed:
    """A job that somebody follows."""

    task: asyncio.Task[Outcome]
    said: list[str]

    @property
    def lines(self) -> list[str]:
        """All of them: where many come at once, several are one entry."""
        return [line for text in self.said for line in text.split("\n")]

    async def reads(self, number: int) -> None:
        """Wait until that line was read."""
        async with asyncio.timeout(PATIENCE):
            while not any(line.startswith(f"{number} .") for line in self.lines):
                await asyncio.sleep(0.05)

    async def ends_well(self) -> None:
        """Nothing was lost, and nothing came twice."""
        async with asyncio.timeout(3 * PATIENCE):
            outcome = await self.task
        assert (outcome.verdict.state, outcome.result) == (State.SUCCEEDED, str(LINES)), outcome.verdict.text()
        assert [int(line.split()[0]) for line in self.lines if line.endswith(".")] == list(range(LINES))
        assert len({line for line in self.lines if line.endswith(".")}) == LINES


def follow(backend: KubernetesBackend, handle: Handle) -> Followed:
    said = Said()
    policy = Policy(time.time() + 2 * PATIENCE, ("driver",))
    return Followed(asyncio.create_task(lifecycle.follow(backend, handle, policy, said)), said)


@pytest.fixture
async def line(kubectl: Callable[..., str]) -> AsyncIterator[tuple[Proxy, str]]:
    async with proxied(kubectl) as line:
        yield line


@pytest.fixture
def proxy(line: tuple[Proxy, str]) -> Proxy:
    return line[0]


@pytest.fixture
def backend(direct: KubernetesBackend, line: tuple[Proxy, str]) -> KubernetesBackend:
    """The same place, through the proxy."""
    return replace(direct, access=Access(inline=line[1]))


# ---- as a job is submitted


async def test_a_server_that_cannot_be_reached_is_named_and_nothing_is_made(
    backend: KubernetesBackend, direct: KubernetesBackend, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "BACKOFF", 0.1)
    monkeypatch.setattr(kubernetes, "CREATE_PATIENCE", 0.0)
    proxy.refuse()
    with pytest.raises(BackendError, match=f"API server at https://127.0.0.1:{proxy.own_port} cannot be reached: Cann"):
        await backend.create("job", talk(1), task=TASK)
    assert await direct.list() == []


async def test_a_server_that_does_not_answer_is_given_up_with_what_was_waited(
    backend: KubernetesBackend, direct: KubernetesBackend, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "BACKOFF", 0.1)
    monkeypatch.setattr(kubernetes, "CREATE_PATIENCE", 0.0)
    monkeypatch.setattr(api, "TIMEOUT", 0.5)
    proxy.delay = 600
    with pytest.raises(BackendError, match=r"does not answer within 0\.5 s"):
        await backend.create("job", talk(1), task=TASK)
    assert await direct.list() == []


async def test_what_is_left_of_a_submit_that_lost_the_server_runs_nothing_and_the_next_try_completes_it(
    backend: KubernetesBackend,
    direct: KubernetesBackend,
    namespace: Namespace,
    proxy: Proxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "BACKOFF", 0.1)
    monkeypatch.setattr(kubernetes, "CREATE_PATIENCE", 0.0)
    proxy.delay = 0.2
    creating = asyncio.create_task(backend.create("job", talk(1), task=TASK))
    while not await direct.list():
        await asyncio.sleep(0)
    proxy.refuse()
    with pytest.raises(BackendError, match="cannot be reached"):
        await creating
    (left,) = await direct.list()
    assert namespace.core.list_namespaced_pod(namespace.name).items == []
    handle = await direct.create("job", talk(1), task=TASK)
    assert handle == left.handle
    await follow(direct, handle).ends_well()


async def test_a_slow_server_is_waited_for(backend: KubernetesBackend, proxy: Proxy) -> None:
    proxy.delay = 0.3
    handle = await backend.create("job", talk(1), task=TASK)
    await follow(backend, handle).ends_well()


# ---- while a job runs


async def test_connections_that_are_cut_again_and_again_lose_nothing(backend: KubernetesBackend, proxy: Proxy) -> None:
    handle = await backend.create("job", talk(5, width=30_000), task=TASK)
    followed = follow(backend, handle)
    await followed.reads(0)
    while not followed.task.done():
        proxy.cut()
        await asyncio.sleep(0.7)
    await followed.ends_well()


async def test_connections_that_fall_silent_are_noticed(
    backend: KubernetesBackend, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "WATCH_SILENCE", 2.0)
    monkeypatch.setattr(logs, "LATE", 0.5)
    handle = await backend.create("job", talk(3), task=TASK)
    followed = follow(backend, handle)
    await followed.reads(10)
    proxy.mute()
    await followed.ends_well()


@pytest.mark.parametrize(
    ("machine", "component"), [("control-plane", "kube-apiserver"), ("control-plane", "etcd"), ("node1", "kubelet")]
)
async def test_a_job_outlives_what_is_killed_and_comes_back(
    direct: KubernetesBackend, machines: Cluster, machine: str, component: str
) -> None:
    here = {"spec": {"nodeSelector": {"kubernetes.io/hostname": "node1"}}}
    handle = await direct.create("job", with_pods(talk(8), pod_overrides=here), task=TASK)
    followed = follow(direct, handle)
    await followed.reads(10)
    killed = machines.machine(machine).process(component)
    assert killed is not None
    killed.kill()
    await asyncio.to_thread(repair)
    await followed.ends_well()


async def test_what_the_server_has_forgotten_meanwhile_is_listed_anew(
    backend: KubernetesBackend, namespace: Namespace, machines: Cluster, proxy: Proxy
) -> None:
    handle = await backend.create("job", talk(3), task=TASK)
    followed = follow(backend, handle)
    await followed.reads(10)
    proxy.refuse()
    server = machines.control_plane.process("kube-apiserver")
    assert server is not None
    server.kill()
    machines.control_plane.run(sys.executable, "-I", "-c", COMPACT)
    await asyncio.to_thread(repair)
    await proxy.accept()
    await followed.ends_well()
    audit = map(json.loads, machines.layout.audit_log.read_text().splitlines())
    asked = [(entry["verb"], entry["objectRef"]) for entry in audit if "objectRef" in entry]
    lists = Counter(it["resource"] for verb, it in asked if verb == "list" and it.get("namespace") == namespace.name)
    assert max(lists.values()) == 2, lists  # not each kind: the job may be over before its turn comes


COMPACT = """
import json, urllib.request
def call(path, **body):
    url = f"http://127.0.0.1:2379/v3/kv/{path}"
    return json.load(urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode())))
call("compaction", revision=call("range", key="AA==")["header"]["revision"], physical=True)
"""
"""Has etcd forget all but what is: through its gateway (``/v3/kv`` in etcd's API reference)."""


async def test_a_submit_that_meets_a_restart_of_the_server_waits_for_it(
    direct: KubernetesBackend, machines: Cluster
) -> None:
    server = machines.control_plane.process("kube-apiserver")
    assert server is not None
    server.kill()
    repairing = asyncio.create_task(asyncio.to_thread(repair))
    handle = await direct.create("job", talk(1), task=TASK)
    await repairing
    await follow(direct, handle).ends_well()
