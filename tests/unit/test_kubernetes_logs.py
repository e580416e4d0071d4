"""Logs of pods, read from a real server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from practicus_provider.backends.base import Handle
from practicus_provider.backends.kubernetes import logs
from practicus_provider.backends.kubernetes.api import Api
from practicus_provider.backends.kubernetes.labels import INDEX
from practicus_provider.backends.kubernetes.logs import DISORDER, LATER, PodLog, Reader, follow, tail
from practicus_provider.backends.kubernetes.mirror import mirror_of
from practicus_provider.runtime.practicus_runtime.contract import END_MARK, End, LastWords
from tests.kubernetes_server import (
    PODS,
    Handler,
    Server,
    event,
    kubernetes,
    listing,
    refuses,
    says,
    streams,
)
from tests.plans import PATIENCE

STAMPS = [f"2013-01-05T10:00:0{second}.000000001Z" for second in range(4)]


def log(*entries: tuple[int, str]) -> list[bytes]:
    return [f"{STAMPS[second]} {text}\n".encode() for second, text in entries]


async def read(api: Api, taken: str = "") -> tuple[list[str], str]:
    found = PodLog(api, "p", "uid", taken)
    return [line async for line in found.lines(follow=False)], found.taken


async def test_a_log_goes_on_after_the_last_line_that_was_taken_also_among_lines_of_one_stamp(server, api):
    whole = log((0, "a"), (1, "b"), (1, "c"), (1, "d"), (2, "e"))
    server.answers = [streams(*whole[:3]), streams(*whole)]
    assert await read(api) == (["a", "b", "c"], f"{STAMPS[1]}/2")
    assert await read(api, f"{STAMPS[1]}/2") == (["d", "e"], f"{STAMPS[2]}/1")
    query = {"container": "main", "timestamps": "true", "follow": "false"}
    assert server.asked == [
        ("GET", f"{PODS}/p/log", query, None),
        ("GET", f"{PODS}/p/log", {**query, "sinceTime": STAMPS[1]}, None),
    ]


@pytest.mark.parametrize("count", [1, 2, 3, 4])
async def test_lines_whose_stamps_are_out_of_order_are_read_once(server, api, count):
    whole = log((0, "a"), (2, "out"), (1, "err"), (2, "b"), (3, "c"))
    server.answers = [streams(*whole[:count]), streams(*whole)]
    before, place = await read(api)
    after, _ = await read(api, place)
    assert before + after == ["a", "out", "err", "b", "c"]


async def test_many_lines_of_one_stamp_are_read_once(server, api):
    whole = log(*((0, str(number)) for number in range(3 * DISORDER)))
    server.answers = [streams(*whole[: 2 * DISORDER]), streams(*whole)]
    before, place = await read(api)
    after, _ = await read(api, place)
    assert before + after == [str(number) for number in range(3 * DISORDER)]


async def test_of_a_log_that_was_rotated_every_line_that_is_left_is_read(server, api):
    server.answers = [streams(*log((1, "b"), (2, "c")))]
    assert await read(api, f"{STAMPS[0]}/1") == (["b", "c"], f"{STAMPS[2]}/1")


def one_by_one(turns: asyncio.Semaphore, *chunks: bytes) -> Handler:
    """Chunks that are sent at their turns."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        for chunk in chunks:
            await turns.acquire()
            await response.write(chunk)
        return response

    return answer


END = f'{END_MARK}uid {{"exit_code": 0, "result": null}}'


async def test_a_log_is_read_to_its_end_once_both_outputs_have_said_so(server, api):
    server.answers = [streams(*log((0, "out"), (1, f"unfinished{END}"), (1, "err"), (2, END), (3, "never read")))]
    found = PodLog(api, "p", "uid")
    assert [line async for line in found.lines(follow=True)] == ["out", "unfinished", "err"]
    assert (found.ended, found.last_words) == (True, LastWords(End(0)))


async def test_a_log_of_which_one_output_ended_goes_on(server, api):
    server.answers = [streams(*log((0, END), (1, "err")))]
    found = PodLog(api, "p", "uid")
    assert [line async for line in found.lines(follow=True)] == ["err"]
    assert not found.ended


async def test_what_looks_like_an_end_but_is_not_this_pods_is_output(server, api):
    other = END.replace("uid", "other")
    server.answers = [streams(*log((0, other), (0, other), (1, "more")))]
    found = PodLog(api, "p", "uid")
    assert [line async for line in found.lines(follow=True)] == [other, other, "more"]
    assert not found.ended


@pytest.mark.parametrize("words", ["", "{", "[]", "7"])
async def test_an_end_without_last_words_tells_nothing(server, api, words):
    server.answers = [streams(*log((0, f"{END_MARK}uid {words}"), (0, f"{END_MARK}uid {words}")))]
    found = PodLog(api, "p", "uid")
    assert [line async for line in found.lines(follow=True)] == []
    assert (found.ended, found.last_words) == (True, LastWords())


async def test_a_log_of_which_nothing_is_new_has_no_further_lines(server, api):
    server.answers = [streams(*log((0, "a"), (0, "b")))]
    assert await read(api, f"{STAMPS[0]}/2") == ([], f"{STAMPS[0]}/2")


async def test_a_long_line_an_empty_one_and_one_that_is_no_utf_8_are_lines(server, api):
    long = b"x" * 1_000_000
    server.answers = [streams(b"S " + long + b"\n", b"T \n", b"U \xff\r\n", b"V")]
    assert (await read(api))[0] == [long.decode(), "", "\ufffd", ""]


async def test_a_line_without_an_end_is_cut_with_a_note_and_the_log_goes_on(server, api):
    long = b"x" * 5_000_000
    server.answers = [streams(*log((0, "a")), b"S ", long, END.encode() + b"\n", *log((1, "b"), (2, END)))]
    found = PodLog(api, "p", "uid")
    before, cut, after = [line async for line in found.lines(follow=True)]
    assert (before, after, found.ended) == ("a", "b", True)
    assert len(cut) < 1_200_000
    assert re.fullmatch(r"x+ \(\.\.\. \d+ bytes of this line are left out \.\.\.\) x+", cut)


async def test_the_tail_of_a_log_has_long_lines_cut_and_bars_in_their_last_state(server, api):
    server.answers = [streams(b"x" * 5_000_000, b"\n\r1%\r2%\r3%[progress   3%] x\nlast", b"ly\n")]
    long, *others = await tail(api, "p", "uid", 4)
    assert (len(long) < 1_200_000, others) == (True, ["3%", "[progress   3%] x", "lastly"])


async def test_of_a_bar_that_grows_in_one_line_states_are_shown_and_the_place_stays_before_it(server, api, monkeypatch):
    monkeypatch.setattr("practicus_provider.runtime.practicus_runtime.lines.BAR_PERIOD", 0.0)
    written = (*log((0, "a")), f"{STAMPS[1]} \r1%".encode(), b"\r2%", b"\r3%[progress   3%] x\n")
    turns = asyncio.Semaphore(1)
    server.answers = [one_by_one(turns, *written)]
    found, seen = PodLog(api, "p", "uid"), []
    async for line in found.lines(follow=True):
        seen.append((line, found.taken))
        turns.release()
    before, after = f"{STAMPS[0]}/1", f"{STAMPS[1]}/1"
    assert seen == [("a", before), ("1%", before), ("2%", before), ("3%", after), ("[progress   3%] x", after)]
    server.answers = [streams(*written)]
    assert await read(api, after) == ([], after)


async def test_a_result_in_the_log_is_not_shown(server, api):
    server.answers = [streams(*log((0, "a"), (1, '\x1epracticus-result {"answer": 42}'), (2, "b")))]
    assert await read(api) == (["a", "b"], f"{STAMPS[2]}/1")


async def test_the_log_of_a_pod_that_is_gone_is_empty(server, api):
    server.answers = [refuses(404, 'pods "p" not found', "NotFound")]
    assert await read(api) == ([], "")
    assert await tail(api, "p", "uid", 5) == []


async def test_the_tail_of_a_log_is_its_last_lines(server, api):
    server.answers = [streams(*(f"{line}\n".encode() for line in ("a", "b\r", "", "c", f"d{END}", END)))]
    assert await tail(api, "p", "uid", 4) == ["b", "", "c", "d"]
    assert server.asked == [("GET", f"{PODS}/p/log", {"container": "main", "tailLines": "6"}, None)]


@pytest.mark.parametrize("trouble", [refuses(500, "busy"), refuses(401, "Unauthorized"), streams(b"a\n", end="cut")])
async def test_the_tail_of_a_log_that_cannot_be_had_is_asked_for_again_where_much_depends_on_it(
    server, api, trouble, monkeypatch
):
    monkeypatch.setattr(logs, "RETRY", 0.01)
    server.answers = [trouble, trouble, streams(b"a\n", b"b\n")]
    assert await tail(api, "p", "uid", 2, patience=PATIENCE) == ["a", "b"]
    server.answers = [trouble]
    assert await tail(api, "p", "uid", 2) in ([], ["a"])


async def test_of_a_log_that_is_cut_what_was_read_is_kept(server, api):
    server.answers = [streams(*log((0, "a"), (1, "b")), end="cut")]
    assert await read(api) == (["a", "b"], f"{STAMPS[1]}/1")


async def followed(api: Api, ended: asyncio.Event, turns: asyncio.Semaphore | None = None) -> list[str]:
    async with asyncio.timeout(PATIENCE):
        return [line async for line in follow(PodLog(api, "p", "uid"), ended, turns or asyncio.Semaphore())]


@pytest.fixture
def over() -> asyncio.Event:
    """The pod has ended."""
    over = asyncio.Event()
    over.set()
    return over


async def test_a_line_that_was_cut_off_is_read_again_whole(server, api):
    whole = log((0, "a"), (1, "unfinished"), (2, END), (3, END))
    server.answers = [streams(*whole[:1], whole[1][:-8]), streams(*whole)]
    assert await followed(api, asyncio.Event()) == ["a", "unfinished"]


async def test_the_last_line_of_an_ended_pod_may_be_unfinished(server, api, over):
    server.answers = [streams(*log((0, "a")), log((1, "killed amid"))[0].rstrip(b"\n"))]
    assert await followed(api, over) == ["a", "killed amid"]


@pytest.mark.parametrize("trouble", [refuses(500, "no route to host"), refuses(429, "busy"), streams(end="cut")])
async def test_what_is_left_of_an_ended_pods_log_is_asked_for_until_it_is_had(server, api, over, trouble):
    server.answers = [trouble, streams(*log((0, "a")), end="cut"), streams(*log((0, "a"), (1, "b")))]
    assert await followed(api, over) == ["a", "b"]


async def test_a_log_whose_end_cannot_be_had_says_so(server, api, over, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.logs.LAST_PATIENCE", 0.1)
    server.answers = [streams(*log((0, "a")), end="cut")]
    assert await followed(api, over) == ["a", "(the end of the log of p cannot be read)"]


async def test_a_log_that_does_not_end_with_its_pod_is_cut_and_read_again(server, api, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.logs.LATE", 0.1)
    server.answers = [streams(*log((0, "a")), end="never"), streams(*log((0, "a"), (1, "b")))]
    ended = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, ended.set)
    assert await followed(api, ended) == ["a", "b"]


async def test_a_log_that_says_nothing_for_long_is_asked_for_anew(server, api, monkeypatch):
    monkeypatch.setattr("practicus_provider.backends.kubernetes.logs.SILENCE", 0.1)
    server.answers = [streams(*log((0, "a")), end="never"), streams(*log((0, "a"), (1, END), (1, END)))]
    assert await followed(api, asyncio.Event()) == ["a"]


async def test_a_log_that_it_is_not_the_turn_of_is_read_at_its_pods_end(server, api):
    server.answers = [streams(*log((0, "a"), (1, "b")))]
    ended = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, ended.set)
    assert await followed(api, ended, asyncio.Semaphore(0)) == [LATER, "a", "b"]
    assert [query["follow"] for _, _, query, _ in server.asked] == ["false"]


async def test_a_log_is_followed_once_another_one_has_ended(server, api):
    server.answers = [streams(*log((0, "a"), (1, END), (1, END)))]
    turns = asyncio.Semaphore(0)
    asyncio.get_running_loop().call_later(0.1, turns.release)
    assert await followed(api, asyncio.Event(), turns) == [LATER, "a"]
    assert [query["follow"] for _, _, query, _ in server.asked] == ["true"]
    assert not turns.locked()


@pytest.mark.parametrize("steps", range(4))
async def test_who_is_cancelled_as_a_pod_ends_is_cancelled(server, api, monkeypatch, steps):
    monkeypatch.setattr(logs, "RETRY", PATIENCE)
    server.answers = [streams(*log((0, "a")), end="cut")]
    ended, turns = asyncio.Event(), asyncio.Semaphore()
    following = asyncio.create_task(followed(api, ended, turns))
    while not server.asked or turns.locked():
        await asyncio.sleep(0.01)
    ended.set()
    for _ in range(steps):
        await asyncio.sleep(0)
    following.cancel()
    await asyncio.wait((following,))
    assert (following.cancelled(), len(server.asked)) == (True, 1)


# ---- the logs of several pods


def pods(**answers: Handler) -> Handler:
    """Answers of a server that has running pods, each with the answer for its log."""
    running = [event("ADDED", status={"containerStatuses": [{"name": "main", "state": {"running": {}}}]})]
    running += [copy.deepcopy(running[0]) for _ in range(1, len(answers))]
    for index, (name, pod) in enumerate(zip(answers, running, strict=True)):
        pod["object"]["metadata"] |= {"name": name, "uid": "uid"}
        pod["object"]["metadata"]["labels"] |= {"practicus.ai/role": "driver", INDEX: str(index)}
    others = kubernetes(listing(*running), streams(end="never"))

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/log"):
            return await answers[request.path.split("/")[-2]](request)
        return await others(request)

    return answer


async def unchanged() -> AsyncIterator[None]:
    """The observations of a cluster that goes on."""
    yield
    await asyncio.sleep(PATIENCE)


def readers() -> list[str]:
    """The tasks that read logs now."""
    working = (task.get_coro() for task in asyncio.all_tasks())
    return [work.__name__ for work in working if work.cr_code.co_filename == logs.__file__]  # type: ignore[union-attr]


@contextlib.asynccontextmanager
async def reading(server: Server, observations: AsyncIterator[None]) -> AsyncIterator[tuple[Reader, Any]]:
    """A reader of all pods' logs, and what it finds; nothing of it is left after its end."""
    async with asyncio.timeout(PATIENCE), mirror_of(server.access, "jobs") as mirror:
        reader = Reader(mirror, Handle("c", "u"), ["driver"], {}, ())
        async with contextlib.aclosing(reader.read(observations)) as found:
            try:
                yield reader, found
            finally:
                await found.aclose()
                assert readers() == []


BREAKS = says("", Date="nonsense")
"""What a log's reader has no words for."""


async def test_an_error_of_one_log_that_nobody_expected_ends_all_at_once_and_is_raised(server):
    asked = asyncio.Event()

    async def breaks(request: web.Request) -> web.StreamResponse:
        await asked.wait()
        return await BREAKS(request)

    server.answers = [pods(p=breaks, q=streams(*log((0, "a")), end="never"))]
    async with reading(server, unchanged()) as (_, found):
        first = await anext(found)
        asked.set()
        with pytest.raises(ValueError, match="nonsense"):
            await anext(found)
    assert (first.pod, first.line.text) == ("q", "a")


async def test_what_was_found_before_an_error_is_read_before_it_is_raised(server, monkeypatch):
    monkeypatch.setattr(logs, "QUEUED", 2)
    breaking = asyncio.Event()

    async def breaks(request: web.Request) -> web.StreamResponse:
        await breaking.wait()
        return await BREAKS(request)

    server.answers = [pods(p=streams(*log(*((0, str(number)) for number in range(9))), end="never"), q=breaks)]
    async with reading(server, unchanged()) as (reader, found):
        await anext(found)
        while not reader.found.full():
            await asyncio.sleep(0.01)
        breaking.set()
        while readers() != []:
            await asyncio.sleep(0.01)
        seen = [(await anext(found)).line.text for _ in range(2)]
        with pytest.raises(ValueError, match="nonsense"):
            await anext(found)
    assert seen == ["1", "2"]


async def test_who_leaves_the_logs_amid_them_leaves_nothing_behind(server, monkeypatch):
    monkeypatch.setattr(logs, "QUEUED", 2)
    lines = streams(*log(*((0, str(number)) for number in range(9))), end="never")
    server.answers = [pods(p=lines, q=lines)]
    async with reading(server, unchanged()) as (reader, found):
        await anext(found)
        while not reader.found.full():
            await asyncio.sleep(0.01)


async def test_who_leaves_a_log_before_its_turn_leaves_nothing_behind(api):
    lines = follow(PodLog(api, "p", "uid"), asyncio.Event(), asyncio.Semaphore(0))
    assert await anext(lines) == LATER
    await lines.aclose()
    assert readers() == []


async def test_a_log_that_goes_on_after_the_clusters_end_is_left_and_no_error(server):
    over = asyncio.Event()

    async def observations() -> AsyncIterator[None]:
        yield
        await over.wait()

    server.answers = [pods(p=streams(*log((0, "a")), end="never"))]
    async with reading(server, observations()) as (_, found):
        assert (await anext(found)).line.text == "a"
        over.set()
        assert [read async for read in found] == []


async def test_of_lines_that_nobody_takes_a_few_are_read(server, monkeypatch):
    monkeypatch.setattr(logs, "QUEUED", 2)
    server.answers = [pods(p=streams(*log(*((0, str(number)) for number in range(9))), end="never"))]
    async with asyncio.timeout(PATIENCE), mirror_of(server.access, "jobs") as mirror:
        reader = Reader(mirror, Handle("c", "u"), ["driver"], {}, ())
        async with contextlib.aclosing(reader.read(unchanged())) as found:
            first = await anext(found)
            while not reader.found.full():
                await asyncio.sleep(0.01)
            for _ in range(100):
                await asyncio.sleep(0)
            assert (first.line.text, reader.found.qsize()) == ("0", 2)
            assert [(await anext(found)).line.text for _ in range(8)] == [str(number) for number in range(1, 9)]
