from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from actograph.runlog.scalars import ScalarSeries, ScalarTrack


def filled(values: list[float], exact: int = 8, buckets: int = 4) -> ScalarTrack:
    track = ScalarTrack(exact, buckets, handful=4)
    for step, value in enumerate(values):
        track.append(step, value)
    return track


@given(st.lists(st.floats(-1e3, 1e3), max_size=100))
def test_a_series_is_bounded_exact_at_the_end_and_keeps_the_extremes(values: list[float]) -> None:
    track = filled(values)
    series = ScalarSeries.join(track.buckets, list(track.exact))
    assert len(series) <= 8 + 4
    np.testing.assert_array_equal(series.values[len(series) - min(len(values), 8) :], values[-8:])
    if values:
        assert series.low.min() == min(values)
        assert series.high.max() == max(values)
        assert series.steps[-1] == len(values) - 1
        assert (np.diff(series.steps) > 0).all()


def test_old_steps_become_means() -> None:
    track = filled([float(step) for step in range(32)], exact=2, buckets=4)
    series = ScalarSeries.join(track.buckets, list(track.exact))
    assert series.values.tolist() == [3.5, 11.5, 19.5, 27.5, 30.0, 31.0]


def test_the_first_non_finite_step_is_exact_however_old() -> None:
    values = [1.0] * 200
    values[37] = math.nan
    values[90] = math.inf
    track = filled(values)
    series = ScalarSeries.join(track.buckets, list(track.exact))
    assert series.first_non_finite == 37
    assert np.isfinite(series.values).all()


def test_only_non_finite_values_give_nan() -> None:
    series = ScalarSeries.join(filled([math.nan] * 40).buckets, [])
    assert np.isnan(series.values).all()


def test_a_step_written_twice_keeps_the_later_value() -> None:
    track = ScalarTrack()
    track.append(3, 1.0)
    track.append(3, 2.0)
    assert ScalarSeries.join(track.buckets, list(track.exact)).values.tolist() == [2.0]


def test_changes_are_handed_out_once() -> None:
    track = filled([1.0, 2.0])
    assert track.take_changes() == ([], [(0, 1.0), (1, 2.0)])
    assert track.take_changes() == ([], [])
    track.append(2, 3.0)
    track.append(3, 4.0)  # now four go into buckets
    buckets, exact = track.take_changes()
    assert [position for position, _ in buckets] == [0, 1, 2, 3]
    assert exact == [(2, 3.0), (3, 4.0)]
    assert track.take_changes() == ([], [])
