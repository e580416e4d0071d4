"""Requests to one Kubernetes API server: plain objects in and out, errors that say what to do.

Who asks, and by which connection, is :mod:`.access`'s to say.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from practicus_provider.backends.kubernetes.access import Access, Login, Logins
from practicus_provider.backends.kubernetes.exec_plugin import CredentialsError
from practicus_provider.backends.kubernetes.refusals import explain
from practicus_provider.errors import BackendError, NotFound

if TYPE_CHECKING:
    import aiohttp

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""

PATHS = {
    "Pod": ("api/v1", "pods"),
    "ConfigMap": ("api/v1", "configmaps"),
    "Service": ("api/v1", "services"),
    "Secret": ("api/v1", "secrets"),
    "ServiceAccount": ("api/v1", "serviceaccounts"),
    "Event": ("api/v1", "events"),
    "ResourceQuota": ("api/v1", "resourcequotas"),
    "PodMetrics": ("apis/metrics.k8s.io/v1beta1", "pods"),
    "Job": ("apis/batch/v1", "jobs"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    "Role": ("apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
}
MANAGER = "practicus"
"""Field manager of what we apply."""
CREATES = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
"""A misspelt field is refused, as server-side apply does by itself."""
TRIES = 5
"""Of a request that the server asks to repeat, or that did not reach it."""
BACKOFF = 0.5
"""Seconds before the second try; doubled for each further one, at most :data:`LONGEST_BACKOFF`, times 0.5 to 1.5."""
LONGEST_BACKOFF = 5.0
TIMEOUT = 30.0
"""Seconds that one request may take."""
AT_ONCE = 64
"""Requests that one connection has under way; of thousands of clusters that end together, the others wait. Answers that
last, as a watch's, are not counted."""
PAGE = 100
"""Objects that are asked for at a time: a list of thousands is never whole in memory, and what is decoded in one step,
in which all else in this event loop waits, takes some 10 ms (a pod is 5 to 10 kB of JSON)."""
NODES_SEEN = 500
"""Nodes that are looked at, at most: each is some 20 kB of JSON."""
CLOSE_TIMEOUT = 1.0
"""Seconds that a WebSocket's other end has to agree to its end."""
NOT_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE")
"""OpenSSL's names for an answer that is no TLS at all, as where a kubeconfig says ``https`` of a server without it."""
PATIENCE = 300.0
"""Seconds that the API server may be out of reach, or refuse what it allowed before, until those who follow a cluster
are told: a control plane's restart must not end jobs."""


class ApiError(BackendError):
    """The API server refused.

    :param status: HTTP status.
    :param reason: of the server's ``Status`` object, e.g. ``AlreadyExists``.
    """

    def __init__(self, message: str, status: int, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Lines:
    """The lines of an answer that may last."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Whole lines, with their newlines: those of who knows that they are short.

        :raises OSError: on the way, if the connection breaks.
        """
        rest = b""
        async for data in self.chunks():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield line + b"\n"
        if rest:
            yield rest

    async def chunks(self) -> AsyncIterator[bytes]:
        """What comes, as it comes.

        :raises OSError: see :meth:`__aiter__`.
        """
        import aiohttp

        try:
            async for data in self._answer.content.iter_any():
                yield data
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error

    def cut(self) -> None:
        """Break the connection, also under whoever reads."""
        _abort(self._answer)


class Api:
    """Objects of one namespace. Open it with :func:`connected`.

    :param patience: seconds for which a request is repeated at least, that the server asks to repeat or that did not
        reach it, beyond :data:`TRIES`.
    """

    def __init__(self, logins: Logins, namespace: str, patience: float = 0.0) -> None:
        self._logins = logins
        self.namespace = namespace
        self.patience = patience
        self._skew = 0.0
        self.turns = asyncio.Semaphore(AT_ONCE)

    async def get(self, kind: str, name: str) -> Manifest | None:
        """An object; None if there is none."""
        with contextlib.suppress(NotFound):
            return await self._json("GET", self._path(kind, name))
        return None

    async def list(self, kind: str, **query: str) -> Manifest:
        """A list object: its ``items``, and its ``metadata.resourceVersion``."""
        return await self._json("GET", self._path(kind), query=query)

    async def pages(self, kind: str, **query: str) -> AsyncIterator[Manifest]:
        """As :meth:`list`, some objects at a time; the last one's version is that of all."""
        query = {**query, "limit": str(PAGE)}
        while True:
            found = await self.list(kind, **query)
            yield found
            if not (following := found["metadata"].get("continue")):
                return
            query["continue"] = following

    async def create(self, manifest: Manifest, **query: str) -> Manifest:
        """Create it.

        :raises ApiError: with reason ``AlreadyExists`` among others.
        """
        return await self._json("POST", self._path(manifest["kind"]), manifest, {**CREATES, **query})

    async def apply(self, manifest: Manifest) -> Manifest:
        """Create it, or make what is there the same (server-side apply)."""
        path = self._path(manifest["kind"], manifest["metadata"]["name"])
        query = {"fieldManager": MANAGER, "force": "true"}
        return await self._json("PATCH", path, manifest, query, "application/apply-patch+yaml")

    async def patch(self, kind: str, name: str, change: Manifest, subresource: str = "") -> Manifest:
        """Merge a change into an object.

        :param subresource: of it, such as ``status``, which is changed by itself alone.
        :raises NotFound: there is none.
        """
        path = self._path(kind, name) + (f"/{subresource}" if subresource else "")
        return await self._json("PATCH", path, change, {}, "application/merge-patch+json")

    async def patch_if(self, kind: str, name: str, operations: Sequence[Manifest]) -> bool:
        """Change an object by a JSON patch (RFC 6902); False: there is none, or it is not as the patch's tests say."""
        try:
            await self._json("PATCH", self._path(kind, name), operations, {}, "application/json-patch+json")
        except NotFound:
            return False
        except ApiError as error:
            if error.status == 422:
                return False
            raise
        return True

    async def delete_all(self, kind: str, field_selector: str, **options: Any) -> None:
        """Delete all of a kind that a field selector names. ``options`` are those of ``DeleteOptions``."""
        await self._json("DELETE", self._path(kind), options, {"fieldSelector": field_selector})

    async def delete(self, kind: str, name: str, **options: Any) -> None:
        """Delete it; absent is fine. ``options`` are those of ``DeleteOptions``."""
        with contextlib.suppress(NotFound):
            await self._json("DELETE", self._path(kind, name), options)

    async def home(self) -> Manifest:
        """The namespace itself.

        :raises ApiError: with status 403 where we may not see it.
        """
        return await self._json("GET", f"/api/v1/namespaces/{segment(self.namespace)}")

    async def admission_policy(self, name: str) -> bool:
        """Whether there is a ``ValidatingAdmissionPolicy`` of that name, with a binding of the same.

        :raises ApiError: with status 403 where we may not see them.
        """
        for plural in ("validatingadmissionpolicies", "validatingadmissionpolicybindings"):
            try:
                await self._json("GET", f"/apis/admissionregistration.k8s.io/v1/{plural}/{segment(name)}")
            except NotFound:
                return False
        return True

    async def nodes(self) -> Sequence[Manifest]:
        """The whole cluster's nodes, of very many the first :data:`NODES_SEEN`.

        :raises ApiError: with status 403 where we may not see them.
        """
        found: Sequence[Manifest] = (await self._json("GET", "/api/v1/nodes", query={"limit": str(NODES_SEEN)}))[
            "items"
        ]
        return found

    @contextlib.asynccontextmanager
    async def stream(self, path: str, *, silence: float, **query: str) -> AsyncIterator[Lines]:
        """The lines of an answer that may last, such as a log's.

        :param path: below the namespace, e.g. ``pods/x/log``.
        :param silence: seconds without a byte after which the connection counts as broken.
        """
        async with self._lasting(self._prefix("api/v1") + path, query, silence) as lines:
            yield lines

    @contextlib.asynccontextmanager
    async def watch(self, kind: str, *, silence: float, **query: str) -> AsyncIterator[AsyncIterator[Manifest]]:
        """Watch events of a kind (``{"type": ..., "object": ...}``) until the server ends it.

        :param silence: see :meth:`stream`.
        :raises OSError: on the way, if the connection breaks.
        """
        async with self._lasting(self._path(kind), {"watch": "true", **query}, silence) as lines:
            yield _events(lines)

    async def websocket(self, path: str, protocol: str, **query: str) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket; the caller closes it.

        :param path: below the namespace, e.g. ``pods/x/portforward``.
        """
        import aiohttp

        url = f"{self.host}{self._prefix('api/v1')}{path}?{urlencode(query)}"

        async def shake(login: Login) -> aiohttp.ClientWebSocketResponse:
            rest = login.client.rest_client
            found: aiohttp.ClientWebSocketResponse = await rest.pool_manager.ws_connect(
                url,
                protocols=(protocol,),
                headers=_authorized(login, {}),
                proxy=rest.proxy,
                proxy_headers=rest.proxy_headers,
                server_hostname=rest.server_hostname,
                timeout=aiohttp.ClientWSTimeout(ws_close=CLOSE_TIMEOUT),
            )
            return found

        login = await self._logins.login()
        try:
            async with asyncio.timeout(TIMEOUT):
                try:
                    return await shake(login)
                except aiohttp.WSServerHandshakeError as error:
                    if error.status != 401 or (other := await self._logins.login(refused=login)).is_as(login):
                        raise
                return await shake(other)
        except aiohttp.WSServerHandshakeError as error:
            what = f"{path} answers {error.message!r}"
            raise ApiError(explain("GET", error.status, what, self.namespace), error.status) from error
        except (OSError, TimeoutError, aiohttp.ClientError) as error:
            raise BackendError(self._unreachable(error)) from error

    def now(self) -> float:
        """Seconds since the epoch by the server's clock, which ours may differ from."""
        return time.time() + self._skew

    @property
    def host(self) -> str:
        """URL of the server."""
        return self._logins.host

    async def may(self, verb: str, resource: str) -> bool:
        """Whether we may do that in the namespace (``SelfSubjectAccessReview``).

        :param resource: with its group and subresource, e.g. ``jobs.batch`` or ``pods/log``.
        """
        name, _, group = resource.partition(".")
        plural, _, subresource = name.partition("/")
        attributes = {
            "namespace": self.namespace,
            "verb": verb,
            "group": group,
            "resource": plural,
            "subresource": subresource,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool((await self._json("POST", path, review))["status"]["allowed"])

    # ---- one request

    def _prefix(self, group: str) -> str:
        return f"/{group}/namespaces/{segment(self.namespace)}/"

    def _path(self, kind: str, name: str = "") -> str:
        group, plural = PATHS[kind]
        return self._prefix(group) + plural + (f"/{segment(name)}" if name else "")

    async def _json(
        self,
        method: str,
        path: str,
        body: Manifest | Sequence[Manifest] | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Manifest:
        import aiohttp

        delay, began = BACKOFF, time.monotonic()
        for number in itertools.count(1):
            last = number >= TRIES and time.monotonic() - began >= self.patience
            limit = aiohttp.ClientTimeout(total=TIMEOUT)
            try:
                async with self.turns, await self._send(method, path, body, query or {}, content_type, limit) as answer:
                    if last or not (answer.status == 429 or answer.status >= 500):
                        await self._check(method, answer)
                        found: Manifest = await answer.json()
                        return found
                    asked = answer.headers.get("Retry-After", "")
                    least = float(asked) if asked.isdecimal() else 0.0
            except CredentialsError:
                least = 0.0
                if last:
                    raise
            except (OSError, TimeoutError, aiohttp.ClientError) as error:
                least = 0.0
                if last:
                    raise BackendError(self._unreachable(error)) from error
            await asyncio.sleep(max(least, delay * random.uniform(0.5, 1.5)))
            delay = min(2 * delay, LONGEST_BACKOFF)
        raise AssertionError("unreachable")

    def _unreachable(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return f"the Kubernetes API server at {self.host} does not answer within {TIMEOUT:g} s"
        return f"the Kubernetes API server at {self.host} cannot be reached: {str(error) or type(error).__name__}"

    def _untrusted(self, error: Exception | None) -> str:
        return (
            f"the Kubernetes API server at {self.host} is not as the kubeconfig describes it: {error}; "
            "mend its server, certificate-authority or tls-server-name"
        )

    @contextlib.asynccontextmanager
    async def _lasting(self, path: str, query: Mapping[str, str], silence: float) -> AsyncIterator[Lines]:
        import aiohttp

        limit = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=silence)
        answer = await self._send("GET", path, None, query, "application/json", limit)
        try:
            await self._check("GET", answer)
            yield Lines(answer)
        finally:
            _abort(answer)

    async def _send(
        self,
        method: str,
        path: str,
        body: Manifest | Sequence[Manifest] | None,
        query: Mapping[str, str],
        content_type: str,
        limit: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        async def ask(login: Login) -> aiohttp.ClientResponse:
            answer: aiohttp.ClientResponse = await login.client.rest_client.request(
                method,
                f"{login.host}{path}" + (f"?{urlencode(query)}" if query else ""),
                headers=_authorized(login, {"Content-Type": content_type, "Accept": "application/json"}),
                body=body,
                _preload_content=False,
                _request_timeout=limit,
            )
            return answer

        login = await self._logins.login()
        with self._as_ours():
            answer = await ask(login)
            if answer.status == 401 and not (other := await self._logins.login(refused=login)).is_as(login):
                answer.release()
                answer = await ask(other)
        if date := answer.headers.get("Date"):
            self._skew = parsedate_to_datetime(date).timestamp() - time.time()
        return answer

    @contextlib.contextmanager
    def _as_ours(self) -> Iterator[None]:
        """An error of the connection as an ``OSError``, after which one asks again; or as what another try won't mend.

        :raises BackendError: the server is not who it should be.
        """
        import aiohttp

        try:
            yield
        except TimeoutError:
            raise
        except aiohttp.ClientConnectorCertificateError as error:
            raise BackendError(self._untrusted(error.certificate_error)) from error
        except aiohttp.ClientError as error:
            cause = error.os_error if isinstance(error, aiohttp.ClientConnectorSSLError) else None
            if getattr(cause, "reason", None) in NOT_TLS:
                raise BackendError(self._untrusted(cause)) from error
            raise ConnectionError(str(error)) from error

    async def _check(self, method: str, answer: aiohttp.ClientResponse) -> None:
        if answer.status < 400:
            return
        text = await answer.text()
        try:
            status = json.loads(text)
            message, reason = str(status["message"]), str(status.get("reason", ""))
        except (ValueError, KeyError, TypeError):
            message, reason = text.strip() or str(answer.reason), ""
        if answer.status == 404 and reason == "NotFound" and "namespaces" not in message:
            raise NotFound(message)
        raise ApiError(explain(method, answer.status, message, self.namespace), answer.status, reason)


@contextlib.asynccontextmanager
async def connected(access: Access, namespace: str, patience: float = 0.0) -> AsyncIterator[Api]:
    """An :class:`Api` for as long as it is needed."""
    logins = Logins(access)
    try:
        await logins.login()
        yield Api(logins, namespace, patience)
    finally:
        await logins.close()


def segment(name: str) -> str:
    """A name as a part of a path.

    :raises NotFound: no object can have it, as it would be more than a part, or lead elsewhere (Kubernetes'
        ``IsValidPathSegmentName``, ``k8s.io/apimachinery/pkg/api/validation/path``).
    """
    if name in (".", "..") or "/" in name or "%" in name:
        raise NotFound(f"there is nothing named {name!r}, as nothing on Kubernetes can be")
    return quote(name, safe="")


def _authorized(login: Login, headers: dict[str, str]) -> dict[str, str]:
    return headers if login.authorization is None else {**headers, "authorization": login.authorization}


def _abort(answer: aiohttp.ClientResponse) -> None:
    """End a connection without a farewell: one that is left amid an answer may have nobody at its other end.

    Closing it would wait 30 s for that one's part of TLS' end (``ssl_shutdown_timeout`` in Python's asyncio).
    """
    if answer.connection is not None and answer.connection.transport is not None:
        answer.connection.transport.abort()
    answer.close()


async def _events(lines: Lines) -> AsyncIterator[Manifest]:
    async for line in lines:
        try:
            yield json.loads(line)
        except ValueError as error:
            raise ConnectionError(f"the connection broke amid an event: {error}") from error
