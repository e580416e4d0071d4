"""What a cluster's root keeps of its plan, and what becomes of one that somebody has changed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web

from practicus_provider import lifecycle
from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.facts import (
    Facts,
    RoleFacts,
    Unreadable,
    cursor_of,
    facts_of,
    told_by,
    with_lease,
)
from practicus_provider.backends.kubernetes.labels import CURSOR, FACTS, TOLD
from practicus_provider.backends.kubernetes.pod_template import Site
from practicus_provider.cli import commands
from practicus_provider.plan import Framework, Plan, Port
from practicus_provider.plugins.board import Look, Place
from practicus_provider.plugins.rows import rows_of
from practicus_provider.spec import Elastic, Resources
from practicus_provider.status import State
from tests.kubernetes_objects import ALONE, DAY, NAME, SERVED, job, pod, runs
from tests.kubernetes_server import JOBS, PODS, Server, listing, says
from tests.plans import TASK, plan, role

WHOLE = replace(
    plan(
        role("driver", "", replicas=2, ports={"ui": 4040}),
        role("worker", "", replicas=1, elastic=Elastic(1, 3), ready="x", ports={"x": 1}),
        replace(role("driver2", ""), part_of="driver"),
        links={"UI": Port("driver", "ui")},
    ),
    framework=Framework({"torch": "pip install torch"}, "images/Dockerfile"),
)
OLD = {
    **{"adapter": "spark", "decides": "driver", "timeout": 300.0, "lease": 60, "links": {}, "task": TASK},
    "roles": {"driver": {"replicas": 1, "elastic": None, "ready": False, "ports": {}}},
}
"""What the first version of ours has written."""


def root(facts: object = None, **annotations: str) -> Manifest:
    made = job(ALONE, **annotations)
    if facts is not None:
        made["metadata"]["annotations"][FACTS] = facts if isinstance(facts, str) else json.dumps(facts)
    return made


@pytest.mark.parametrize("plan", [WHOLE, ALONE, SERVED, SERVED.serving()], ids=lambda plan: str(len(plan.roles)))
@pytest.mark.parametrize("lease", [None, 60.0])
def test_facts_are_read_as_they_were_written(plan: Plan, lease: float | None) -> None:
    facts = Facts.of(plan, TASK, lease)
    assert Facts.from_json(json.loads(json.dumps(facts.to_json()))) == facts
    assert facts.coordinator == plan.coordinator
    assert facts.deciding == tuple(role.name for role in plan.roles if plan.decisive(role))


def test_facts_that_an_older_version_has_written_are_read():
    assert facts_of(root(OLD)) == Facts("spark", "driver", 300.0, {"driver": RoleFacts("driver", 1)}, TASK, 60)


def test_another_lease_leaves_what_a_later_version_has_written():
    later = {**OLD, "later": {"a": 1}}
    assert json.loads(with_lease(root(later), None)) == {**later, "lease": None}


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in OLD.items() if key != name}


def of_driver(**changed: Any) -> dict[str, Any]:
    driver: Any = OLD["roles"]
    return {**OLD, "roles": {"driver": {**driver["driver"], **changed}}}


BROKEN = {
    "no JSON": ("{", "Expecting property name"),
    "no object": ("[]", "it is no JSON object"),
    "empty": ({}, "'roles' is missing"),
    "deep": ("[" * 100_000, "maximum recursion depth exceeded"),
    "no adapter": (without("adapter"), "'adapter' is missing"),
    "no task": (without("task"), "'task' is missing"),
    "a task that is no text": ({**OLD, "task": {**TASK, "dag_id": ["d"]}}, "'dag_id' is ['d']"),
    "no number": ({**OLD, "timeout": "300"}, "'timeout' is '300'"),
    "no time": ({**OLD, "timeout": float("nan")}, "'timeout' is nan, and not from 0 to inf"),
    "endless": ({**OLD, "lease": float("inf")}, "'lease' is inf, and not from 0 to inf"),
    "no roles": ({**OLD, "roles": {}}, "there are only the roles []"),
    "a role that is a list": ({**OLD, "roles": {"driver": []}}, "'driver' is []"),
    "another that decides": (
        {**OLD, "decides": "boss"},
        "only the roles ['driver'], and it names ('boss', None)",
    ),
    "a part of nothing": (of_driver(part_of="boss"), "and it names ('driver', 'boss')"),
    "replicas without end": (of_driver(replicas=10**9), "'replicas' is 1000000000, and not from 0 to 100000"),
    "no replicas": (of_driver(replicas=True), "'replicas' is True"),
    "bounds that are none": (of_driver(elastic=[3, 1]), "min (3) is over max (1)"),
    "one bound": (of_driver(elastic=[3]), "missing 1 required positional argument"),
    "resources that are none": (of_driver(cpu="a lot", memory="2Gi", gpu=0), "give a positive Kubernetes quantity"),
    "a port that is none": (of_driver(ports={"ui": "http"}), "'ui' is 'http'"),
    "a link that leads nowhere": ({**OLD, "links": {"UI": ["driver"]}}, "not enough values to unpack"),
}


@pytest.mark.parametrize(("facts", "why"), BROKEN.values(), ids=BROKEN)
def test_facts_that_cannot_be_meant_are_refused_with_the_cluster_s_name_and_what_is_wrong(facts, why):
    with pytest.raises(Unreadable) as error:
        facts_of(root(facts))
    message = str(error.value)
    assert message.startswith(f"cluster {NAME} cannot be read, as somebody has changed its annotation {FACTS}: ")
    assert why in message
    assert message.endswith("; delete it, which its task's next try does, too")


@pytest.mark.parametrize(("read", "name", "value"), [(told_by, TOLD, {"pod": 1}), (cursor_of, CURSOR, {"pod": {}})])
@pytest.mark.parametrize("text", ["", "[]", None])
def test_what_is_kept_of_pods_is_refused_likewise(read, name, value, text):
    with pytest.raises(Unreadable, match=f"cluster {NAME} cannot be read, .* its annotation {name}"):
        read(root(**{name: json.dumps(value) if text is None else text}))


def test_facts_of_several_roles_may_not_be_endless_either():
    one = {"replicas": 60_000, "elastic": None, "ready": False, "ports": {}}
    with pytest.raises(Unreadable, match="120000 replicas are over 100000"):
        facts_of(root({**OLD, "roles": {"driver": one, "worker": one}}))


# ---- a cluster of which nobody can tell


def named(root: Manifest, name: str) -> Manifest:
    root["metadata"] |= {"name": name, "uid": f"u-{name}", "creationTimestamp": DAY.format(1)}
    root["metadata"]["labels"] |= {"practicus.ai/cluster": name}
    return root


def serves(*roots: Manifest) -> Any:
    """Answers of a server that has these roots, each of which has a pod that runs."""
    pods = [pod("driver", 0, runs()) for _ in roots]
    for one, of in zip(pods, roots, strict=True):
        one["metadata"]["labels"]["practicus.ai/cluster"] = of["metadata"]["name"]

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path in (JOBS, PODS):
            found = roots if request.path == JOBS else pods
            return await listing(*({"object": item} for item in found))(request)
        for of in roots:
            if request.path == f"{JOBS}/{of['metadata']['name']}":
                return await says(of)(request)
        return await listing()(request)

    return answer


@pytest.mark.parametrize(
    ("broken", "task"),
    [
        (root("{"), {}),
        (root({**OLD, "roles": {}}), TASK),
        (root(**{TOLD: "[]"}), TASK),
        (root({**OLD, "task": {"dag_id": 7}}), {}),
    ],
    ids=["all", "roles", "what pods have told", "the task"],
)
async def test_a_cluster_of_which_nobody_can_tell_is_a_row_that_says_so_and_hides_no_other(
    server: Server, monkeypatch: pytest.MonkeyPatch, broken: Manifest, task: dict[str, Any]
) -> None:
    server.answers = [serves(named(broken, "c-broken"), named(job(ALONE), NAME))]
    backend = KubernetesBackend(server.access, Site("jobs"))
    bad, good = await backend.list()
    assert (bad.handle, bad.state, bad.task, bad.status.replicas) == (
        *(Handle("c-broken", "u-c-broken"), State.UNKNOWN, task),
        (),
    )
    assert bad.trouble.startswith("cluster c-broken cannot be read, as somebody has changed its annotation ")
    assert (good.handle.name, good.state, good.trouble) == (NAME, State.RUNNING, "")
    assert await backend.find("c-broken") == bad  # so that it can be deleted
    shown = rows_of({Place("default"): Look(1357380010.0, [bad, good])})
    assert {row["cluster"]: row["verdict"] for row in shown} == {
        "c-broken": {"reason": "unreadable", "message": bad.trouble, "advice": ""},
        NAME: None,
    }
    assert commands._row(bad, "unknown")["note"] == bad.trouble
    assert await lifecycle.orphans(backend, lambda tasks: ["over" if task == TASK else "unknown" for task in tasks])


async def test_what_cannot_be_read_of_a_cluster_s_pods_hides_no_other(server: Server) -> None:
    server.answers = [serves(named(job(ALONE), "c-odd"), named(job(ALONE), NAME))]
    answer = server.answers[0]

    async def odd(request: web.Request) -> web.StreamResponse:
        if request.path == PODS:
            pods = [pod("driver", 0, runs()), pod("driver", 0, runs())]
            pods[0]["metadata"]["labels"] |= {"practicus.ai/cluster": "c-odd"}
            pods[0]["status"]["containerStatuses"][0]["state"] = {"running": {"startedAt": "yesterday"}}
            return await listing(*({"object": item} for item in pods))(request)
        return await answer(request)

    server.answers = [odd]
    bad, good = await KubernetesBackend(server.access, Site("jobs")).list()
    assert bad.trouble.startswith("its objects cannot be read: ")
    assert good.state is State.RUNNING


async def test_whoever_watches_a_cluster_of_which_nobody_can_tell_is_told_so(server: Server) -> None:
    server.answers = [serves(named(root("{"), NAME))]
    backend = KubernetesBackend(server.access, Site("jobs"))
    with pytest.raises(Unreadable, match=f"cluster {NAME} cannot be read"):
        await anext(backend.watch(Handle(NAME, f"u-{NAME}")))


def test_resources_of_a_role_are_kept_without_what_nobody_asks_for():
    resources = Resources(2, "4Gi", 1, shm="1Gi", argument="worker_resources")
    made = RoleFacts.of(replace(role("a", ""), resources=resources))
    assert RoleFacts.from_json("a", made.to_json()).resources == Resources(2, "4Gi", 1)
