"""What the API server's audit log says, where there is one: that of the test cluster."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tests.cluster import target


def audited(*words: str) -> Iterator[tuple[float, dict[str, Any]]]:
    """The events whose lines have all these words, each with the time of its request, in seconds since the epoch. Those
    of one request have the same ``auditID``.
    """
    log = target.audit_log()
    for file in log.parent.glob(f"{log.stem}*{log.suffix}") if log else ():  # the server moves a full one aside
        with file.open() as lines:
            for line in lines:
                if all(word in line for word in words):
                    event = json.loads(line)
                    yield datetime.fromisoformat(event["requestReceivedTimestamp"]).timestamp(), event
