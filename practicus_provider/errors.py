"""Every error that this package raises, as one tree.

::

    PracticusError
    ├── SpecError              an argument is wrong; names the field, the value, and the way out
    │   └── AdapterError       an adapter is unknown, broken, or made a wrong plan
    ├── ConnectionConfigError  the Airflow connection is absent, of another type, or incomplete
    ├── BackendError           the place where replicas run refused or failed
    │   ├── NotFound           no such cluster there (any more)
    │   └── ReplicaError       a replica does not answer; of the place itself it says nothing
    └── JobFailed              the job ended without success; carries its Verdict
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from practicus_provider.status import Verdict


class PracticusError(Exception):
    """Root of the tree."""


class SpecError(PracticusError, ValueError):
    """An argument is wrong.

    :param field: the argument's name as the user wrote it, e.g. ``workers``.
    :param value: what the user gave.
    :param way_out: what would be right, as a sentence.
    """

    def __init__(self, field: str, value: object, way_out: str) -> None:
        super().__init__(f"{field}={value!r}: {way_out}")
        self.field = field


class AdapterError(SpecError):
    """An adapter is unknown, cannot be loaded, or returned something that is not a plan."""


class ConnectionConfigError(PracticusError):
    """The Airflow connection is absent, of another type, or incomplete."""


class BackendError(PracticusError):
    """The place where replicas run refused or failed."""


class NotFound(BackendError):
    """No such cluster on the backend (any more)."""


class ReplicaError(BackendError):
    """A replica is not there, or does not answer.

    Its message says nothing of where the connection leads, so whoever may see the cluster may read it.
    """


class JobFailed(PracticusError):
    """The job ended without success."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.text())
        self.verdict = verdict
