"""Buttons on a task's page."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.configuration import conf
from airflow.sdk.execution_time.xcom import XCom

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

DASHBOARD_KEY = "dashboard"
"""XCom that an operator pushes its cluster's URL under, as soon as it is known."""
PREFIX = "/practicus"
"""Of the URLs that our plugin serves."""


class PracticusDashboardLink(BaseOperatorLink):
    """Opens the cluster's own web page; empty where it serves none. After the cluster's end it says so."""

    name = "Cluster dashboard"

    @property
    def xcom_key(self) -> str:
        """The web server reads the link from here while the task runs, without this class."""
        return DASHBOARD_KEY

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """What was pushed. Airflow calls this when the task ends, and stores it under the same key again."""
        return XCom.get_value(ti_key=ti_key, key=DASHBOARD_KEY) or ""


class SparkUILink(PracticusDashboardLink):
    """The same, as Spark's users call it."""

    name = "Spark UI"


class DaskDashboardLink(PracticusDashboardLink):
    """The same, as Dask's users call it."""

    name = "Dask dashboard"


def dashboard_path(dag_id: str, conn_id: str, cluster: str, **more: str | None) -> str:
    """Where our plugin leads to a cluster's web pages, as a path on the host of Airflow's UI.

    :param more: ``namespace`` of the pods where it is not the connection's, and ``label`` of one page.
    """
    path = "/".join(quote(word, safe="") for word in (dag_id, conn_id, cluster))
    query = urlencode({name: value for name, value in more.items() if value is not None})
    return f"{base_path()}{PREFIX}/clusters/{path}" + (f"?{query}" if query else "")


def base_path() -> str:
    """Path of Airflow's UI, by ``[api] base_url``; empty at the host's root."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
