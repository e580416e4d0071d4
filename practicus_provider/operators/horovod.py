"""Horovod jobs."""

from __future__ import annotations

from typing import Any

from practicus_provider.operators.job import PracticusRunJobOperator


class PracticusHorovodOperator(PracticusRunJobOperator):
    """Trains by Horovod on temporary workers: each runs the application ``procs_per_worker`` times.

    Takes every argument of :class:`~practicus_provider.operators.job.PracticusRunJobOperator` but ``adapter``.
    ``conf`` and ``coordinator_resources`` have a meaning only with ``workers=Elastic(min, max)``.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(adapter="horovod", **kwargs)
