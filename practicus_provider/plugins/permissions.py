"""Who may see and do what, on all pages of clusters: it is Airflow's auth manager's to say."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Collection
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.base_auth_manager import ResourceMethod
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails, DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models import Connection, DagModel
from airflow.utils.session import create_session
from fastapi import Depends, HTTPException
from fastapi.concurrency import run_in_threadpool

from practicus_provider.errors import BackendError, NotFound

log = logging.getLogger(__name__)

Right = tuple[ResourceMethod, DagAccessEntity]
READ: Right = ("GET", DagAccessEntity.TASK_INSTANCE)
READ_LOGS: Right = ("GET", DagAccessEntity.TASK_LOGS)
CLEAR: Right = ("PUT", DagAccessEntity.TASK_INSTANCE)


def _is_there(dag_id: str) -> None:
    """A dependency: a user who may do something to all DAGs may do it to one that Airflow does not have."""
    with create_session() as session:
        if session.get(DagModel, dag_id) is None:
            raise HTTPException(404, f"there is no DAG {dag_id}")


def may(right: Right) -> list[Any]:
    """Dependencies: who asks has that right to the DAG in the path, which Airflow has."""
    return [Depends(requires_access_dag(*right)), Depends(_is_there)]


@contextlib.asynccontextmanager
async def reasons_for(user: BaseUser, conn_id: str) -> AsyncIterator[None]:
    """Why a connection fails is told to those who may read it, because it says where the connection leads."""
    try:
        yield
    except NotFound:
        raise
    except BackendError as error:
        if await run_in_threadpool(readable, user, [conn_id]):
            raise
        log.info("connection %s cannot be used: %s", conn_id, error)
        raise BackendError(f"connection {conn_id} cannot be used; who may read it in Airflow sees why") from None


def permitted(user: BaseUser, dag_ids: Collection[str], right: Right) -> set[str]:
    """Those of these DAGs that a user has that right to."""
    method, entity = right
    manager, teams = get_auth_manager(), DagModel.get_dag_id_to_team_name_mapping(sorted(dag_ids))
    return {
        dag_id
        for dag_id in dag_ids
        if manager.is_authorized_dag(
            method=method, access_entity=entity, details=DagDetails(dag_id, teams.get(dag_id)), user=user
        )
    }


def readable(user: BaseUser, conn_ids: Collection[str]) -> set[str]:
    """Those of these connections whose errors, which say where they lead, a user may read."""
    manager, teams = get_auth_manager(), Connection.get_conn_id_to_team_name_mapping(sorted(conn_ids))
    return {
        conn_id
        for conn_id in conn_ids
        if manager.is_authorized_connection(
            method="GET", details=ConnectionDetails(conn_id, teams.get(conn_id)), user=user
        )
    }
