"""Schedules: pure functions of progress in [0, 1], with fastai's shapes.

No idea of optimizers or steps. torch's ``OneCycleLR`` differs from ``one_cycle``: its rise takes 30 % of the steps (here
25 %) and each phase ends one step earlier, and its last rate is ``lr_max / 25 / 1e4``, that is ``lr_max / 2.5e5``, where
here ``div_final`` divides ``lr_max`` itself (``lr_max / 1e5``), as in fastai.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import accumulate
from typing import TypeAlias

from actograph.errors import UsageError

Schedule: TypeAlias = Callable[[float], float]

_SHARE_TOLERANCE = 1e-9  # shares such as 0.1 + 0.2 + 0.7 miss 1 by rounding only


def constant(value: float) -> Schedule:
    """Return ``value`` all the time."""
    return lambda progress: value


def linear(start: float, end: float) -> Schedule:
    """Go from ``start`` to ``end`` in a straight line.

    >>> linear(0.0, 10.0)(0.25)
    2.5
    """
    return lambda progress: start + progress * (end - start)


def cosine(start: float, end: float) -> Schedule:
    """Go from ``start`` to ``end`` along half a cosine: level at both ends.

    >>> cosine(0.0, 10.0)(0.5)
    5.0
    """
    return lambda progress: start + (1 + math.cos(math.pi * (1 - progress))) * (end - start) / 2


def join(*parts: tuple[float, Schedule]) -> Schedule:
    """Run through schedules one after the other, each for its share of the progress.

    A UsageError says that a share is negative or that they do not add up to 1.

    >>> warm_then_level = join((0.1, linear(0.0, 1.0)), (0.9, constant(1.0)))
    >>> warm_then_level(0.05), warm_then_level(0.5)
    (0.5, 1.0)
    """
    shares = [share for share, _ in parts]
    if any(share < 0 for share in shares) or abs(sum(shares) - 1) > _SHARE_TOLERANCE:
        raise UsageError(f"the shares of joined schedules must be positive and add up to 1, not {shares}")
    ends = list(accumulate(shares))

    def joined(progress: float) -> float:
        for (share, schedule), end in zip(parts, ends, strict=True):
            if progress < end:
                return schedule((progress - (end - share)) / share)
        return next(schedule for share, schedule in reversed(parts) if share)(1.0)

    return joined


def one_cycle(lr_max: float, div: float = 25, div_final: float = 1e5, pct_start: float = 0.25) -> Schedule:
    """Rise from ``lr_max / div`` to ``lr_max``, then fall to ``lr_max / div_final`` (Smith 2018, fastai's cosine form).

    >>> rate = one_cycle(0.5)
    >>> rate(0.0), rate(0.25)
    (0.02, 0.5)
    """
    return cosine_peak(lr_max / div, lr_max, lr_max / div_final, pct_start)


def flat_cosine(lr: float, div_final: float = 1e5, pct_start: float = 0.75) -> Schedule:
    """Stay at ``lr`` for ``pct_start`` of the progress, then fall to ``lr / div_final`` by cosine, as fastai's.

    >>> rate = flat_cosine(0.5)
    >>> rate(0.0), rate(0.75)
    (0.5, 0.5)
    """
    return cosine_peak(lr, lr, lr / div_final, pct_start)


def cosine_peak(start: float, middle: float, end: float, pct_start: float = 0.25) -> Schedule:
    """Go from ``start`` to ``middle`` in the first ``pct_start`` of the progress, then to ``end``, both by cosine."""
    return join((pct_start, cosine(start, middle)), (1 - pct_start, cosine(middle, end)))
