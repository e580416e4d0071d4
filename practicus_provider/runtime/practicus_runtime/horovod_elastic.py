"""Has Horovod's elastic ranks (0.28) notice that others have joined; imported before the script.

Horovod's own way is a server in each rank, which takes pickles, and whose address and key are sent to the rendezvous as
another one. Whether others have joined is looked at when a state is committed or checked, and nowhere else; so all that
has to be known there is whether the file ``PRACTICUS_NOTICE`` names a round.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from typing import Any

from .contract import Env


def noticed() -> int:
    """The round that others wait to change; 0 if none do."""
    with contextlib.suppress(OSError), open(os.environ[Env.NOTICE]) as file:
        return int(file.read())
    return 0


def patch() -> None:
    """Replace the server by a look."""
    from horovod.common import elastic
    from horovod.runner.elastic.worker import HostUpdateResult, WorkerNotificationManager

    check = elastic.State.check_host_updates

    def check_host_updates(state: Any) -> None:
        if noticed():
            state.on_hosts_updated(noticed(), HostUpdateResult.added)  # one that is not newer than the last is nothing
        check(state)

    WorkerNotificationManager.init = lambda manager, *args, **kwargs: None
    elastic.State.check_host_updates = check_host_updates


if importlib.util.find_spec("horovod"):
    patch()
