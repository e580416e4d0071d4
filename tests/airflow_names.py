"""What tests use of Airflow that older versions have elsewhere, or otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk.bases.operator import BASEOPERATOR_ARGS_EXPECTED_TYPES

try:
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.sdk.exceptions import TaskDeferralError, TaskDeferralTimeout, TaskDeferred
    from airflow.sdk.listener import get_listener_manager
    from airflow.sdk.serde import deserialize, serialize
    from airflow.serialization.serialized_objects import DagSerialization
except ImportError:  # 3.1
    from airflow.exceptions import TaskDeferralError, TaskDeferralTimeout, TaskDeferred
    from airflow.listeners.listener import get_listener_manager
    from airflow.models.dagbag import DagBag
    from airflow.serialization.serde import deserialize, serialize
    from airflow.serialization.serialized_objects import SerializedDAG as DagSerialization

    BundleDagBag = None

try:
    from airflow.sdk.exceptions import AirflowSecretsBackendAccessDenied as AccessDenied
except ImportError:  # 3.1: a place for secrets denies access by an error of its own
    AccessDenied = PermissionError

__all__ = [
    "BACKOFFS",
    "DOUBLED",
    "AccessDenied",
    "DagSerialization",
    "TaskDeferralError",
    "TaskDeferralTimeout",
    "TaskDeferred",
    "dag_bag",
    "deserialize",
    "get_listener_manager",
    "serialize",
]

BACKOFFS: tuple[float, ...] = (0, 0.5, 1, 1.2, 2, 3)
"""What ``retry_exponential_backoff`` may be."""
DOUBLED: float = 2
if BASEOPERATOR_ARGS_EXPECTED_TYPES["retry_exponential_backoff"] is bool:  # 3.1
    BACKOFFS, DOUBLED = (False, True), True


def dag_bag(dags: Path, bundle: Path | None = None) -> Any:
    """The DAGs in a folder or file, as Airflow reads them, and the errors that it shows.

    :param bundle: the folder of DAGs, if it is another one.
    """
    if BundleDagBag is None:
        return DagBag(str(dags), include_examples=False, bundle_path=bundle or dags)
    return BundleDagBag(str(dags), bundle_path=bundle or dags, bundle_name="tests")
