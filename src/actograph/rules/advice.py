"""Remedies and numbers in words that several rules share.

No idea of any particular rule.
"""

from __future__ import annotations

import numpy as np

from actograph.rules.rule import Remedy
from actograph.runlog.view import RunView

STEP_DOWN = 10.0  # one notch of the usual search grid for learning rates


def lower_learning_rate(view: RunView, step: int) -> Remedy:
    """Return a lower learning rate than the highest used up to ``step``: a tenth.

    Where the rate had jumped (the run mostly used less than a tenth before), back to what it mostly was.
    """
    old = highest_learning_rate(view, step)
    if old is None:
        return Remedy("divide the learning rate by 10", "lr")
    series = view.scalar("lr")
    usual = float(np.nanmedian(series.values[series.steps <= step]))
    new = usual if 0 < usual < old / STEP_DOWN else old / STEP_DOWN
    return Remedy("lower the learning rate", "lr", old, new)


def highest_learning_rate(view: RunView, step: int | None = None) -> float | None:
    """Return the highest learning rate recorded up to ``step`` (over the whole run by default), None if there is none.

    The highest, because that is the number a user sets: a constant rate or the peak of a schedule.
    """
    series = view.scalar("lr")
    known = np.isfinite(series.high)
    if step is not None:
        known &= series.steps <= step
    values = series.high[known]
    return float(values.max()) if values.size else None


def rounded(value: float) -> float:
    """Round a suggested setting to two digits.

    >>> rounded(0.012345), rounded(123.4)
    (0.012, 120.0)
    """
    return float(f"{value:.2g}")


def number(value: float) -> str:
    """Write a number for a sentence: three digits.

    >>> number(0.012345), number(120000.0), number(3.0)
    ('0.0123', '1.2e+05', '3')
    """
    return f"{value:.3g}"


def percent(share: float) -> str:
    """Write a share as whole percent, never rounding up to 100 % or down to 0 %.

    >>> percent(0.5), percent(0.999), percent(1.0)
    ('50 %', '99 %', '100 %')
    """
    if 0.0 < share < 1.0:
        return f"{min(max(round(100 * share), 1), 99)} %"
    return f"{100 * share:.0f} %"


def names(layers: list[str], limit: int = 3) -> str:
    """Write layer names for a sentence, the first few of many.

    >>> names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    if len(layers) <= limit:
        return " and ".join(", ".join(layers).rsplit(", ", 1))
    return f"{', '.join(layers[:limit])} and {len(layers) - limit} more"
