"""FairScale jobs."""

from __future__ import annotations

from typing import Any

from practicus_provider.operators.job import PracticusRunJobOperator


class PracticusFairScaleOperator(PracticusRunJobOperator):
    """Trains by FairScale on temporary workers: each runs the application ``procs_per_worker`` times.

    Takes every argument of :class:`~practicus_provider.operators.job.PracticusRunJobOperator` but ``adapter``, and
    ``conf`` and ``coordinator_resources``, which have no meaning here.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(adapter="fairscale", **kwargs)
