"""A process that does what Airflow's triggerer does with triggers: it runs all of them in one event loop.

They come over standard input as they would from the database. None of them may have an event.
"""

from __future__ import annotations

import asyncio
import pickle
import pkgutil
import sys
from typing import Any


async def main(rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Run them until the process is killed."""
    async with asyncio.TaskGroup() as group:
        for path, arguments in rows:
            group.create_task(_wait(path, arguments))


async def _wait(path: str, arguments: dict[str, Any]) -> None:
    async for event in pkgutil.resolve_name(path)(**arguments).run():
        raise RuntimeError(f"{path} was to wait, and has an event: {event}")


if __name__ == "__main__":
    asyncio.run(main(pickle.load(sys.stdin.buffer)))
