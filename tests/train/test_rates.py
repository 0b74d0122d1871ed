from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actograph.errors import UsageError
from actograph.train.rates import group_rates, rate_ratios

POSITIVE = st.floats(1e-8, 10.0)


# (rate, groups, rates) of fastai's Optimizer.set_hyper and even_mults, worked out by hand.
@pytest.mark.parametrize(
    ("lr", "num_groups", "rates"),
    [
        (0.1, 3, [0.1, 0.1, 0.1]),
        (slice(1e-4, 1e-2), 3, [1e-4, 1e-3, 1e-2]),
        (slice(1e-5, 1e-3), 2, [1e-5, 1e-3]),
        (slice(1e-5, 1e-3), 1, [1e-3]),
        (slice(2e-3), 3, [2e-4, 2e-4, 2e-3]),
        (slice(2e-3), 1, [2e-3]),
        ([0.1, 0.0, 0.3], 3, [0.1, 0.0, 0.3]),
        ((1,), 1, [1.0]),
    ],
)
def test_rates_of_groups_are_fastais(lr: Any, num_groups: int, rates: list[float]) -> None:
    assert group_rates(lr, num_groups) == pytest.approx(rates, rel=1e-12)


@given(POSITIVE, POSITIVE, st.integers(2, 9))
def test_a_slice_goes_from_end_to_end_by_equal_factors(low: float, high: float, num_groups: int) -> None:
    rates = group_rates(slice(low, high), num_groups)
    assert (rates[0], rates[-1]) == pytest.approx((low, high))
    factors = [after / before for before, after in itertools.pairwise(rates)]
    assert factors == pytest.approx([factors[0]] * (num_groups - 1))


@pytest.mark.parametrize(
    ("lr", "words"),
    [
        (-0.1, "not -0.1"),
        (math.inf, "not inf"),
        (math.nan, "not nan"),
        ("fast", "2 parameter groups|not 'f'"),
        (None, "not None"),
        ([0.1], "1 rates were given for 2 parameter groups"),
        (slice(None), "not None"),
        (slice(0.1, 0.2, 3), r"slice\(low, high\) or slice\(high\), not slice\(0.1, 0.2, 3\)"),
        (slice(0.0, 0.2), "positive low end"),
        (slice(-1.0, 0.2), "not -1.0"),
    ],
)
def test_what_is_no_rate_is_named(lr: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        group_rates(lr, 2)


def test_rates_of_zero_have_no_ratio() -> None:
    assert rate_ratios([0.0, 0.0]) == [1.0, 1.0]
    assert rate_ratios([0.0, 2.0]) == [0.0, 1.0]
