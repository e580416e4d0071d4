"""From an Airflow connection to a backend."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk.bases.hook import BaseHook

from practicus_provider.errors import ConnectionConfigError, PracticusError

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from practicus_provider.backends.base import Backend

BACKENDS = ("local",)


class PracticusHook(BaseHook):
    """Gives the backend that a connection of type ``practicus`` names.

    :param practicus_conn_id: the connection's id.
    """

    conn_name_attr = "practicus_conn_id"
    default_conn_name = "practicus_default"
    conn_type = "practicus"
    hook_name = "Practicus"

    def __init__(self, practicus_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.practicus_conn_id = practicus_conn_id

    def get_conn(self) -> Backend:
        """The backend, ready to use.

        :raises ConnectionConfigError: the connection is absent or wrong; the message says what to do.
        """
        try:
            connection = self.get_connection(self.practicus_conn_id)
        except Exception as error:
            raise self._absent() from error
        return self._backend(connection)

    async def aget_conn(self) -> Backend:
        """As :meth:`get_conn`, where an event loop runs."""
        try:
            connection = await self.aget_connection(self.practicus_conn_id)
        except Exception as error:
            raise self._absent() from error
        return self._backend(connection)

    def test_connection(self) -> tuple[bool, str]:
        """Whether replicas could run there, and a sentence for Airflow's *Test* button."""
        from practicus_provider.backends.local import LocalBackend

        try:
            backend = self.get_conn()
            assert isinstance(backend, LocalBackend)
            return True, backend.check()
        except PracticusError as error:
            return False, str(error)

    def _absent(self) -> ConnectionConfigError:
        return ConnectionConfigError(
            f"there is no connection {self.practicus_conn_id!r}. Add it: airflow connections add "
            f'{self.practicus_conn_id} --conn-type practicus --conn-extra \'{{"backend": "local"}}\''
        )

    def _backend(self, connection: Connection) -> Backend:
        from practicus_provider.backends.local import LocalBackend

        if connection.conn_type != self.conn_type:
            raise ConnectionConfigError(
                f"connection {self.practicus_conn_id!r} is of type {connection.conn_type!r}; "
                f"give one of type {self.conn_type!r}"
            )
        extra = connection.extra_dejson
        if extra.get("backend") not in BACKENDS:
            raise ConnectionConfigError(
                f"connection {self.practicus_conn_id!r} has the extra backend={extra.get('backend')!r}; "
                f"choose one of {', '.join(BACKENDS)}"
            )
        try:
            given = extra.get("ttl")
            ttl = LocalBackend.ttl if given in (None, "") else float(given)
            if not ttl >= 0:
                raise ValueError
        except (TypeError, ValueError):
            raise ConnectionConfigError(
                f"connection {self.practicus_conn_id!r} has the extra ttl={extra['ttl']!r}; give a number of seconds"
            ) from None
        home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow"))
        root = Path(extra.get("root") or home / "practicus").expanduser()
        return LocalBackend(root, extra.get("python") or sys.executable, ttl)
