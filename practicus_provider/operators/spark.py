"""Spark jobs."""

from __future__ import annotations

from typing import Any

from practicus_provider.links import SparkUILink
from practicus_provider.operators.job import PracticusRunJobOperator


class PracticusSparkOperator(PracticusRunJobOperator):
    """Runs an application on a temporary Spark cluster.

    Takes every argument of :class:`~practicus_provider.operators.job.PracticusRunJobOperator` but ``adapter``.
    ``conf`` holds Spark properties
    such as ``{"spark.sql.shuffle.partitions": "200"}``.
    """

    operator_extra_links = (SparkUILink(),)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(adapter="spark", **kwargs)
