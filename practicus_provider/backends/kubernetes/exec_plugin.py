"""What a kubeconfig's ``exec`` plugin gives: credentials that end, and are asked for again before they do.

As in ``kubectl`` (*client-go credential plugins* in Kubernetes' documentation), all that need the same plugin share
what it gave. ``kubernetes_asyncio`` would run it for each client, wait for it without end, and let it read our standard
input, by which a task of Airflow's talks to its supervisor.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from practicus_provider.errors import BackendError

TIMEOUT = 60.0
"""Seconds that a plugin may take."""
MARGIN = 60.0
"""Seconds before its end at which a credential is asked for anew; of one that lives shorter, a fifth of its life."""
LEAST = 1.0
"""Seconds for which a credential is used at least, whatever the plugin says of its end: else each request ran it."""


class CredentialsError(BackendError):
    """Credentials cannot be had now. It may pass, as a service that a plugin asks may be away."""


@dataclass(frozen=True)
class Credential:
    """What a plugin gave.

    :param user: as a kubeconfig's user has it.
    :param until: when the next one is to be asked for, seconds since the epoch.
    """

    user: Mapping[str, str] = field(repr=False)
    until: float = math.inf


_given: dict[str, Credential] = {}
"""Plugin with its arguments -> what it gave last."""


async def credential(config: Mapping[str, Any], folder: Path, refused: Credential | None = None) -> Credential:
    """One that is good for now.

    :param config: ``exec`` of a kubeconfig's user.
    :param folder: of the kubeconfig; a command that is a relative path is relative to it.
    :param refused: what the server does not take any more, whatever was said of its end.
    :raises BackendError: the plugin cannot be run, or gives none; the message has its own words.
    """
    if not config.get("command"):
        raise BackendError("the kubeconfig's exec plugin has no command: give its user's exec.command")
    key = json.dumps([config, str(folder)], sort_keys=True)
    found = _given.get(key)
    if found is None or found is refused or time.time() >= found.until:
        found = _given[key] = read(config, await _run(config, folder), time.time())
    return found


def read(config: Mapping[str, Any], answer: bytes, now: float) -> Credential:
    """What a plugin's answer (``ExecCredential``) says.

    :param now: seconds since the epoch.
    :raises CredentialsError: it makes no sense.
    """
    name = f"the kubeconfig's exec plugin {config['command']!r}"
    try:
        told = json.loads(answer)
        version, status = told["apiVersion"], dict(told["status"])
        end = datetime.fromisoformat(status["expirationTimestamp"]).timestamp() if _has_end(status) else math.inf
    except (ValueError, KeyError, TypeError) as error:
        raise CredentialsError(f"{name} does not answer with an ExecCredential: {error!r}") from error
    if version != config.get("apiVersion"):
        raise CredentialsError(f"{name} answers by {version}, and the kubeconfig says {config.get('apiVersion')}")
    user = {}
    if status.get("token"):
        user["token"] = str(status["token"])
    for theirs, ours in (("clientCertificateData", "client-certificate-data"), ("clientKeyData", "client-key-data")):
        if status.get(theirs):
            user[ours] = base64.b64encode(str(status[theirs]).encode()).decode()
    if not ("token" in user or {"client-certificate-data", "client-key-data"} <= user.keys()):
        raise CredentialsError(f"{name} gives neither a token nor a client certificate with its key")
    return Credential(user, max(now + LEAST, end - min(MARGIN, (end - now) / 5) if end < math.inf else end))


def _has_end(status: Mapping[str, Any]) -> bool:
    return bool(status.get("expirationTimestamp"))


async def _run(config: Mapping[str, Any], folder: Path) -> bytes:
    """What it writes."""
    command = str(config["command"])
    if not os.path.isabs(command) and os.path.basename(command) != command:
        command = str(folder / command)
    info = {"apiVersion": config.get("apiVersion"), "kind": "ExecCredential", "spec": {"interactive": False}}
    env = {item["name"]: str(item["value"]) for item in config.get("env") or ()}
    name = f"the kubeconfig's exec plugin {config['command']!r}"
    try:
        process = await asyncio.create_subprocess_exec(
            *(command, *map(str, config.get("args") or ())),
            env={**os.environ, **env, "KUBERNETES_EXEC_INFO": json.dumps(info)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        hint = f" {config['installHint'].strip()}" if config.get("installHint") else ""
        raise BackendError(f"{name} cannot be run: {error.strerror}.{hint}") from error
    try:
        async with asyncio.timeout(TIMEOUT):
            answer, words = await process.communicate()
    except TimeoutError as error:
        raise CredentialsError(f"{name} does not answer within {TIMEOUT:g} s") from error
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        said = words.decode(errors="replace").strip() or answer.decode(errors="replace").strip() or "nothing"
        raise CredentialsError(f"{name} exited with code {process.returncode} and says: {said}")
    return answer
