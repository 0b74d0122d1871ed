"""Learning rates suggested by the curve of a range test, loss against rate: pure functions with fastai's numbers.

No idea of models or of how the curve was measured. ``rates`` (n,) rise, ``losses`` (n,) are smoothed and finite, and both
are of the usable part only (`usable_part`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from actograph.layout.row import Floats

START_SHARE = 10  # the first tenth of the iterations is left out: the smoothed loss has not settled (fastai)
NUM_LAST = 5  # points left out at the end, where the loss blows up (fastai)
SAFETY = 10.0  # `minimum`: how far below the rate of the smallest loss (fastai)
SLIDE_POINTS = 15  # `slide`: width of the interval (fastai)
SLIDE_THRESHOLD = (
    0.005  # `slide`: difference of slopes at its ends, in loss per point, that counts as level (fastai)
)

MIN_POINTS = SLIDE_POINTS + 1  # with fewer, `slide` has no interval
MIN_ITERATIONS = 23  # leave MIN_POINTS when the first tenth and the last five are taken off


def valley(rates: Floats, losses: Floats) -> float:
    """Return the rate half as many points before the end of the longest fall as it has points.

    The fall is the longest series of points, not all adjacent, in which each loss is below the one before.
    """
    lengths = np.ones(len(losses), np.int64)  # of the longest fall that ends at each point
    for position in range(1, len(losses)):
        above = lengths[:position][losses[:position] > losses[position]]
        lengths[position] = above.max(initial=0) + 1
    end = int(lengths.argmax())
    start = 0 if end == 0 else end - int(lengths[end])
    third = (end - start) / 3
    return float(rates[start + int(third) + int(third / 2)])


def steep(rates: Floats, losses: Floats) -> float:
    """Return the rate at which the loss falls fastest, per unit of the rate's logarithm."""
    slopes = np.diff(losses) / np.diff(np.log(rates))
    return float(rates[slopes.argmin()])


def minimum(rates: Floats, losses: Floats) -> float:
    """Return a tenth of the rate with the smallest loss."""
    return float(rates[losses.argmin()]) / SAFETY


def slide(rates: Floats, losses: Floats) -> float:
    """Return the left end of the last interval, coming from the high rates, whose two ends have nearly the same slope."""
    slopes = np.gradient(losses)
    right = len(losses) - 1
    rate = rates[right - SLIDE_POINTS]
    while right >= SLIDE_POINTS and abs(slopes[right] - slopes[right - SLIDE_POINTS]) > SLIDE_THRESHOLD:
        rate = rates[right - SLIDE_POINTS]
        right -= 1
    return float(rate)


SUGGESTIONS: Mapping[str, Callable[[Floats, Floats], float]] = {
    "valley": valley,
    "steep": steep,
    "minimum": minimum,
    "slide": slide,
}


def usable_part(losses: Floats, num_it: int) -> slice:
    """Return the part of a curve that suggestions are made from.

    ``losses`` (n,) are smoothed, n is at most ``num_it``, the iterations of a whole test. The first tenth of these and the
    last five points are left out, and everything from the first loss on that is not finite.

    >>> usable_part(np.array([1.0] * 30 + [np.nan]), 100)
    slice(10, 30, None)
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    # fastai goes on after a NaN to the last iteration
    end = min(num_it - NUM_LAST, int(bad[0])) if len(bad) else len(losses) - NUM_LAST
    return slice(num_it // START_SHARE, end)


def exponential_rates(start: float, end: float, num: int) -> Floats:
    """Return rates (num,) that rise from ``start`` by equal factors; the next one would be ``end`` (fastai).

    >>> exponential_rates(0.01, 1.0, 2)
    array([0.01, 0.1 ])
    """
    return start * (end / start) ** (np.arange(num) / num)
