"""Connections to replicas, as ``httpcore`` takes them: a pool of HTTP connections whose hosts are tickets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import httpcore
from airflow.configuration import conf

from practicus_provider.backends.base import Backend, Connection, Handle
from practicus_provider.errors import ConnectionConfigError, NotFound, SpecError
from practicus_provider.hooks.practicus import PracticusHook
from practicus_provider.plan import Port
from practicus_provider.plugins.ticket import Ticket


async def backend_of(conn_id: str, namespace: str | None) -> Backend:
    """Of a connection's id, which comes from a URL: what else Airflow has under it is not told.

    :raises NotFound: there is no such connection of ours, or no namespace can have that name.
    """
    try:
        is_trusted = conf.getboolean("practicus", "trust_kubeconfigs", fallback=False)
        return await PracticusHook(conn_id, namespace, is_trusted).aget_conn()
    except ConnectionConfigError as error:
        raise NotFound(f"there is no connection {conn_id!r} to where clusters run, or it is not complete") from error
    except SpecError as error:
        raise NotFound(str(error)) from error


async def connect(ticket: str) -> Connection:
    """Connect to what a ticket is for.

    :raises Refused: the ticket is not good.
    :raises BackendError: it cannot be reached.
    """
    page = Ticket.read(ticket)
    backend = await backend_of(page.conn_id, page.namespace)
    return await backend.connect(Handle(page.cluster, page.uid), Port(page.role, page.port))


class Tunnels(httpcore.AsyncNetworkBackend):
    """Connects to the ticket that stands where URLs have a host."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """A connection in the replica."""
        try:
            async with asyncio.timeout(timeout):
                return Tunnel(await connect(host))
        except TimeoutError:
            raise httpcore.ConnectTimeout(f"no connection within {timeout:g} s") from None


class Tunnel(httpcore.AsyncNetworkStream):
    """One connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rest = b""

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """At most so many bytes; none at the end."""
        if not self._rest:
            try:
                async with asyncio.timeout(timeout):
                    self._rest = await self._connection.read()
            except TimeoutError:
                raise httpcore.ReadTimeout(f"no answer within {timeout:g} s") from None
        found, self._rest = self._rest[:max_bytes], self._rest[max_bytes:]
        return found

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """All of it."""
        await self._connection.write(buffer)

    async def aclose(self) -> None:
        """End it."""
        await self._connection.close()
