"""A series as one line: block characters for the terminal, an SVG path for the page.

No idea of runs or colours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from actograph.layout.row import Floats

BLOCKS = "▁▂▃▄▅▆▇█"
BLANK = " "  # where nothing is known
SAMPLES = 1024  # of a series whose buckets have different widths: many for each character or point


def sparkline(values: Floats, width: int = 24, low: float | None = None, high: float | None = None) -> str:
    """Return at most ``width`` block characters, each the mean of its stretch of ``values`` (n,); blank where undefined.

    ``low`` and ``high`` fix the range (0 and 1 for shares); without them it is that of the finite values.

    >>> sparkline(np.array([0.0, 1.0, 2.0, 3.0, np.nan, 7.0]))
    '▁▂▃▄ █'
    """
    means = stretch_means(values, width)
    known = means[np.isfinite(means)]
    if not len(known):
        return BLANK * len(means)
    low = float(known.min()) if low is None else low
    high = float(known.max()) if high is None else high
    return "".join(_block(mean, low, high) for mean in means)


def svg_path(values: Floats, width: float, height: float, points: int = 80) -> str:
    """Return the ``d`` of an SVG path that draws ``values`` (n,) from left to right; gaps where undefined."""
    means = stretch_means(values, points)
    known = means[np.isfinite(means)]
    if not len(known):
        return ""
    low, span = float(known.min()), float(np.ptp(known)) or 1.0
    step = width / max(len(means) - 1, 1)
    commands = []
    for position, mean in enumerate(means):
        if np.isfinite(mean):
            pen = "L" if position and np.isfinite(means[position - 1]) else "M"
            commands.append(f"{pen}{position * step:.1f} {height * (1 - (mean - low) / span):.1f}")
    return "".join(commands)


def evenly(values: Floats, last_steps: ArrayLike) -> Floats:
    """Return ``values`` (n,) of buckets that end at ``last_steps`` (n,), each as often as its share of the steps asks for.

    Old buckets hold many steps and recent ones a single one: drawn alike, the last steps would fill the picture.
    """
    ends = np.asarray(last_steps)
    if len(ends) < 2 or ends[-1] - ends[0] == len(ends) - 1:  # noqa: PLR2004 - two ends
        return values
    samples: Floats = values[np.searchsorted(ends, np.linspace(ends[0], ends[-1], SAMPLES))]
    return samples


def stretch_means(values: Floats, count: int) -> Floats:
    """Return means of ``count`` equal stretches of ``values`` (or the values where there are fewer), NaN where all are."""
    if len(values) <= count:
        return np.asarray(values, np.float64)
    parts = [part[np.isfinite(part)] for part in np.array_split(np.asarray(values, np.float64), count)]
    return np.array([part.mean() if len(part) else np.nan for part in parts])


def _block(mean: float, low: float, high: float) -> str:
    if not np.isfinite(mean):
        return BLANK
    if high <= low:
        return BLOCKS[0]
    share = (mean - low) / (high - low)
    return BLOCKS[int(np.clip(share * len(BLOCKS), 0, len(BLOCKS) - 1))]
