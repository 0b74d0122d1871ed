"""The numbers of a run, and whether two sets agree."""

from __future__ import annotations

import math

from actograph.study.reading import Agreement, compared


def test_equal_numbers_agree_and_nan_equals_nan_and_null() -> None:
    assert compared({"a": [0.1, math.nan, math.nan]}, {"a": [0.1, math.nan, None]}) == Agreement(3, 0, 0.0)


def test_one_bit_is_a_difference() -> None:
    assert compared({"a": [0.1]}, {"a": [math.nextafter(0.1, 1)]}).num_unequal == 1


def test_numbers_that_one_side_lacks_differ() -> None:
    assert compared({"a": [0.1, 0.2], "b": [1.0]}, {"a": [0.1]}) == Agreement(3, 2, math.inf)
    assert compared({"a": [0.1]}, {"a": [None]}).num_unequal == 1
    assert compared({"a": [math.inf]}, {"a": [math.inf]}).num_unequal == 0
