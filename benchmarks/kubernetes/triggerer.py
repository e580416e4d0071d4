"""A process that does what Airflow's triggerer does with triggers: it runs all of them in one event loop.

They come over standard input as they would from the database. None of them may have an event.
"""

from __future__ import annotations

import asyncio
import pickle
import pkgutil
import sys
from typing import Any

from airflow.triggers.base import BaseTrigger


async def main(rows: list[tuple[str, dict[str, Any]]]) -> None:
    """Run them until the process is killed."""
    triggers = [pkgutil.resolve_name(path)(**arguments) for path, arguments in rows]
    async with asyncio.TaskGroup() as group:
        for trigger in triggers:
            group.create_task(_wait(trigger))
        print("all of them run", flush=True)


async def _wait(trigger: BaseTrigger) -> None:
    async for event in trigger.run():
        raise RuntimeError(f"{trigger!r} was to wait, and has an event: {event}")


if __name__ == "__main__":
    asyncio.run(main(pickle.load(sys.stdin.buffer)))
