"""What is shown of outputs while they grow."""

from __future__ import annotations

import pytest

from practicus_provider.runtime.practicus_runtime.lines import BAR_PERIOD, KEPT_END, LINE_LIMIT, Screen, shown

TRACEBACK = "Traceback (most recent call last):"


def told(*writes: tuple[float, bytes]) -> list[str]:
    """What is shown of an output that ends after it was written so, at those seconds."""
    screen, lines = Screen(), []
    for now, data in writes:
        lines += screen.take(data)
        state = screen.state(now)
        lines += [] if state is None else [state]
    lines += screen.end() if screen.begun else []
    return [line.decode() for line in lines]


@pytest.mark.parametrize(
    ("written", "lines"),
    [
        (b"", []),
        (b"a\nb\n", ["a", "b"]),
        (b"a\n\nb", ["a", "", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"a\xff\n", ["a\ufffd"]),
        (b"10%\r50%\r100%\n", ["100%"]),
        (b"\r10%\r50%", ["50%"]),
        (b"50%\r\r\n", ["50%"]),
        (b"50%\r     \rdone\n", ["done"]),
        (b"50%\r[progress  50%] half\n", ["[progress  50%] half"]),
        (b"\r10%\r50%|##[progress  50%] half\n\r60%|##\n", ["50%|##", "[progress  50%] half", "60%|##"]),
        (b"\r50%|##   Traceback (most recent call last):\n  File\n", ["50%|##", TRACEBACK, "  File"]),
        (b"see: Traceback (most recent call last):\n", [f"see: {TRACEBACK}"]),
    ],
)
def test_lines_are_shown_as_a_terminal_would_and_a_bar_stands_alone(written, lines):
    assert shown(written) == lines


@pytest.mark.parametrize("written", [b"a\r\nbc\n\rd%\rde%f[progress  1%] x\n", b"\r1%\r2%\r3%\nx"])
def test_lines_are_the_same_however_they_are_cut_into_reads(written):
    whole = shown(written)
    for size in range(1, len(written)):
        screen = Screen()
        lines = [line for at in range(0, len(written), size) for line in screen.take(written[at : at + size])] + (
            screen.end() if screen.begun else []
        )
        assert [line.decode() for line in lines] == whole


def test_of_a_bar_its_last_state_is_shown_once_a_period():
    step = BAR_PERIOD / 10
    writes = [(number * step, f"\r{number}%".encode()) for number in range(25)]
    assert told(*writes, (2.5 * BAR_PERIOD, b"\r100%\n")) == ["0%", "10%", "20%", "100%"]


def test_a_state_that_was_shown_is_not_shown_again():
    assert told((0, b"\r50%"), (5, b""), (9, b"\n"), (10, b"\r60%"), (20, b"[progress  60%] x\n")) == [
        "50%",
        "60%",
        "[progress  60%] x",
    ]


def test_a_state_that_a_read_has_cut_is_not_shown_before_the_rest_of_it_had_its_time_to_come():
    assert told((0, b"\r10%|#\r2"), (5, b"0%|##\r30%|###"), (6, b""), (9, b"\r4"), (10, b"0%|####\r\n")) == [
        "10%|#",
        "20%|##",
        "30%|###",
        "4",  # a single state, which nothing tells from a whole one
        "40%|####",
    ]


@pytest.mark.parametrize("data", [b"\r10%\r20%\r", b"\r10%\r20%\r   \r2"])
def test_of_several_states_the_last_that_is_known_to_have_ended_is_shown(data):
    assert told((0, data))[0] == "20%"


def test_a_state_is_due_a_period_after_the_last():
    screen = Screen()
    assert screen.due() is None
    screen.take(b"no bar")
    assert screen.due() is None
    screen.take(b"\n\r1%")
    assert screen.state(100.0) == b"1%"
    assert screen.due() is None
    screen.take(b"\r2%")
    assert (screen.state(100.5), screen.due()) == (None, 100.0 + BAR_PERIOD)
    assert screen.state(100.0 + BAR_PERIOD) == b"2%"


def test_of_a_line_that_is_too_long_the_beginning_and_the_end_are_shown_and_how_much_is_not():
    screen, size = Screen(), LINE_LIMIT + 10 * KEPT_END
    for _ in range(0, size, 1000):
        assert screen.take(b"x" * 1000) == []
        assert screen.size <= LINE_LIMIT + KEPT_END
    [line] = screen.take(b"the end\nnext")
    head, note, end = line.decode().partition(" (... ")
    number, _, end = end.partition(" bytes of this line are left out ...) ")
    assert (head, note, end[-8:]) == ("x" * (LINE_LIMIT - KEPT_END), " (... ", "xthe end")
    assert len(end) >= KEPT_END
    assert len(head) + int(number) + len(end) == (size + 999) // 1000 * 1000 + len("the end")
    assert screen.end() == [b"next"]


def test_a_bar_that_never_ends_its_line_takes_no_room():
    screen = Screen()
    for number in range(10_000):
        screen.take(b"\r%5d" % number)
    assert screen.size == 5
