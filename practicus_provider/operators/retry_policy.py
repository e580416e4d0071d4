"""Which failures Airflow's ``retries`` are for, by the job's verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from practicus_provider.compat import RetryDecision, RetryPolicy
from practicus_provider.errors import ConnectionConfigError, JobFailed, SpecError
from practicus_provider.status import Reason

if TYPE_CHECKING:
    from airflow.sdk import Context

LASTING = frozenset({Reason.ERROR, Reason.CONFIG_ERROR, Reason.IMAGE_PULL_FAILED, Reason.INIT_FAILED})
"""Reasons that are the same at the next try: the user's code, image and settings are."""


class VerdictRetryPolicy(RetryPolicy):
    """Fails at once what the next try would fail at, too; whatever else has failed is tried again, as often as
    ``retries`` says.

    The application's own errors, and an image or settings with which no pod starts, are of the first kind; so is a job
    that was out of memory, unless ``oom_memory_factor`` gives it more. Lost nodes, evictions and time-outs are not.
    """

    def evaluate(
        self, exception: BaseException, try_number: int, max_tries: int, context: Context | None = None
    ) -> RetryDecision:
        """See ``RetryPolicy.evaluate``."""
        match exception:
            case SpecError() | ConnectionConfigError():
                return RetryDecision.fail(f"{type(exception).__name__}: it is the same at the next try")
            case JobFailed(verdict=verdict) if verdict.reason in LASTING:
                return RetryDecision.fail(f"{verdict.reason}: it is the same at the next try")
            case JobFailed(verdict=verdict) if verdict.reason is Reason.OOM_KILLED:
                grows = context and getattr(context["ti"].task, "oom_memory_factor", None)
                if not grows:
                    return RetryDecision.fail(
                        f"{verdict.reason}: without oom_memory_factor= it has no more memory then"
                    )
        return RetryDecision.default()
