"""How long a cluster outlives whoever follows it, asked of a server on loopback."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from aiohttp import web

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import KubernetesBackend, leases
from practicus_provider.backends.kubernetes.access import Access
from practicus_provider.backends.kubernetes.api import Manifest
from practicus_provider.backends.kubernetes.leases import leased
from practicus_provider.backends.kubernetes.mirror import mirror_of
from practicus_provider.backends.kubernetes.pod_template import Site
from tests.kubernetes_objects import ALONE, NAME, job
from tests.kubernetes_server import JOBS, Server, kubeconfig, listing, refuses, says, streams
from tests.plans import PATIENCE

HANDLE = Handle(NAME, "u")


def serves(root: Manifest, **change: Any) -> Any:
    """Answers of a server that has one root.

    :param change: ``patch``: answer to its changes, else they are taken.
    """
    root["metadata"]["resourceVersion"] = "1"

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "PATCH":
            return await change.get("patch", says(root))(request)
        if request.path == f"{JOBS}/{NAME}":
            return await says(root)(request)
        if "watch" in request.query:
            return await streams(end="never")(request)
        return await (listing({"object": root}) if request.path == JOBS else listing())(request)

    return answer


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


async def until_warned(caplog: pytest.LogCaptureFixture, number: int) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        while len(warnings(caplog)) < number:
            await asyncio.sleep(0.01)
    return warnings(caplog)


async def test_a_lease_that_cannot_be_renewed_is_said_with_the_time_that_is_left(server: Server, monkeypatch, caplog):
    monkeypatch.setattr(leases, "LEASE_LEAST", 0.3)
    server.answers = [serves(job(ALONE, lease=5.0))]
    async with mirror_of(server.access, "jobs") as mirrored, leased(mirrored, HANDLE, 0.3):
        server.answers = [serves(job(ALONE, lease=5.0), patch=refuses(403, "no more", "Forbidden"))]
        start = f"the lease of cluster {NAME} cannot be renewed; it ends in 0 s: "
        said = await until_warned(caplog, 2)
        assert said[:2] == [f"{start}Kubernetes does not admit it (403): no more"] * 2


async def test_a_lease_that_a_server_does_not_answer_for_is_said(server: Server, monkeypatch, caplog):
    monkeypatch.setattr(leases, "LEASE_LEAST", 0.3)
    server.answers = [serves(job(ALONE, lease=5.0))]
    async with mirror_of(server.access, "jobs") as mirrored, leased(mirrored, HANDLE, 0.3):
        server.answers = [serves(job(ALONE, lease=5.0), patch=streams(b"{", end="never"))]
        assert (await until_warned(caplog, 1))[0] == (
            f"the lease of cluster {NAME} cannot be renewed; it ends in 0 s: the API server does not answer"
        )


async def test_a_lease_goes_on_to_be_renewed_after_an_error_that_nobody_expected(server: Server, monkeypatch, caplog):
    monkeypatch.setattr(leases, "LEASE_LEAST", 0.3)
    server.answers = [serves(job(ALONE, lease=5.0))]
    async with mirror_of(server.access, "jobs") as mirrored, leased(mirrored, HANDLE, 0.3):
        server.answers = [serves(job(ALONE, lease=5.0), patch=says("{}", Date="nonsense"))]
        said = await until_warned(caplog, 2)
    assert (
        said[:2]
        == [f'the lease of cluster {NAME} cannot be renewed; it ends in 0 s: Invalid date value or format "nonsense"']
        * 2
    )


async def test_who_leaves_with_credentials_that_are_over_says_what_could_not_be_told_and_nothing_else(
    server: Server, monkeypatch, caplog
):
    server.answers = [serves(job(ALONE, lease=60.0))]
    plugin = {"apiVersion": "v1", "command": "no-such-plugin"}

    async def leave() -> None:
        async with mirror_of(server.access, "jobs") as mirrored, leased(mirrored, HANDLE, 60.0):
            mirrored.access = Access(inline=kubeconfig(server.url, exec=plugin))
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await leave()
    assert warnings(caplog) == [
        f"what was seen last of cluster {NAME} cannot be told to it: the kubeconfig's exec plugin 'no-such-plugin' "
        "cannot be run: No such file or directory."
    ]


# ---- a cluster that stays for a while

DAY = "2013-01-05T10:00:{:02}Z"


def condition(kind: str) -> Manifest:
    return {"type": kind, "status": "True", "lastTransitionTime": DAY.format(20)}


@pytest.mark.parametrize(
    ("conditions", "spec"),
    [
        ([], {"ttlSecondsAfterFinished": 60, "activeDeadlineSeconds": 90}),
        ([condition("FailureTarget")], {"ttlSecondsAfterFinished": 60, "activeDeadlineSeconds": 90}),
        ([condition("FailureTarget"), condition("Failed")], {"ttlSecondsAfterFinished": 70}),
        ([condition("SuccessCriteriaMet"), condition("Complete")], {"ttlSecondsAfterFinished": 70}),
    ],
    ids=["running", "about to fail", "failed", "completed"],
)
async def test_a_cluster_stays_for_as_long_as_it_is_kept_however_it_ended(
    server: Server, monkeypatch, conditions, spec
):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.api.Api.now", lambda _: 1357380030.0)  # 10:00:30
    root = job(ALONE, *conditions)
    root["status"].pop("completionTime", None)
    server.answers = [serves(root)]
    await KubernetesBackend(server.access, Site("jobs")).delete(HANDLE, after=60)
    [(_, path, _, change)] = [asked for asked in server.asked if asked[0] == "PATCH"]
    assert (path, change["spec"]) == (f"{JOBS}/{NAME}", spec)
    assert change["metadata"] == {"uid": "u", "annotations": {"practicus.ai/released": "true"}}
