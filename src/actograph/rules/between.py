"""`onset_between`: at which step something began that was seen later only, as steps in between were not recorded.

No idea of what began. The loss has every step: where it rises clearly in that gap, the rise is taken for the beginning.
"""

from __future__ import annotations

import numpy as np

from actograph.rules.losses import CLEARLY, MIN_BLOCK, loss_curve
from actograph.runlog.view import RunView

BEFORE = 20  # steps before the gap, from which the level of the loss and its scatter are read


def onset_between(view: RunView, before: int, seen: int) -> int:
    """Return the first step after ``before`` up to ``seen`` at which the loss left its level upwards, else ``seen``."""
    curve = loss_curve(view)
    known = curve.values[(curve.steps <= before) & (curve.steps > before - BEFORE)]
    gap = (curve.steps > before) & (curve.steps <= seen)
    if len(known) < MIN_BLOCK or not gap.any():
        return seen
    low, level, high = np.quantile(known, [0.25, 0.5, 0.75])
    scatter = max(float(high - low) / 1.349, 1e-3 * abs(float(level)))  # quartiles of a normal distribution
    risen = np.flatnonzero(curve.values[gap] > level + CLEARLY * scatter)
    return int(curve.steps[gap][risen[0]]) if risen.size else seen
