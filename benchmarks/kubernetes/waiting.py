"""What tasks that only wait cost: requests to the API server, by its audit log, and the triggerer's processor time.

The triggerer is a service account of its own, so that the audit log tells its requests from all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil
import yaml
from airflow.triggers.base import BaseTrigger
from kubernetes import client, config

from benchmarks.kubernetes.contestants import TIMEOUT, Ours, PodOperator, Waiting
from benchmarks.kubernetes.place import PATIENCE, Place, connections, started, until
from benchmarks.report import Row
from tests.cluster import target

ACCOUNT = "triggerer"
AT_ONCE = 4
"""Workloads that are submitted, or deleted, side by side."""
SETTLING = 15.0
"""Seconds before the window, or as many as the window has: triggers begin to wait. KubernetesPodTrigger needs 5."""
MOST = 60.0
"""Requests a minute in all."""


@dataclass(frozen=True)
class Cost:
    """What one triggerer took in the window.

    :param starting: requests before it.
    :param requests: verb and resource -> how many; None: there is no audit log.
    :param cpu: processor seconds a second.
    """

    tasks: int
    seconds: float
    starting: int | None
    requests: dict[str, int] | None
    cpu: float

    @property
    def per_minute(self) -> float | None:
        """Requests a minute, of all tasks."""
        return None if self.requests is None else round(sum(self.requests.values()) * 60 / self.seconds, 1)


def waiting(place: Place, tasks: int, seconds: float) -> list[Row]:
    """Two rows: requests and processor, of so many tasks of ours, and of a fifth of them of KubernetesPodOperator's."""
    with _as_account(place):
        ours = _cost(place, Ours, tasks, seconds)
        theirs = _cost(place, PodOperator, max(1, tasks // 5), seconds)
    label = f"KubernetesPodTrigger, {theirs.tasks} tasks"
    rate, his_rate = ours.per_minute, theirs.per_minute
    requests = Row(
        f"API requests of {tasks} tasks that wait, in {seconds:g} s",
        "requests a minute",
        rate,
        None,
        {} if his_rate is None else {label: his_rate},
        None,
        f"at most {MOST:g} a minute in all",
        None if rate is None else rate <= MOST,
        {f"ours, {what}": [count] for what, count in (ours.requests or {}).items()}
        | {f"{label}, {what}": [count] for what, count in (theirs.requests or {}).items()}
        | {"ours, before the window": [ours.starting or 0], f"{label}, before the window": [theirs.starting or 0]},
    )
    cpu = Row(
        f"processor time of a triggerer with {tasks} tasks that wait",
        "cores",
        ours.cpu,
        None,
        {label: theirs.cpu},
        None,
        None,
        None,
        {},
    )
    return [requests, cpu]


@contextlib.contextmanager
def _as_account(place: Place) -> Iterator[None]:
    """Airflow's connections are a service account's meanwhile."""
    api = config.new_client_from_config(str(place.kubeconfig))
    core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
    core.create_namespaced_service_account(place.namespace, {"metadata": {"name": ACCOUNT}})
    binding = {
        "metadata": {"name": ACCOUNT},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "admin"},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": place.namespace}],
    }
    rbac.create_namespaced_role_binding(place.namespace, binding)
    spec = {"spec": {"expirationSeconds": 6 * 3600}}
    token = core.create_namespaced_service_account_token(ACCOUNT, place.namespace, spec).status.token
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(place.kubeconfig, token)))
        connections(place, kubeconfig)
        try:
            yield
        finally:
            connections(place, place.kubeconfig)


def _kubeconfig(admin: Path, token: str) -> dict[str, object]:
    """The administrator's current cluster, by a token."""
    given = yaml.safe_load(admin.read_text())
    current = next(each for each in given["contexts"] if each["name"] == given["current-context"])["context"]["cluster"]
    cluster = next(each for each in given["clusters"] if each["name"] == current)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": ACCOUNT,
        "contexts": [{"name": ACCOUNT, "context": {"cluster": current, "user": ACCOUNT}}],
        "clusters": [cluster],
        "users": [{"name": ACCOUNT, "user": {"token": token}}],
    }


def _cost(place: Place, kind: type[Waiting], tasks: int, seconds: float) -> Cost:
    contestants = [kind(place, f"{kind.__name__.lower()}-{number}", 1, TIMEOUT) for number in range(tasks)]
    asyncio.run(_submit(contestants))
    try:
        with _triggerer([contestant.trigger() for contestant in contestants]) as process:
            begun = time.time()
            time.sleep(min(SETTLING, seconds))
            before, start = process.cpu_times(), time.time()
            time.sleep(seconds)
            after, end = process.cpu_times(), time.time()
            if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
                raise RuntimeError(f"the triggerer of {kind.label} has ended")
    finally:
        asyncio.run(_delete(contestants))
    cpu = (after.user + after.system - before.user - before.system) / (end - start)
    earlier, requests = _requests(place.namespace, begun, start), _requests(place.namespace, start, end)
    starting = None if earlier is None else sum(earlier.values())
    return Cost(tasks, end - start, starting, requests, round(cpu, 4))


async def _submit(contestants: Sequence[Waiting]) -> None:
    """All of them, until all of them run; a few at once, or so many containers would start for minutes."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def submit(contestant: Waiting) -> None:
        async with turn:
            await asyncio.to_thread(contestant.submit)
            await until(api, "Pod", contestant.selector, lambda pods: bool(pods) and all(map(started, pods)))

    async with contestants[0].place.api() as api:
        await asyncio.gather(*map(submit, contestants))


async def _delete(contestants: Sequence[Waiting]) -> None:
    turn = asyncio.Semaphore(AT_ONCE)

    async def delete(contestant: Waiting) -> None:
        async with turn:
            await asyncio.to_thread(contestant.delete)

    await asyncio.gather(*map(delete, contestants))


@contextlib.contextmanager
def _triggerer(triggers: Sequence[BaseTrigger]) -> Iterator[psutil.Process]:
    """A process in which these triggers run."""
    command = [sys.executable, "-m", "benchmarks.kubernetes.triggerer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            pickle.dump([trigger.serialize() for trigger in triggers], process.stdin)
            process.stdin.close()
            if not process.stdout.readline():
                raise RuntimeError("the triggerer did not start")
            yield psutil.Process(process.pid)
        finally:
            process.kill()
            process.wait(PATIENCE)


def _requests(namespace: str, begin: float, end: float) -> dict[str, int] | None:
    """Verb and resource -> how many requests of the account came in between."""
    path = target.audit_log()
    if path is None:
        return None
    user = f"system:serviceaccount:{namespace}:{ACCOUNT}"
    found: dict[str, str] = {}
    for file in path.parent.glob(f"{path.stem}*{path.suffix}"):  # the server moves a full one aside
        with file.open() as lines:
            for line in lines:
                if user in line:
                    event = json.loads(line)
                    at = datetime.strptime(event["requestReceivedTimestamp"], "%Y-%m-%dT%H:%M:%S.%fZ")
                    if begin <= at.replace(tzinfo=UTC).timestamp() < end and event["user"]["username"] == user:
                        of = event.get("objectRef", {})
                        where = "/".join(filter(None, (of.get("resource"), of.get("subresource"))))
                        found[event["auditID"]] = f"{event['verb']} {where or event['requestURI']}"
    return dict(sorted(Counter(found.values()).items()))
