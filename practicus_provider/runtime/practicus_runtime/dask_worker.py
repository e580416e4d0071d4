"""A preload of Dask's worker that has SIGTERM end it at once.

``dask worker --no-nanny --preload practicus_runtime.dask_worker``: without a nanny Dask's own answer to that signal
closes nothing either, it cancels what runs. But a close that the scheduler has asked for, as when all of a cluster is
told to end, it cancels too, and then waits for it for ever (https://github.com/dask/distributed/issues/6279).
"""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Worker


def dask_setup(worker: Worker) -> None:
    """Dask calls this as its worker starts, after it has set a handler of its own."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
