"""The bounded timeline of one scalar: the last steps exact, all steps in buckets of mean, low and high.

No idea of files or of what the number means.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from actograph.layout.row import Floats

EXACT_STEPS = 4096
MAX_SCALAR_BUCKETS = 1024
HANDFUL = 64  # values that go into buckets together


class ScalarBucket(NamedTuple):
    """A scalar over consecutive steps; mean, low and high are over its finite values (NaN when there are none)."""

    first_step: int
    last_step: int
    num_steps: int
    mean: float
    low: float
    high: float
    first_non_finite: int | None

    @classmethod
    def over(cls, points: Sequence[tuple[int, float]]) -> ScalarBucket:
        """Return the bucket of (step, value) pairs in time order."""
        if len(points) == 1:  # as all are in the first thousand steps
            ((step, value),) = points
            is_finite = math.isfinite(value)
            known = value if is_finite else math.nan
            return cls(step, step, 1, known, known, known, None if is_finite else step)
        finite = [value for _, value in points if math.isfinite(value)]
        return cls(
            first_step=points[0][0],
            last_step=points[-1][0],
            num_steps=len(points),
            mean=math.fsum(finite) / len(finite) if finite else math.nan,
            low=min(finite, default=math.nan),
            high=max(finite, default=math.nan),
            first_non_finite=next((step for step, value in points if not math.isfinite(value)), None),
        )


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
    """One scalar of one phase. New values go to the exact view at once and into buckets a handful at a time."""

    def __init__(
        self, exact_steps: int = EXACT_STEPS, max_buckets: int = MAX_SCALAR_BUCKETS, handful: int = HANDFUL
    ) -> None:
        self.exact: deque[tuple[int, float]] = deque(maxlen=exact_steps)
        self.buckets: list[ScalarBucket] = []
        self.max_buckets = max_buckets
        self.width = 1  # values a full bucket holds
        self._waiting: list[tuple[int, float]] = []
        self._handful = min(handful, exact_steps)
        self._num_stored = 0  # buckets that are stored as they are
        self._num_new = 0  # exact values that are not stored

    def append(self, step: int, value: float) -> None:
        """Add the value at a step, not earlier than the last one; of one step's values the last stands."""
        self.exact.append((step, value))
        self._num_new += 1
        self._waiting.append((step, value))
        if len(self._waiting) == self._handful:
            self._absorb()

    def take_changes(self) -> tuple[list[tuple[int, ScalarBucket]], list[tuple[int, float]]]:
        """Return the buckets (with positions) and exact values that changed since the last call."""
        buckets = list(enumerate(self.buckets[self._num_stored :], self._num_stored))
        exact = list(itertools.islice(reversed(self.exact), self._num_new))[::-1]
        self._num_stored, self._num_new = len(self.buckets), 0
        return buckets, exact

    def take_up(self, buckets: Sequence[ScalarBucket], exact: Sequence[tuple[int, float]]) -> None:
        """Go on from both views of another track of the same bounds, which are stored as they are."""
        end = buckets[-1].last_step if buckets else -1
        self.buckets = list(buckets)
        self.exact = deque(exact, maxlen=self.exact.maxlen)
        self.width = buckets[0].num_steps if buckets else 1  # the first bucket is always full
        self._waiting = [point for point in exact if point[0] > end]
        self._num_stored, self._num_new = len(buckets), 0

    def _absorb(self) -> None:
        """Take the waiting values into the buckets."""
        points, self._waiting = self._waiting, []
        while points:
            if self.buckets and self.buckets[-1].num_steps < self.width:
                self._num_stored = min(self._num_stored, len(self.buckets) - 1)
                room = self.width - self.buckets[-1].num_steps
                self.buckets[-1] = merge_scalar_buckets(self.buckets[-1], ScalarBucket.over(points[:room]))
            else:
                if len(self.buckets) == self.max_buckets:
                    self._halve()
                room = self.width
                self.buckets.append(ScalarBucket.over(points[:room]))
            points = points[room:]

    def _halve(self) -> None:
        pairs = zip(self.buckets[::2], self.buckets[1::2], strict=True)
        self.buckets = [merge_scalar_buckets(a, b) for a, b in pairs]
        self.width *= 2
        self._num_stored = 0


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
        firsts += [step for step, value in exact if not math.isfinite(value)]
        return cls(steps, values, low, high, min(firsts, default=None))

    def __len__(self) -> int:
        return len(self.steps)
