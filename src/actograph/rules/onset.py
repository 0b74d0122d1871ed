"""Where a series changes its level: the largest step in it, dated by cumulative sums.

No idea of what the series is. The date is the extreme of the cumulative sum of deviations from the middle of both levels:
Page 1954, Continuous inspection schemes; Hinkley 1970, Inference about the change-point in a sequence of random variables.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actograph.layout.row import Floats

WINDOW = 8  # points on either side of a step: the median of eight ignores three outliers


@dataclass(frozen=True)
class Jump:
    """A step up: the first point of the new level, and both levels."""

    position: int
    before: float
    after: float


def largest_rise(values: Floats, window: int = WINDOW) -> Jump | None:
    """Return the largest step up of (n,) finite values; None where there are too few, or where none goes up.

    >>> largest_rise(np.array([1.0] * 20 + [3.0] * 20))
    Jump(position=20, before=1.0, after=3.0)
    """
    if len(values) < 2 * window:
        return None
    medians = np.median(np.lib.stride_tricks.sliding_window_view(values, window), axis=1)
    rises = medians[window:] - medians[:-window]  # of the point where the later window begins
    at = int(np.argmax(rises))
    before, after = float(medians[at]), float(medians[at + window])
    if after <= before:
        return None
    part = values[at : at + 2 * window]
    sums = np.cumsum((before + after) / 2 - np.minimum(part, after))
    return Jump(at + int(np.argmax(sums)) + 1, before, after)
