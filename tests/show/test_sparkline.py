from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actograph.show.sparkline import BLANK, BLOCKS, evenly, sparkline, stretch_means, svg_path

numbers = st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60)


def test_the_lowest_is_the_lowest_block_and_the_highest_the_full_one() -> None:
    assert sparkline(np.arange(8.0)) == BLOCKS
    assert sparkline(-np.arange(8.0)) == BLOCKS[::-1]


def test_a_constant_is_a_flat_line_and_nothing_known_is_blank() -> None:
    assert sparkline(np.full(3, 5.0)) == BLOCKS[0] * 3
    assert sparkline(np.full(3, np.nan)) == BLANK * 3
    assert sparkline(np.zeros(0)) == ""


def test_a_fixed_range_keeps_shares_comparable() -> None:
    assert sparkline(np.array([0.0, 0.5, 1.0, 2.0]), low=0.0, high=1.0) == "▁▅██"


@given(numbers)
def test_a_sparkline_is_never_too_wide(values: list[float]) -> None:
    line = sparkline(np.array(values), width=10)
    assert len(line) == min(len(values), 10)
    assert set(line) <= {*BLOCKS, BLANK}


def test_stretches_have_their_means() -> None:
    assert stretch_means(np.array([1.0, 3.0, np.nan, 7.0]), 2).tolist() == [2.0, 7.0]
    assert np.isnan(stretch_means(np.full(4, np.nan), 2)).all()


def test_a_bucket_of_many_steps_is_as_wide_as_they_are() -> None:
    values, last_steps = np.array([0.0, 1.0, 3.0, 3.0, 3.0]), np.array([499, 997, 998, 999, 1000])
    means = stretch_means(evenly(values, last_steps), 10)
    assert means[1:9].tolist() == [1.0] * 8
    assert 1.0 < means[9] < 1.5
    single = np.arange(7.0)
    assert evenly(single, np.arange(10, 17)) is single


def test_a_path_runs_from_left_to_right_with_gaps() -> None:
    assert svg_path(np.array([0.0, 1.0, np.nan, 0.0, 1.0]), 80, 10) == "M0.0 10.0L20.0 0.0M60.0 10.0L80.0 0.0"
    assert svg_path(np.full(3, np.nan), 80, 10) == ""


@pytest.mark.parametrize("values", [[1.0], [2.0, 2.0]])
def test_a_path_of_a_constant_lies_on_the_ground(values: list[float]) -> None:
    assert all(point.endswith("10.0") for point in svg_path(np.array(values), 80, 10)[1:].split("L"))
