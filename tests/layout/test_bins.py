from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actograph.layout import bins

FLOATS = hnp.arrays(
    np.float32, st.integers(0, 60), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)
)


@given(FLOATS)
def test_every_finite_value_lies_within_the_edges_of_its_bin(values: np.ndarray) -> None:
    index = bins.bin_index(values)
    assert (bins.EDGES[index] <= values).all()
    assert (values <= bins.EDGES[index + 1]).all()


@given(FLOATS)
def test_bins_are_in_the_order_of_the_values(values: np.ndarray) -> None:
    assert (np.diff(bins.bin_index(np.sort(values))) >= 0).all()


@given(FLOATS)
def test_bins_mirror_with_the_sign(values: np.ndarray) -> None:
    assert (bins.bin_index(-values) == 2 * bins.ZERO_BIN - bins.bin_index(values)).all()


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (0.0, 174),
        (-0.0, 174),
        (1e-300, 175),
        (-1e-300, 173),
        (1e-45, 175),
        (2.0**-26, 176),
        (2.0**17, 348),
        (1e300, 348),
        (-1e300, 0),
        (np.nextafter(2.0**17, 0), 348),  # rounds up to 2^17 in float32
        (np.nextafter(np.float32(2.0**17), np.float32(0)), 347),
    ],
)
def test_the_ends_of_the_range_have_their_own_bins(value: float, index: int) -> None:
    assert bins.bin_index(np.array([value])).item() == index


def test_a_value_is_known_within_twelve_percent() -> None:
    values = np.exp(np.random.default_rng(0).uniform(np.log(2.0**-26), np.log(2.0**17), 10_000))
    relative = np.abs(bins.CENTERS[bins.bin_index(values)] / values - 1)
    assert relative.max() < 0.12


@given(st.floats(0, 1), st.integers(1, 200))
def test_quantiles_agree_with_numpy_within_a_bin(share: float, num: int) -> None:
    values = np.random.default_rng(num).normal(size=num)
    ours = bins.quantile(bins.histogram(values), share)
    exact = np.quantile(values, share, method="inverted_cdf")
    assert ours == pytest.approx(exact, rel=0.12, abs=2.0**-26)


def test_the_quantile_of_nothing_is_nan() -> None:
    assert np.isnan(bins.quantile(np.zeros((2, bins.NUM_BINS), np.int64), 0.5)).all()


def test_a_quantile_needs_a_share() -> None:
    with pytest.raises(ValueError, match="share is 50"):
        bins.quantile(np.zeros(bins.NUM_BINS, np.int64), 50)


def test_histograms_leave_out_what_is_not_finite() -> None:
    assert bins.histogram(np.array([np.nan, np.inf, -np.inf, 1.0])).sum() == 1
