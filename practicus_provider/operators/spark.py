"""Spark jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from practicus_provider.links import SparkHistoryLink, SparkUILink
from practicus_provider.operators.base import CLUSTER_LINKS
from practicus_provider.operators.job import PracticusRunJobOperator

if TYPE_CHECKING:
    from practicus_provider.backends.base import Listing

EVENT_LOG = "spark.eventLog.enabled"
"""Spark's property that has it write what its history server shows."""


class PracticusSparkOperator(PracticusRunJobOperator):
    """Runs an application on a temporary Spark cluster.

    Takes every argument of :class:`~practicus_provider.operators.job.PracticusRunJobOperator` but ``adapter``.
    ``conf`` holds Spark properties
    such as ``{"spark.sql.shuffle.partitions": "200"}``.
    """

    operator_extra_links = (SparkUILink(), SparkHistoryLink(), *CLUSTER_LINKS)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(adapter="spark", **kwargs)

    def links(self, cluster: Listing, dag_id: str) -> dict[str, str]:
        """See :meth:`ClusterOperator.links`; with the history server's, if the job writes an event log for it."""
        found = super().links(cluster, dag_id)
        if str(self.spec().settings.get(EVENT_LOG, "")).lower() == "true" and (url := self.hook.spark_history()):
            found[SparkHistoryLink.key] = url
        return found
