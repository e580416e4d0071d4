from __future__ import annotations

import pytest

from benchmarks.report import Row, bounded, compared, turns
from benchmarks.training.local import Life

SAMPLES = {"ours": [1.0, 2.2, 3.0], "raw": [1.0, 2.0, 3.3], "a peer": [5.0, 6.0, 7.0]}
ROW = Row("m", "s", 2.2, 2.0, {"a peer": 6.0}, 1.0, "b", True, SAMPLES)


def test_a_row_has_the_medians_and_the_median_of_each_round_s_ratio():
    assert compared("m", SAMPLES, most=1.0, bar="b") == ROW


@pytest.mark.parametrize(("most", "met"), [(1.0, True), (0.99, False)])
def test_a_ratio_is_held_against_its_bar(most, met):
    assert compared("m", SAMPLES, most=most, bar="b").met is met


def test_without_a_bar_a_ratio_is_for_comparison():
    row = compared("m", SAMPLES)
    assert (row.ratio, row.bar, row.met) == (1.0, None, None)
    assert row.text().startswith("m [s]: for comparison   ratio 1.00\n")


@pytest.mark.parametrize(("most", "met"), [(2.2, True), (2.1, False)])
def test_seconds_are_held_against_their_bar(most, met):
    assert bounded("m", SAMPLES, most=most, bar="b").met is met


def test_a_row_reads_as_a_table():
    assert ROW.text() == ("m [s]: met (b)   ratio 1.00\n       2.200  ours\n       2.000  raw\n       6.000  a peer")


def test_what_is_not_known_is_not_in_the_table():
    row = Row("m", "s", None, None, {}, None, "b", None, {})
    assert row.text() == "m [s]: not measured (b)"


def test_everybody_is_first_in_turn_and_the_first_of_several_rounds_warms_up():
    assert list(turns("ab", 1)) == [(1, "b"), (1, "a")]
    assert list(turns("ab", 2)) == [(0, "a"), (0, "b"), (1, "b"), (1, "a"), (2, "a"), (2, "b")]


SAID = """[0]<stdout>:met 102.5
[rank 1] met 103.0
a line of the launcher's that met 7 others
[rank 0] used 1.5
began 101.0
[rank 0] ended 111.0
"""


def test_a_training_is_timed_by_what_its_ranks_say_whatever_their_launcher_puts_before():
    assert Life.of(SAID, begin=100.0, known=112.0) == Life(script=10.0, processor=1.5, whole=12.0, start=3.0)


def test_a_training_in_which_a_rank_is_missing_is_not_timed():
    with pytest.raises(RuntimeError, match="1 ranks of 2 have met"):
        Life.of(SAID.replace("[rank 1] met", "[rank 1] was"), begin=100.0, known=112.0)
