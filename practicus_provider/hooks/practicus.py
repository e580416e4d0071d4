"""From an Airflow connection to a backend."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined]  # all versions have it there
from airflow.sdk.bases.hook import BaseHook

from practicus_provider.errors import ConnectionConfigError, PracticusError, SpecError
from practicus_provider.names import is_dns_label
from practicus_provider.pod_settings import OF_CONNECTIONS, PodSettings, check_pod_overrides
from practicus_provider.spec import parse_quantity

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from practicus_provider.backends.base import Backend
    from practicus_provider.backends.kubernetes.access import Access
    from practicus_provider.pricing import Pricing

BACKENDS = ("kubernetes", "local")
LEAST_LOG = 1 << 20
"""Bytes of a replica's log that have to be kept: those that a verdict looks at are among them."""


class PracticusHook(BaseHook):
    """Gives the backend that a connection of type ``practicus`` names.

    :param practicus_conn_id: the connection's id.
    :param namespace: of the pods on Kubernetes, instead of the connection's.
    :param is_trusted: whether the connection's kubeconfig may have programs run here.
    """

    conn_name_attr = "practicus_conn_id"
    default_conn_name = "practicus_default"
    conn_type = "practicus"
    hook_name = "Practicus"

    def __init__(
        self,
        practicus_conn_id: str = default_conn_name,
        namespace: str | None = None,
        is_trusted: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.practicus_conn_id = practicus_conn_id
        self.namespace = namespace
        self.is_trusted = is_trusted

    def get_conn(self) -> Backend:
        """The backend, ready to use.

        :raises ConnectionConfigError: the connection is absent or wrong; the message says what to do.
        """
        extra = self._extra(self._connection(self.practicus_conn_id))
        other = extra.get("kubernetes_conn_id")
        return self._backend(extra, self._connection(other).extra_dejson if other else {})

    async def aget_conn(self) -> Backend:
        """As :meth:`get_conn`, where an event loop runs."""
        extra = self._extra(await self._aconnection(self.practicus_conn_id))
        other = extra.get("kubernetes_conn_id")
        return self._backend(extra, (await self._aconnection(other)).extra_dejson if other else {})

    def test_connection(self) -> tuple[bool, str]:
        """Whether replicas could run there, and a sentence for Airflow's *Test* button."""
        import asyncio

        try:
            return True, asyncio.run(self.get_conn().check())
        except PracticusError as error:
            return False, str(error)

    def spark_history(self) -> str | None:
        """URL of Spark's history server, if the connection names one.

        :raises ConnectionConfigError: the connection is absent, or of another type.
        """
        url = self._extra(self._connection(self.practicus_conn_id)).get("spark_history")
        return None if url is None else str(url)

    def _connection(self, conn_id: str) -> Connection:
        try:
            return self.get_connection(conn_id)
        except AirflowNotFoundException as error:
            raise self._absent(conn_id, _failing(conn_id)) from error
        except Exception as error:
            raise self._unread(conn_id, f"{type(error).__name__}: {error}") from error

    async def _aconnection(self, conn_id: str) -> Connection:
        import asyncio

        try:
            return await self.aget_connection(conn_id)
        except AirflowNotFoundException as error:
            raise self._absent(conn_id, await asyncio.to_thread(_failing, conn_id)) from error
        except Exception as error:
            raise self._unread(conn_id, f"{type(error).__name__}: {error}") from error

    def _absent(self, conn_id: str, failing: Sequence[str]) -> ConnectionConfigError:
        """:param failing: places that could not say whether they have it."""
        if failing:
            return self._unread(conn_id, "; ".join(failing))
        if conn_id != self.practicus_conn_id:
            return ConnectionConfigError(
                f"connection {self.practicus_conn_id!r} has the extra kubernetes_conn_id={conn_id!r}; there is none"
            )
        return ConnectionConfigError(
            f"there is no connection {conn_id!r}. Add it: airflow connections add {conn_id} --conn-type practicus "
            '--conn-extra \'{"backend": "local"}\' (or "kubernetes", with "namespace" and "image")'
        )

    def _unread(self, conn_id: str, why: str) -> ConnectionConfigError:
        return ConnectionConfigError(f"connection {conn_id!r} cannot be read: {why}")

    def _extra(self, connection: Connection) -> dict[str, Any]:
        if connection.conn_type != self.conn_type:
            raise ConnectionConfigError(
                f"connection {self.practicus_conn_id!r} is of type {connection.conn_type!r}; "
                f"give one of type {self.conn_type!r}"
            )
        return {key: value for key, value in connection.extra_dejson.items() if value not in (None, "")}

    def _backend(self, extra: Mapping[str, Any], other: Mapping[str, Any]) -> Backend:
        match extra.get("backend", "kubernetes"):
            case "kubernetes":
                return self._kubernetes(extra, other)
            case "local":
                return self._local(extra)
        raise self._wrong(extra, "backend", f"choose one of {', '.join(BACKENDS)}")

    def _local(self, extra: Mapping[str, Any]) -> Backend:
        from practicus_provider.backends.local import LocalBackend

        try:
            ttl = float(extra.get("ttl", LocalBackend.ttl))
            if not ttl >= 0:
                raise ValueError
        except (TypeError, ValueError):
            raise self._wrong(extra, "ttl", "give a number of seconds") from None
        try:
            log_limit = int(parse_quantity("log_limit", extra.get("log_limit", LocalBackend.log_limit)))
        except SpecError:
            log_limit = 0
        if log_limit < LEAST_LOG:
            raise self._wrong(extra, "log_limit", "give bytes, or a quantity such as '500Mi', of at least '1Mi'")
        home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow"))
        root = Path(extra.get("root", home / "practicus")).expanduser()
        pythons = self._by_adapter(extra, "pythons", "Python")
        python = extra.get("python", sys.executable)
        return LocalBackend(root, python, ttl, pythons, self._pricing(extra), log_limit)

    def _kubernetes(self, extra: Mapping[str, Any], other: Mapping[str, Any]) -> Backend:
        from practicus_provider.backends.kubernetes import KubernetesBackend
        from practicus_provider.backends.kubernetes.pod_template import Site

        namespace = self.namespace or extra.get("namespace") or other.get("namespace") or "default"
        if not is_dns_label(namespace):
            way_out = "give lower-case letters, digits and hyphens, 63 at most, as Kubernetes names namespaces"
            raise (
                SpecError("namespace", namespace, way_out)
                if self.namespace
                else self._wrong(extra, "namespace", way_out)
            )
        overrides = self._object(extra, "pod_overrides", "part of a pod template")
        try:
            check_pod_overrides(overrides)
        except SpecError as error:
            raise self._wrong(extra, "pod_overrides", f"give an object: part of a pod template: {error}") from error
        images = self._by_adapter(extra, "images", "image")
        site = Site(namespace, extra.get("image"), overrides, images, self._defaults(extra))
        return KubernetesBackend(self._access(extra, other), site, self._pricing(extra))

    def _defaults(self, extra: Mapping[str, Any]) -> PodSettings:
        """What pods take of jobs that say nothing of it. A connection's URL has texts alone."""
        given = {name: extra[name] for name in OF_CONNECTIONS if name in extra}
        if isinstance(number := given.get("run_as_uid"), str) and number.isdecimal():
            given["run_as_uid"] = int(number)
        if "secrets" in given:
            given["secrets"] = self._object(extra, "secrets", "environment variable -> 'secret-name/key'")
        if "egress" in given:
            given["egress"] = self._list(extra, "egress", "of CIDRs such as '10.0.0.0/8'")
        try:
            return PodSettings(**given)
        except SpecError as error:
            raise self._wrong(extra, error.field, f"mend {error}") from error

    def _pricing(self, extra: Mapping[str, Any]) -> Pricing | None:
        """What replicas cost, if the connection says."""
        if "pricing" not in extra:
            return None
        from practicus_provider.pricing import Pricing

        try:
            return Pricing(**self._object(extra, "pricing", "prices, such as cpu_hour, and their currency"))
        except TypeError:
            prices = ", ".join(name for name in Pricing.__dataclass_fields__ if name != "currency")
            raise self._wrong(extra, "pricing", f"give currency, and of {prices} what has a price") from None
        except SpecError as error:
            raise self._wrong(extra, "pricing", f"mend {error}") from error

    def _by_adapter(self, extra: Mapping[str, Any], name: str, what: str) -> Mapping[str, str]:
        """An extra that names something for each adapter."""
        found = self._object(extra, name, f"adapter -> {what}")
        if not all(isinstance(value, str) for value in found.values()):
            raise self._wrong(extra, name, f"give an object: adapter -> {what}")
        return found

    def _object(self, extra: Mapping[str, Any], name: str, what: str) -> Mapping[str, Any]:
        """An extra that is an object, or JSON of one."""
        found = _parsed(extra.get(name, {}))
        if not isinstance(found, Mapping):
            raise self._wrong(extra, name, f"give an object: {what}")
        return found

    def _list(self, extra: Mapping[str, Any], name: str, what: str) -> tuple[Any, ...]:
        """An extra that is a list, or JSON of one."""
        found = _parsed(extra[name])
        if not isinstance(found, list):
            raise self._wrong(extra, name, f"give a list {what}")
        return tuple(found)

    def _access(self, extra: Mapping[str, Any], other: Mapping[str, Any]) -> Access:
        """Ours, or that of a connection of cncf-kubernetes."""
        from practicus_provider.backends.kubernetes.access import Access

        context = extra.get("context") or other.get("cluster_context")
        if extra.get("in_cluster") or other.get("in_cluster"):
            return Access(in_cluster=True)
        secret, plain = extra.get("kubeconfig_secret"), extra.get("kubeconfig")
        given = secret or plain or other.get("kube_config_path") or other.get("kube_config")
        if given is None or not (secret or isinstance(given, Mapping) or "apiVersion" in given):
            path = None if given is None else str(Path(given).expanduser())
            return Access(path, None, context, is_trusted=self.is_trusted)
        if given is plain:
            warnings.warn(
                f"connection {self.practicus_conn_id!r} has a kubeconfig's content in its extra kubeconfig, which all "
                "can read who may read the connection: move it to kubeconfig_secret, which Airflow masks",
                DeprecationWarning,
                stacklevel=2,
            )
        content = json.dumps(given) if isinstance(given, Mapping) else given
        return Access(None, content, context, is_trusted=self.is_trusted)

    def _wrong(self, extra: Mapping[str, Any], name: str, way_out: str) -> ConnectionConfigError:
        return ConnectionConfigError(
            f"connection {self.practicus_conn_id!r} has the extra {name}={extra.get(name)!r}; {way_out}"
        )


def _parsed(value: Any) -> Any:
    """What a text is JSON of, if it is; a connection's URL has texts alone."""
    with contextlib.suppress(ValueError):
        return json.loads(value) if isinstance(value, str) else value
    return value


def _failing(conn_id: str) -> list[str]:
    """Which of Airflow's places for connections fail as they are asked for one, and why.

    Airflow takes a place that fails for one that has none, and tells neither that it did (Airflow 3.3,
    ``airflow.sdk.execution_time.context``, ``_get_connection``).
    """
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded

    failing = []
    for place in ensure_secrets_backend_loaded():
        name = type(place).__name__
        if name == "ExecutionAPISecretsBackend":  # it never fails, and may be asked by the event loop alone
            continue
        try:
            place.get_connection(conn_id)
        except Exception as error:
            failing.append(f"{name} fails with {type(error).__name__}: {error}")
    return failing
