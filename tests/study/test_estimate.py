from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actograph.study.estimate import Estimate, difference_of, geometric_mean_of, mean_of, rate_of

T_975_OF_4 = 2.7764451  # Student's t with 4 degrees of freedom, from a table


def test_the_interval_of_a_mean_is_students() -> None:
    values = [0.2, 0.5, 0.4, 0.9, 0.1]
    half = T_975_OF_4 * np.std(values, ddof=1) / math.sqrt(5)
    estimate = mean_of(values)
    assert estimate.value == pytest.approx(0.42)
    assert (estimate.low, estimate.high) == pytest.approx((0.42 - half, 0.42 + half))


def test_intervals_of_means_hold_the_true_one_in_95_of_100_cases() -> None:
    random = np.random.default_rng(0)
    held = [
        one.low <= 1.0 <= one.high
        for one in (mean_of(random.normal(1.0, 2.0, 4).tolist()) for _ in range(2000))
    ]
    assert np.mean(held) == pytest.approx(0.95, abs=0.015)


def test_several_looks_share_the_error() -> None:
    random = np.random.default_rng(0)
    false = 0
    for _ in range(1000):
        looks = [mean_of(random.normal(0.0, 1.0, 4).tolist(), num_looks=4) for _ in range(4)]
        false += any(look.excludes_zero for look in looks)
    assert false / 1000 == pytest.approx(0.05, abs=0.02)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=8))
def test_an_interval_holds_its_value(values: list[float]) -> None:
    estimate = mean_of(values)
    assert estimate.low <= estimate.value <= estimate.high


def test_differences_pair_equal_seeds() -> None:
    noise = np.random.default_rng(0).normal(0, 10, 5)
    a = {seed: value + 1.0 + 0.01 * seed for seed, value in enumerate(noise)}
    b = {seed: float(value) for seed, value in enumerate(noise)} | {9: 1e9}
    difference = difference_of(a, b)
    assert difference.value == pytest.approx(1.02)
    assert difference.excludes_zero
    assert difference.num == 5


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [1.0, math.inf]])
def test_without_a_spread_nothing_is_known(values: list[float]) -> None:
    estimate = mean_of(values)
    assert not estimate.is_known
    assert not estimate.excludes_zero
    assert estimate.overlaps(Estimate(5.0, 4.0, 6.0, 3))


def test_sizes_that_spread_over_factors_have_a_geometric_mean() -> None:
    estimate = geometric_mean_of([1.0, 10.0, 100.0])
    assert estimate.value == pytest.approx(10.0)
    assert estimate.high / estimate.value == pytest.approx(estimate.value / estimate.low)
    assert not geometric_mean_of([1.0, 0.0]).is_known


def test_a_rate_has_wilsons_interval() -> None:
    z = 1.959964  # of the normal distribution, 97.5 %
    num, share = 20, 17 / 20
    middle = (share + z**2 / (2 * num)) / (1 + z**2 / num)
    half = z / (1 + z**2 / num) * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    rate = rate_of(17, 20)
    assert (rate.low, rate.high) == pytest.approx((middle - half, middle + half), abs=1e-6)
    assert not rate_of(0, 0).is_known
