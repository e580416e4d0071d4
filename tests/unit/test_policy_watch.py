"""A watch has what the server has, whatever the server does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from tests.cluster.policy.watch import Expired, Watch

PATH = "/api/v1/things"


class Ended(BaseException):
    """The script is at its end."""


class Script:
    """Gives the prepared answers, one a request; an exception ends an answer where it stands."""

    def __init__(self, *answers: list[Any]) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    def lines(self, path: str) -> Iterator[bytes]:
        self.asked.append(path)
        if not self._answers:
            raise Ended
        for each in self._answers.pop(0):
            if isinstance(each, BaseException):
                raise each
            yield json.dumps(each).encode()


def thing(name: str, version: int) -> dict[str, Any]:
    return {"metadata": {"uid": name, "resourceVersion": str(version)}}


def listed(version: int, *names: str) -> list[Any]:
    return [{"metadata": {"resourceVersion": str(version)}, "items": [thing(name, version) for name in names]}]


def event(type: str, name: str, version: int) -> dict[str, Any]:
    return {"type": type, "object": thing(name, version)}


def gone() -> dict[str, Any]:
    return {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}


def run(*answers: list[Any]) -> tuple[dict[str, str], list[str], int]:
    """What is known in the end with its version, what was asked, and how often it changed."""
    script = Script(*answers)
    changes: list[None] = []

    def parse(raw: Mapping[str, Any]) -> str | None:
        metadata = raw["metadata"]
        return None if metadata["uid"].startswith("dull") else metadata["resourceVersion"]

    watch = Watch(script, PATH, parse, lambda: changes.append(None), pause=lambda seconds: None)
    with pytest.raises(Ended):
        watch.run()
    asked = [path.removeprefix(f"{PATH}").rpartition("resourceVersion=")[2] or "list" for path in script.asked]
    return dict(watch.objects or {}), asked, len(changes)


def test_it_lists_and_follows() -> None:
    events = [event("ADDED", "b", 3), event("MODIFIED", "a", 4), event("DELETED", "b", 5), event("ADDED", "dull", 6)]
    assert run(listed(2, "a", "dull too"), events) == ({"a": "4"}, ["list", "2", "6"], 4)


def test_a_watch_that_ends_is_taken_up_where_it_was() -> None:
    bookmark = {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}
    assert run(listed(2), [event("ADDED", "a", 3)], [bookmark], []) == ({"a": "3"}, ["list", "2", "3", "9", "9"], 2)


@pytest.mark.parametrize("expired", [gone(), Expired()])
def test_it_lists_again_when_it_is_too_late(expired: Any) -> None:
    assert run(listed(2, "a"), [event("ADDED", "b", 3), expired], listed(8, "c")) == (
        {"c": "8"},
        ["list", "2", "list", "8"],
        3,
    )


def test_it_lists_again_when_the_server_was_away() -> None:
    assert run([OSError("refused")], listed(2, "a"), [OSError("reset")], listed(2, "a")) == (
        {"a": "2"},
        ["list", "list", "2", "list", "2"],
        2,
    )


def test_it_gives_a_server_that_is_away_more_and_more_time() -> None:
    pauses: list[float] = []
    away, there = [OSError("refused")], [listed(2), [OSError("reset")]]
    watch = Watch(Script(*[away] * 7, *there, away), PATH, lambda raw: raw, lambda: None, pauses.append)
    with pytest.raises(Ended):
        watch.run()
    assert pauses == [0.25, 0.5, 1, 2, 4, 5, 5, 0.25, 0.5]


def test_it_is_current_only_while_the_server_can_be_asked() -> None:
    seen: list[bool] = []
    watch: Watch[Mapping[str, Any]]

    class Source(Script):
        def lines(self, path: str) -> Iterator[bytes]:
            seen.append(watch.current)
            return super().lines(path)

    script = Source([OSError("refused")], listed(2, "a"), [], [OSError("reset")], listed(2, "a"))
    watch = Watch(script, PATH, lambda raw: raw, lambda: None, pause=lambda seconds: None)
    with pytest.raises(Ended):
        watch.run()
    asked = [path.removeprefix(PATH)[:1] or "list" for path in script.asked]
    assert list(zip(asked, seen, strict=True)) == [
        ("list", False),
        ("list", False),
        ("?", True),
        ("?", True),
        ("list", False),
        ("?", True),
    ]
