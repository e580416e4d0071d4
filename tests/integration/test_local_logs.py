"""What a local job prints, and how much of it stays on disk."""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing

from practicus_provider.backends.base import Handle
from practicus_provider.backends.local import LocalBackend
from practicus_provider.backends.local.logs import LEFT_OUT
from practicus_provider.status import State
from tests.plans import PATIENCE, TASK, created, end, plan, role

MUCH = "for number in range(400_000): print(f'{number:09}')"
LIMIT = 1 << 20
LEFT = re.compile(re.escape(LEFT_OUT).replace(re.escape("{}"), "([0-9]+)"))


async def test_of_what_a_job_prints_no_more_than_its_bound_takes_room_and_what_is_left_out_is_told(tmp_path) -> None:
    backend = LocalBackend(tmp_path, log_limit=LIMIT)
    handle = await backend.create("job", plan(role("driver", MUCH)), task=TASK)
    assert (await end(backend, handle)).state is State.SUCCEEDED
    logs = list((tmp_path / "job" / "logs").glob("driver-0.log*"))
    assert len(logs) > 1
    assert sum(path.stat().st_size for path in logs) <= LIMIT
    found = await read(backend, handle, whole=True)
    [told] = filter(None, map(LEFT.fullmatch, found))
    assert (found[0], found[-1]) == (f"{0:09}", f"{399_999:09}")
    assert sum(len(text) + 1 for text in found if text != told[0]) in (4_000_000 - int(told[1]) + cut for cut in (0, 1))
    await backend.delete(handle)


async def test_who_follows_such_a_log_and_comes_back_has_each_line_once_or_is_told_that_it_is_left_out(
    tmp_path,
) -> None:
    backend, found = LocalBackend(tmp_path, log_limit=LIMIT), list[str]()
    async with created(backend, "job", plan(role("driver", MUCH))) as handle:
        async with asyncio.timeout(PATIENCE), aclosing(backend.logs(handle, ["driver"])) as lines:
            async for line in lines:
                found.append(line.text)
                if len(found) == 20_000:
                    break
        await end(backend, handle)
        found += await read(backend, handle)
    left_out = sum(int(told[1]) for text in found if (told := LEFT.fullmatch(text)))
    whole = [int(text) for text in found if len(text) == 9 and text.isdigit()]
    assert whole == sorted(set(whole))
    assert (whole[0], whole[-1]) == (0, 399_999)
    assert left_out > 0
    missing = 4_000_000 - 10 * len(whole) - left_out
    assert 0 <= missing < 10 * len(found)  # of lines that were cut


async def read(backend: LocalBackend, handle: Handle, *, whole: bool = False) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        return [line.text async for line in backend.logs(handle, ["driver"], whole=whole)]
