"""Buttons on a task's page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

DASHBOARD_KEY = "dashboard"
"""XCom that an operator pushes its cluster's URL under, as soon as it is known."""


class PracticusDashboardLink(BaseOperatorLink):
    """Opens the cluster's own web page; empty where it serves none."""

    name = "Cluster dashboard"

    @property
    def xcom_key(self) -> str:
        """The web server reads the link from here while the task runs, without this class."""
        return DASHBOARD_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """What was pushed. Airflow calls this when the task ends, and stores it under the same key again."""
        return XCom.get_value(ti_key=ti_key, key=DASHBOARD_KEY) or ""
