"""Dask jobs."""

from __future__ import annotations

from typing import Any

from practicus_provider.links import DaskDashboardLink
from practicus_provider.operators.base import CLUSTER_LINKS
from practicus_provider.operators.job import PracticusRunJobOperator


class PracticusDaskOperator(PracticusRunJobOperator):
    """Runs an application on a temporary Dask cluster.

    Takes every argument of :class:`~practicus_provider.operators.job.PracticusRunJobOperator` but ``adapter``.
    ``conf`` holds keys of
    Dask's configuration such as ``{"distributed.worker.memory.target": 0.7}``.
    """

    operator_extra_links = (DaskDashboardLink(), *CLUSTER_LINKS)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(adapter="dask", **kwargs)
