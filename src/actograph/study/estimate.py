"""What several seeds tell of a quantity: means, differences and rates with 95 % intervals.

No idea of trainings. The intervals are scipy's: Student's t for means, Wilson's for rates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A value, and the interval that holds the true one with 95 % confidence; NaN ends where there is no spread to see."""

    value: float
    low: float
    high: float
    num: int  # values it comes from

    @property
    def is_known(self) -> bool:
        """Whether there is an interval."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside of the interval: the sign is known."""
        return self.is_known and (self.low > 0 or self.high < 0)

    def overlaps(self, other: Estimate) -> bool:
        """Tell whether the intervals have a value in common; where one is not known they do."""
        return not (self.is_known and other.is_known) or (self.low <= other.high and other.low <= self.high)


def mean_of(values: Sequence[float], *, num_looks: int = 1) -> Estimate:
    """Estimate the mean of independent values (n,), by Student's t; not finite ones make it unknown.

    ``num_looks`` estimates that are judged together share the 5 % of error (Bonferroni).

    >>> mean_of([1.0, 2.0, 3.0])
    Estimate(value=2.0, low=-0.4841377117503..., high=4.484137711750..., num=3)
    """
    array = np.asarray(values, np.float64)
    if len(array) == 0 or not np.isfinite(array).all():
        mean = float(array.mean()) if len(array) else math.nan
        return Estimate(mean, math.nan, math.nan, len(array))
    mean = float(array.mean())
    if len(array) == 1:
        return Estimate(mean, math.nan, math.nan, 1)
    error = float(array.std(ddof=1)) / math.sqrt(len(array))
    half = float(stats.t.ppf(1 - (1 - CONFIDENCE) / 2 / num_looks, len(array) - 1)) * error
    return Estimate(mean, mean - half, mean + half, len(array))


def geometric_mean_of(values: Sequence[float]) -> Estimate:
    """Estimate the typical size of positive values (n,) that spread over factors: the mean of their logarithms."""
    array = np.asarray(values, np.float64)
    if len(array) == 0 or not ((array > 0) & np.isfinite(array)).all():
        return Estimate(math.nan, math.nan, math.nan, len(array))
    logs = mean_of(np.log(array).tolist())
    return Estimate(math.exp(logs.value), math.exp(logs.low), math.exp(logs.high), logs.num)


def difference_of(a: Mapping[int, float], b: Mapping[int, float], *, num_looks: int = 1) -> Estimate:
    """Estimate how much larger a is than b, both by seed: the mean of the differences of equal seeds.

    Seeds that only one of them has do not count.

    >>> difference_of({0: 3.0, 1: 5.0}, {0: 2.0, 1: 4.0, 2: 9.0}).value
    1.0
    """
    seeds = sorted(a.keys() & b.keys())
    return mean_of([a[seed] - b[seed] for seed in seeds], num_looks=num_looks)


def rate_of(num_events: int, num: int) -> Estimate:
    """Estimate how often something happens that happened ``num_events`` times in ``num`` trials, by Wilson's interval.

    >>> rate = rate_of(0, 5)
    >>> rate.value, rate.low, round(rate.high, 2)
    (0.0, 0.0, 0.43)
    """
    if num == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    interval = stats.binomtest(num_events, num).proportion_ci(CONFIDENCE, "wilson")
    return Estimate(num_events / num, float(interval.low), float(interval.high), num)
