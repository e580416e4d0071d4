"""A log as a browser's ``EventSource`` takes it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator

from practicus_provider.backends.base import LogLine
from practicus_provider.errors import BackendError


async def events(lines: AsyncGenerator[LogLine, None], had: int) -> AsyncIterator[str]:
    """Server-sent events of a log (*Server-sent events* in WHATWG's HTML): numbered lines as JSON, then ``end``, with a
    sentence if that was before the log's own end.

    :param had: number of the last line that the other side has.
    """
    yield ": here it comes\n\n"
    number, why = 0, ""
    try:
        async with contextlib.aclosing(lines):
            async for line in lines:
                number += 1
                if number > had:
                    yield f"id: {number}\ndata: {json.dumps(line.text)}\n\n"
    except BackendError as error:
        why = str(error)
    yield f"event: end\ndata: {json.dumps(why)}\n\n"
