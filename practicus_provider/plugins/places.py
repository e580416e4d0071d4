"""Which connections lead to where clusters run, and there."""

from __future__ import annotations

import contextlib
import os
import time

from airflow.configuration import conf
from airflow.models import Connection
from airflow.secrets.environment_variables import CONN_ENV_PREFIX
from airflow.utils.session import create_session
from sqlalchemy import select

from practicus_provider.backends.base import Backend
from practicus_provider.errors import ConnectionConfigError, NotFound, SpecError
from practicus_provider.hooks.practicus import PracticusHook

FRESH = 2.0
"""Seconds for which a connection that was read is good for whatever a page loads next."""
_read: dict[tuple[str, str | None], tuple[float, Backend]] = {}


def connection_ids() -> list[str]:
    """Of all connections to where clusters run, that Airflow's database or the environment has. A secrets backend does
    not say which it has.
    """
    with create_session() as session:
        ours = Connection.conn_type == PracticusHook.conn_type
        found = set(session.scalars(select(Connection.conn_id).where(ours)))
    for name, value in os.environ.items():
        if name.startswith(CONN_ENV_PREFIX):
            with contextlib.suppress(Exception):  # one that is wrong, and another provider's perhaps
                conn_id = name.removeprefix(CONN_ENV_PREFIX).lower()
                is_json = value.lstrip().startswith("{")
                connection = Connection.from_json(value, conn_id) if is_json else Connection(conn_id, uri=value)
                if connection.conn_type == PracticusHook.conn_type:
                    found.add(conn_id)
    return sorted(found)


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


async def lately_backend_of(conn_id: str, namespace: str | None) -> Backend:
    """The same, or what it was a moment ago."""
    now, key = time.monotonic(), (conn_id, namespace)
    for old in [old for old, (since, _) in _read.items() if since + FRESH < now]:
        del _read[old]
    if key not in _read:
        _read[key] = now, await backend_of(conn_id, namespace)
    return _read[key][1]
