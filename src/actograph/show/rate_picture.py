"""The curve of a learning-rate range test as lines of text, for the terminal.

No idea of how it was measured, nor of where it is printed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from actograph.layout.row import Floats
from actograph.show.sparkline import sparkline

WIDTH = 50  # characters
MARK = "▲"


def rate_picture(rates: Floats, smoothed: Floats, suggestions: Mapping[str, float]) -> str:
    """Return the smoothed losses (n,) over the rates (n,) as a line of blocks, and below it a line for each suggestion.

    Blocks are full from the highest loss before the lowest one on: what blows up afterwards does not flatten the fall.

    >>> rates = np.array([0.001, 0.01, 0.1, 1.0, 10.0])
    >>> print(rate_picture(rates, np.array([4.0, 3.0, 1.0, 2.0, 90.0]), {"minimum": 0.1}))
    loss 4     █▆▁▃█ 90
    rate 0.001       10
                 ▲ minimum 0.1
    """
    known = np.flatnonzero(np.isfinite(smoothed))
    if not len(known):
        return ""
    rates, smoothed = rates[known], smoothed[known]
    line = sparkline(smoothed, WIDTH, high=height_of_fall(smoothed))
    heads = [f"loss {smoothed[0]:.4g}", f"rate {rates[0]:.2g}"]
    indent = max(map(len, heads)) + 1
    lines = [
        f"{heads[0]:{indent}}{line} {smoothed[-1]:.4g}",
        f"{heads[1]:{indent}}{' ' * len(line)} {rates[-1]:.2g}",
    ]
    for name, rate in sorted(suggestions.items(), key=lambda one: one[1]):
        column = int(np.argmin(np.abs(np.log(rates / rate)))) * len(line) // len(rates)
        lines.append(f"{' ' * (indent + column)}{MARK} {name} {rate:.2g}")
    return "\n".join(lines)


def height_of_fall(losses: Floats) -> float:
    """Return the highest loss before the lowest one; of losses (n,) that are lowest at first, the highest of all.

    >>> height_of_fall(np.array([2.0, 3.0, 1.0, 9.0])), height_of_fall(np.array([1.0, 3.0]))
    (3.0, 3.0)
    """
    lowest = int(losses.argmin())
    return float(losses[:lowest].max() if lowest else losses.max())
