"""Learning rates of several parameter groups from one setting, in fastai's notation.

No idea of optimizers or schedules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from actograph.errors import UsageError

Rate: TypeAlias = "float | slice | Sequence[float]"

HEAD_FACTOR = 10  # slice(high): the last group's rate over that of the others (fastai)


def group_rates(lr: Rate, num_groups: int) -> list[float]:
    """Return the rate of each group, from the input of the model to its output.

    A number goes to every group. ``slice(low, high)`` rises from the first group to the last by equal factors;
    ``slice(high)`` gives the last group ``high`` and the others a tenth of it; a sequence has one rate a group.
    A UsageError says that a rate is not a positive number, or that there are too many or too few.

    >>> group_rates(slice(0.01, 1.0), 3), group_rates(slice(1.0), 3), group_rates(1.0, 2)
    ([0.01, 0.1, 1.0], [0.1, 0.1, 1.0], [1.0, 1.0])
    """
    if isinstance(lr, slice):
        rates = _rates_of_slice(lr, num_groups)
    elif isinstance(lr, Sequence):
        rates = list(lr)
    else:
        rates = [lr] * num_groups
    if len(rates) != num_groups:
        raise UsageError(f"{len(rates)} rates were given for {num_groups} parameter groups")
    return [_checked(rate) for rate in rates]


def rate_ratios(rates: Sequence[float]) -> list[float]:
    """Return each rate relative to the largest one; 1 for all where every rate is 0.

    >>> rate_ratios([0.25, 1.0])
    [0.25, 1.0]
    """
    largest = max(rates)
    return [rate / largest if largest else 1.0 for rate in rates]


def _rates_of_slice(lr: slice, num_groups: int) -> list[float]:
    high = _checked(lr.stop)
    if lr.step is not None:
        raise UsageError(f"rates are slice(low, high) or slice(high), not {lr}")
    if lr.start is None:
        return [high / HEAD_FACTOR] * (num_groups - 1) + [high]
    if not _checked(lr.start):
        raise UsageError(f"rates cannot rise from 0 by equal factors: give {lr} a positive low end")
    low = float(lr.start)
    if num_groups == 1:
        return [high]
    return [low * (high / low) ** (group / (num_groups - 1)) for group in range(num_groups)]


def _checked(rate: object) -> float:
    if isinstance(rate, (int, float)) and 0 <= rate < math.inf:
        return float(rate)
    raise UsageError(f"a learning rate must be a number from 0 to below infinity, not {rate!r}")
