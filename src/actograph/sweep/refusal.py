"""When a range test shows no rate to be suggested, and why: in words.

No idea of how the curve was measured.
"""

from __future__ import annotations

import math

import numpy as np

from actograph.layout.row import Floats
from actograph.sweep.suggestions import MIN_POINTS, usable_part

# Falls of the smoothed loss that are noise alone, in standard errors of its beginning: 3.8 is passed by 1 in 1,000 curves
# of 30 or 100 normal losses without any slope, 4.4 by 1 in 1,000 of 300 (20,000 simulated curves of each)
MIN_FALL = 4.0
ROUNDING = 1e-6  # of the loss itself: float32
NORMAL_MEDIAN = 1.4826  # standard deviation of a normal distribution over the median of its size


def refusal(losses: Floats, smoothed: Floats, num_it: int, end: str) -> str | None:
    """Return why no rate is suggested, or None where the loss falls by more than its noise.

    Both are (n,), n at most ``num_it``, the iterations of a whole test; ``end`` says why it ended.
    """
    part = usable_part(smoothed, num_it)
    levels = smoothed[part]
    if len(levels) < MIN_POINTS:
        return (
            f"the test ended after {len(losses)} of {num_it} iterations ({end}): look at the data, the loss function and "
            "the weights, or give a smaller start_lr"
        )
    before, lowest = float(levels[0]), float(levels.min())
    noise = noise_of(losses[: part.stop])
    if before - lowest <= ROUNDING * abs(before):
        return (
            f"the loss never fell: smoothed, it was lowest, {before:.5g}, at the beginning; give a smaller start_lr, or "
            "look whether the weights are trained already, or the network can learn at all"
        )
    if before - lowest > MIN_FALL * noise / math.sqrt(part.start + 1):
        return None
    return (
        f"the loss never fell: smoothed, it went from {before:.5g} to {lowest:.5g} at best, which its noise from batch to "
        f"batch, {noise:.2g}, explains; look whether the network can learn at all (a short training with ActivationStats, "
        "then diagnose), or give larger batches, more iterations or another range"
    )


def noise_of(losses: Floats) -> float:
    """Return the standard deviation of losses (n,) from one iteration to the next.

    From the median of the differences' size, so that neither a slow fall nor a blow-up counts; normal noise is assumed.

    >>> round(noise_of(np.random.default_rng(0).normal(5.0, 0.25, 10_000)), 2)
    0.25
    """
    return float(np.median(np.abs(np.diff(losses)))) * NORMAL_MEDIAN / math.sqrt(2)
