"""The bounded timeline of one scalar: the last steps exact, all steps in buckets of mean, low and high.

No idea of files or of what the number means.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from actograph.layout.row import Floats

EXACT_STEPS = 4096
MAX_SCALAR_BUCKETS = 1024


@dataclass(frozen=True)
class ScalarBucket:
    """A scalar over consecutive steps; mean, low and high are over its finite values (NaN when there are none)."""

    first_step: int
    last_step: int
    num_steps: int
    mean: float
    low: float
    high: float
    first_non_finite: int | None

    @classmethod
    def of(cls, step: int, value: float) -> ScalarBucket:
        """Return the bucket of one step."""
        if math.isfinite(value):
            return cls(step, step, 1, value, value, value, None)
        return cls(step, step, 1, math.nan, math.nan, math.nan, step)


def merge_scalar_buckets(a: ScalarBucket, b: ScalarBucket) -> ScalarBucket:
    """Merge an earlier and a later bucket."""
    firsts = [first for first in (a.first_non_finite, b.first_non_finite) if first is not None]
    num_steps = a.num_steps + b.num_steps
    if math.isnan(a.mean) or math.isnan(b.mean):
        known = b if math.isnan(a.mean) else a
        mean, low, high = known.mean, known.low, known.high
    else:
        mean = a.mean + (b.mean - a.mean) * (b.num_steps / num_steps)
        low, high = min(a.low, b.low), max(a.high, b.high)
    return ScalarBucket(a.first_step, b.last_step, num_steps, mean, low, high, min(firsts, default=None))


class ScalarTrack:
    """One scalar of one phase. Writing one step twice keeps the later value in the exact view only."""

    def __init__(self, exact_steps: int = EXACT_STEPS, max_buckets: int = MAX_SCALAR_BUCKETS) -> None:
        self.exact: deque[tuple[int, float]] = deque(maxlen=exact_steps)
        self.buckets: list[ScalarBucket] = []
        self.max_buckets = max_buckets
        self.width = 1
        self._stored_buckets = 0
        self._num_new = 0

    def append(self, step: int, value: float) -> None:
        """Add the value at a step, not earlier than the last one."""
        self.exact.append((step, value))
        self._num_new = min(self._num_new + 1, len(self.exact))
        bucket = ScalarBucket.of(step, value)
        if self.buckets and self.buckets[-1].num_steps < self.width:
            self.buckets[-1] = merge_scalar_buckets(self.buckets[-1], bucket)
            self._stored_buckets = min(self._stored_buckets, len(self.buckets) - 1)
            return
        if len(self.buckets) == self.max_buckets:
            pairs = zip(self.buckets[::2], self.buckets[1::2], strict=True)
            self.buckets = [merge_scalar_buckets(a, b) for a, b in pairs]
            self.width *= 2
            self._stored_buckets = 0
        self.buckets.append(bucket)

    def take_changes(self) -> tuple[list[tuple[int, ScalarBucket]], list[tuple[int, float]]]:
        """Return the buckets (with positions) and exact values that changed since the last call."""
        buckets = list(enumerate(self.buckets))[self._stored_buckets :]
        exact = list(self.exact)[len(self.exact) - self._num_new :]
        self._stored_buckets, self._num_new = len(self.buckets), 0
        return buckets, exact


@dataclass(frozen=True)
class ScalarSeries:
    """A scalar over steps, as read: buckets where only buckets are left, then exact steps.

    ``steps`` (n,) is the last step of each point, ``values`` its mean, ``low`` and ``high`` its extremes (equal to the value
    for exact steps; NaN or infinite as recorded). ``first_non_finite`` is exact however old.
    """

    steps: Floats
    values: Floats
    low: Floats
    high: Floats
    first_non_finite: int | None = None

    @classmethod
    def join(cls, buckets: list[ScalarBucket], exact: list[tuple[int, float]]) -> ScalarSeries:
        """Join both views; where a step was written twice the later value stands.

        The bucket in which the exact steps begin stands before them, as one point that covers some of them as well.
        """
        exact = sorted(dict(exact).items())
        begin = exact[0][0] if exact else math.inf
        old = [bucket for bucket in buckets if bucket.first_step < begin]
        points = [(min(b.last_step, begin - 1), b.mean, b.low, b.high) for b in old]
        points += [(step, value, value, value) for step, value in exact]
        steps, values, low, high = np.array(points, dtype=np.float64).reshape(-1, 4).T
        firsts = [b.first_non_finite for b in buckets if b.first_non_finite is not None]
        return cls(steps, values, low, high, min(firsts, default=None))

    def __len__(self) -> int:
        return len(self.steps)
