from __future__ import annotations

import pytest

from benchmarks.kubernetes.report import Row, bounded, compared

SAMPLES = {"ours": [1.0, 2.2, 3.0], "raw": [1.0, 2.0, 3.3], "a peer": [5.0, 6.0, 7.0]}
ROW = Row("m", "s", 2.2, 2.0, {"a peer": 6.0}, 1.0, "b", True, SAMPLES)


def test_a_row_has_the_medians_and_the_median_of_each_round_s_ratio():
    assert compared("m", SAMPLES, most=1.0, bar="b") == ROW


@pytest.mark.parametrize(("most", "met"), [(1.0, True), (0.99, False)])
def test_a_ratio_is_held_against_its_bar(most, met):
    assert compared("m", SAMPLES, most=most, bar="b").met is met


@pytest.mark.parametrize(("most", "met"), [(2.2, True), (2.1, False)])
def test_seconds_are_held_against_their_bar(most, met):
    assert bounded("m", SAMPLES, most=most, bar="b").met is met


def test_a_row_reads_as_a_table():
    assert ROW.text() == ("m [s]: met (b)   ratio 1.00\n       2.200  ours\n       2.000  raw\n       6.000  a peer")


def test_what_is_not_known_is_not_in_the_table():
    row = Row("m", "s", None, None, {}, None, "b", None, {})
    assert row.text() == "m [s]: not measured (b)"
