"""How the tests' Airflow uses its SQLite: Airflow imports this module before it connects."""

from __future__ import annotations

import sys
from typing import Any

from sqlalchemy import Engine, Table, event

__all__: list[str] = []  # of Airflow's settings none is changed
PATIENCE = 120_000
"""Milliseconds that all but the API server wait for who writes: a scheduler that cannot write ends."""


@event.listens_for(Table, "before_create")
def _numbered(table: Table, *_: object, **__: object) -> None:
    """SQLite gives a deleted row's number again, other databases do not: a trigger's event, which comes after its task
    was cleared and deferred anew, would be the new trigger's."""
    if table.name == "trigger":
        table.dialect_options["sqlite"]["autoincrement"] = True


@event.listens_for(Engine, "connect")
def _connected(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # It need not outlive the machine; and a disk that others keep busy takes seconds to say that something is written.
    cursor.execute("PRAGMA synchronous=OFF")
    if "api-server" not in sys.argv:
        cursor.execute(f"PRAGMA busy_timeout={PATIENCE}")
    cursor.close()
