"""Buttons on a task's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, urlencode, urlsplit

from airflow.sdk import BaseOperatorLink
from airflow.sdk.execution_time.xcom import XCom

from practicus_provider.compat import conf

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PREFIX = "/practicus"
"""Of the URLs that our plugin serves."""
UI_PREFIX = f"{PREFIX}/ui"
"""Of those of the page *Clusters*."""
UI_ROUTE = "practicus-clusters"
"""Under which Airflow's UI shows that page: ``/plugin/<route>``."""


class ClusterLink(BaseOperatorLink):
    """Where the operator has pushed an XCom says where it leads; else empty."""

    key: ClassVar[str]
    """Of the XCom, which is pushed as soon as the cluster is known."""

    @property
    def xcom_key(self) -> str:
        """The web server reads the link from here while the task runs, without this class."""
        return self.key

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """What was pushed. Airflow calls this when the task ends or waits, and stores it under the same key again.

        The process that launches the cluster knows it. To ask for an XCom that is not there logs an error.
        """
        known: Mapping[str, str] | None = getattr(operator, "known_links", None)
        return (XCom.get_value(ti_key=ti_key, key=self.key) or "") if known is None else known.get(self.key, "")


class PracticusClusterLink(ClusterLink):
    """Opens the cluster on the page *Clusters*. After its end the page says so."""

    name = "Cluster"
    key = "cluster_page"


class PracticusLogsLink(ClusterLink):
    """The same, with the log of a replica, and a choice of all of them."""

    name = "Logs of replicas"
    key = "cluster_logs"


class PracticusDashboardLink(ClusterLink):
    """Opens the cluster's own web page; empty where it serves none. After the cluster's end it says so."""

    name = "Cluster dashboard"
    key = "dashboard"


class SparkUILink(PracticusDashboardLink):
    """The same, as Spark's users call it."""

    name = "Spark UI"


class DaskDashboardLink(PracticusDashboardLink):
    """The same, as Dask's users call it."""

    name = "Dask dashboard"


class SparkHistoryLink(ClusterLink):
    """Opens Spark's history server, where the job writes its event log; else empty."""

    name = "Spark history"
    key = "spark_history"


def cluster_path(dag_id: str, conn_id: str, cluster: str, *, namespace: str | None, logs: bool = False) -> str:
    """Where Airflow's UI shows a cluster on the page *Clusters*, as a path on the UI's host.

    :param namespace: of the pods where it is not the connection's.
    :param logs: with the log of a replica.
    """
    facts = {"dag_id": dag_id, "connection": conn_id, "cluster": cluster, "namespace": namespace}
    query = urlencode({name: value for name, value in {**facts, "logs": "1" if logs else None}.items() if value})
    base = base_path()
    # Airflow frames what follows the route, and so it names the path that a browser sees.
    return f"{base}/plugin/{UI_ROUTE}{base}{UI_PREFIX}/page?{query}"


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
