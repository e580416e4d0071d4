"""Speaks with a supervisor: one JSON line asks, JSON lines answer, the connection's end is the supervisor's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from practicus_provider.errors import BackendError
from practicus_provider.runtime.practicus_runtime.contract import RESULT_LIMIT
from practicus_provider.runtime.practicus_runtime.control import connectable

ANSWER_LIMIT = 6 * RESULT_LIMIT + (4 << 20)
"""Bytes of one answer: JSON writes a byte of a result as six at most, and there are thousands of replicas' states."""
GONE = (ConnectionError, FileNotFoundError)
"""What a socket says that nobody listens at any more. Of other errors, this process' own are to blame."""


@contextlib.asynccontextmanager
async def request(control: Path, ask: Mapping[str, Any]) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """Ask, and read the answers until the supervisor hangs up.

    :raises OSError: there is no supervisor.
    :raises BackendError: it refuses; reading its answers raises that.
    """
    with connectable(str(control)) as path:
        reader, writer = await asyncio.open_unix_connection(path, limit=ANSWER_LIMIT)
    try:
        writer.write(json.dumps(ask).encode() + b"\n")
        yield _answers(reader)
    finally:
        writer.close()


async def _answers(reader: asyncio.StreamReader) -> AsyncIterator[dict[str, Any]]:
    with contextlib.suppress(ConnectionError):
        async for line in reader:
            answer = json.loads(line)
            if "error" in answer:
                raise BackendError(answer["error"])
            yield answer
