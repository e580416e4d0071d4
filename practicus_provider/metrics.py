"""What Airflow's metrics and traces tell of jobs: how long their phases took, and how they ended.

Airflow 3.3 sets up ``airflow.sdk.observability.stats`` where a task runs, and in the triggerer as it reads a trigger's
arguments (``airflow.sdk.serde``); ``airflow.observability.stats`` is another module, which tasks do not set up.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from practicus_provider import compat

if TYPE_CHECKING:
    from practicus_provider.backends.base import Backend
    from practicus_provider.lifecycle import Outcome, Policy

log = logging.getLogger(__name__)


def submitted(seconds: float, policy: Policy, backend: Backend) -> None:
    """All of a cluster was created, or it was adopted, within so many seconds."""
    with _merely_told():
        compat.stats().timing("practicus.submit", timedelta(seconds=seconds), tags=_tags(policy, backend))


def ended(outcome: Outcome, policy: Policy, backend: Backend) -> None:
    """A cluster was followed to its verdict; each of its phases is a timer and a span of its own.

    One that is another task's is not counted: that task does.
    """
    if policy.adapter is None:
        return
    with _merely_told():
        tags = _tags(policy, backend) | {"reason": str(outcome.verdict.reason)}
        stats, tracer, now = compat.stats(), compat.tracer(__name__), policy.launched_at
        for phase, seconds in outcome.seconds.items():
            stats.timing(f"practicus.{phase}", timedelta(seconds=seconds), tags=tags)
            if tracer:
                span = tracer.start_span(f"practicus.{phase}", start_time=int(now * 1e9), attributes=tags)
                span.end(int((now + seconds) * 1e9))
            now += seconds
        stats.incr("practicus.ended", tags=tags)


@contextlib.contextmanager
def _merely_told() -> Iterator[None]:
    """Who takes metrics may be away, or be set up wrongly: that is no reason for a job to fail."""
    try:
        yield
    except Exception as error:
        log.warning("metrics of the job are lost: %s", error)


def _tags(policy: Policy, backend: Backend) -> dict[str, str]:
    return {"adapter": policy.adapter or "", "backend": backend.name}
