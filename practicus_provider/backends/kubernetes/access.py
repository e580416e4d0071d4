"""How an API server is reached, and as whom: credentials are read, or asked for, again before they end.

Reading kubeconfigs, the refresh of ``auth-provider`` and TLS are ``kubernetes_asyncio``'s.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from practicus_provider.backends.kubernetes.exec_plugin import Credential, credential
from practicus_provider.errors import BackendError

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient, Configuration

log = logging.getLogger(__name__)
READ_AGAIN = 60.0
"""Seconds after which a file with a token or a certificate is read again, as client-go does
(``k8s.io/client-go/transport``, ``NewCachedFileTokenSource``): whoever puts it there replaces it before it ends."""
RETRY = 10.0
"""Seconds after which credentials are asked for again that could not be had, while the old ones are still taken."""
FILES = ("tokenFile", "client-certificate", "client-key")
"""What of a kubeconfig's user is a path to credentials."""
PROGRAMS = ("exec", "auth-provider")
"""What of a kubeconfig's user has programs run."""
CONNECTION = ("host", "verify_ssl", "tls_server_name", "proxy")
CONNECTION_FILES = ("ssl_ca_cert", "cert_file", "key_file")


@dataclass(frozen=True)
class Access:
    """How to reach an API server, as cncf-kubernetes' connections say it.

    :param kubeconfig: path; None: ``KUBECONFIG`` or ``~/.kube/config``, unless another is given.
    :param inline: a kubeconfig's content, as YAML or JSON.
    :param context: of the kubeconfig; None: its current one.
    :param in_cluster: as the pod's own service account.
    :param is_trusted: whether who wrote this may have programs run here, and files read and sent: in Airflow's API
        server whoever may edit connections may not, but if the deployment says so.
    """

    kubeconfig: str | None = None
    inline: str | None = field(default=None, repr=False)
    context: str | None = None
    in_cluster: bool = False
    is_trusted: bool = True

    def __str__(self) -> str:
        """Where it says so, for who has to mend it."""
        if self.in_cluster:
            return "in_cluster"
        if self.inline is not None:
            return "its inline kubeconfig"
        return self.kubeconfig or "the default kubeconfig"


@dataclass(frozen=True)
class Login:
    """Who we are at a server, for now.

    :param client: its ``rest_client`` has the connections.
    :param authorization: value of that header; None: a certificate says it, or nobody does.
    :param made_of: all that a connection is made of; what else changes needs no new one.
    :param given: by an exec plugin; None: there is none.
    :param until: when credentials are to be read again, seconds since the epoch.
    """

    client: ApiClient
    authorization: str | None = field(repr=False)
    made_of: tuple[Any, ...] = field(repr=False)
    given: Credential | None
    until: float

    @property
    def host(self) -> str:
        """URL of the server."""
        return str(self.client.configuration.host)

    def is_as(self, other: Login) -> bool:
        """Whether a server would answer to it as to the other one."""
        return self.authorization == other.authorization and self.client is other.client


class Logins:
    """A login, and the next one whenever that is due. Close it."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._turn = asyncio.Lock()
        self._now: Login | None = None
        self._not_before = -math.inf
        self._before: ApiClient | None = None

    @property
    def host(self) -> str:
        """URL of the server."""
        return self._now.host if self._now else str(self._access)

    async def login(self, refused: Login | None = None) -> Login:
        """The present one, which is made anew if it is due.

        :param refused: what the server does not take any more; the next one may still be as it was.
        :raises BackendError: there is none to be had.
        """
        if self._now is not None and self._now is not refused and time.time() < max(self._now.until, self._not_before):
            return self._now
        async with self._turn:  # of many that find it due, one asks
            now = self._now
            if now is None or now is refused:
                self._now = await self._next(refused)
            elif time.time() >= max(now.until, self._not_before):
                try:
                    self._now = await self._next(None)
                except BackendError as error:  # the server may take the old ones for a while
                    self._not_before = time.time() + RETRY
                    log.warning("Kubernetes' credentials could not be renewed, and are used as they are: %s", error)
            assert self._now is not None
            return self._now

    async def close(self) -> None:
        """End all connections."""
        for client in (self._before, self._now.client if self._now else None):
            if client is not None:
                await client.close()

    async def _next(self, refused: Login | None) -> Login:
        from kubernetes_asyncio import client

        configuration, given, until = await configured(self._access, refused.given if refused else None)
        authorization, now = configuration.api_key.get("BearerToken"), self._now
        configuration.connection_pool_maxsize = 0
        try:
            made_of = _made_of(configuration)
            if now is not None and made_of == now.made_of:
                return Login(now.client, authorization, made_of, given, until)
            made = client.ApiClient(configuration)
        except OSError as error:  # a certificate that TLS cannot read, say
            raise _unreadable(self._access, error) from error
        if now is not None:  # what lasts goes on by the old connections until the next change
            if self._before is not None:
                await self._before.close()
            self._before = now.client
        return Login(made, authorization, made_of, given, until)


async def configured(access: Access, refused: Credential | None) -> tuple[Configuration, Credential | None, float]:
    """What a client needs; what a plugin gave; and when to look again, seconds since the epoch.

    :raises BackendError: the configuration cannot be read.
    """
    import yaml
    from kubernetes_asyncio import client, config
    from kubernetes_asyncio.config.kube_config import (
        ENV_KUBECONFIG_PATH_SEPARATOR,
        KUBE_CONFIG_DEFAULT_LOCATION,
        ConfigNode,
        KubeConfigLoader,
        KubeConfigMerger,
    )

    configuration, given, until, save = client.Configuration(), None, math.inf, None
    try:
        if access.in_cluster:
            config.load_incluster_config(configuration, try_refresh_token=False)  # type: ignore[no-untyped-call]
            until = time.time() + READ_AGAIN
        else:
            if access.inline is not None:
                found = ConfigNode("kube-config", yaml.safe_load(access.inline))
            else:
                paths = access.kubeconfig or KUBE_CONFIG_DEFAULT_LOCATION
                merged = KubeConfigMerger(paths)
                if merged.config is None:
                    absent = " or ".join(filter(None, paths.split(ENV_KUBECONFIG_PATH_SEPARATOR)))
                    raise config.ConfigException(f"there is no file {absent}")
                found, save = merged.config, merged.save_changes
            user, folder = _user(found, access.context)
            _check_trust(access, user)
            if user.get("exec") and "auth-provider" not in user:
                given = await credential(user.pop("exec"), folder, refused)
                user.update(given.user)
                until = given.until
            elif not user.keys().isdisjoint(FILES):
                until = time.time() + READ_AGAIN
            loader = KubeConfigLoader(found, access.context, config_base_path=None, config_persister=save)
            await loader.load_and_set(configuration)
    except yaml.YAMLError as error:  # it quotes the line, which may hold a token, and so may who tells of its cause
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _unreadable(access, f"it is no YAML{where}") from None
    except (config.ConfigException, OSError, ValueError, TypeError) as error:
        raise _unreadable(access, error) from error
    if token := configuration.api_key.get("BearerToken"):
        configuration.api_key["BearerToken"] = token.strip()  # a file ends with a newline
    return configuration, given, until


def _user(found: Any, context: str | None) -> tuple[dict[str, Any], Path]:
    """The user of a context of a kubeconfig (``ConfigNode``), and the folder of the file that has it."""
    named = found["contexts"].get_with_name(context or found["current-context"])["context"].safe_get("user")
    node = found["users"].get_with_name(named, safe=True) if named and found.safe_get("users") else None
    if node is None or not isinstance(node.value.get("user"), dict):
        return {}, Path()
    return node.value["user"], Path(node.path).parent if node.path else Path()


def _check_trust(access: Access, user: Mapping[str, Any]) -> None:
    """:raises BackendError: the user of a kubeconfig takes more trust than there is."""
    if access.is_trusted:
        return
    refused = [name for name in (*PROGRAMS, *(FILES if access.inline is not None else ())) if user.get(name)]
    if refused:
        raise BackendError(
            f"the kubeconfig's user has {refused[0]!r}, by which who may edit connections could run programs in "
            "Airflow's API server, or read its files. There it is done only if Airflow's configuration has [practicus] "
            "trust_kubeconfigs = True; tasks and triggers do it anyway"
        )


def _made_of(configuration: Configuration) -> tuple[Any, ...]:
    files = (getattr(configuration, name) for name in CONNECTION_FILES)
    contents = (Path(file).read_bytes() if file and os.path.exists(file) else file for file in files)
    return (*(getattr(configuration, name) for name in CONNECTION), *contents)


def _unreadable(access: Access, error: object) -> BackendError:
    return BackendError(f"cannot read how to reach Kubernetes from {access}: {error}")
