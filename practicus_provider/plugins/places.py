"""Which connections lead to where clusters run."""

from __future__ import annotations

import contextlib
import os

from airflow.models import Connection
from airflow.secrets.environment_variables import CONN_ENV_PREFIX
from airflow.utils.session import create_session
from sqlalchemy import select

from practicus_provider.hooks.practicus import PracticusHook


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
