"""A row for one parameter: norms of its gradient, its weights and their update, and how such rows merge.

No idea of how they are measured. A row is `NUM_PARAMETER_FIELDS` float64 numbers over one or more steps: sums, from which
the view makes means, extremes, and first steps.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import numpy as np

from actograph.layout.row import Floats


class ParameterField(IntEnum):
    """Positions in a parameter's row, each with what it holds. A norm is the Euclidean one; "sum" is over steps."""

    STEPS = 0  # steps measured
    FINITE = 1  # of these, with a gradient whose norm is finite: what the gradient's sums are over
    NON_FINITE = 2  # with a gradient whose norm is NaN or Inf; the rest had none (None)
    GRAD_NORM = 3  # sum
    GRAD_ZEROS = 4  # sum of the exact zeros' share
    GRAD_MAX = 5  # largest |g|; -inf when there was none
    MOVED = 6  # steps with finite norms of weights and update: what the next two sums are over
    WEIGHT_NORM = 7  # sum, before the update
    UPDATE_NORM = 8  # sum; update: weights after the step minus before
    ZERO_UPDATES = 9  # steps whose update was exactly zero under a gradient that was not
    FIRST_ZERO_UPDATE = 10  # the first of these; +inf when never
    FIRST_NON_FINITE = 11  # first step with such a gradient; +inf when never
    FIRST_BAD_WEIGHTS = 12  # first step before which a weight was NaN or Inf; +inf when never


NUM_PARAMETER_FIELDS = len(ParameterField)

_MAXIMA = [ParameterField.GRAD_MAX]
_MINIMA = [
    ParameterField.FIRST_ZERO_UPDATE,
    ParameterField.FIRST_NON_FINITE,
    ParameterField.FIRST_BAD_WEIGHTS,
]
_SUMS = [field for field in ParameterField if field not in (*_MAXIMA, *_MINIMA)]


@dataclass(frozen=True)
class ParameterInfo:
    """One recorded parameter: its qualified name, shape and type.

    Of a parameter that several ranks share out among them, ``is_shard``, each rank's file has the norms of its own part;
    ``shape`` is that of the whole.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str  # "float32"
    is_shard: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain data for storage."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ParameterInfo:
        """Undo `to_json`."""
        return cls(data["name"], tuple(data["shape"]), data["dtype"], data.get("is_shard", False))


def empty_parameter_rows(*shape: int) -> Floats:
    """Return rows (*shape, NUM_PARAMETER_FIELDS) of nothing measured: the neutral element of `merge_parameter_rows`."""
    rows = np.zeros((*shape, NUM_PARAMETER_FIELDS))
    rows[..., _MINIMA] = np.inf
    rows[..., _MAXIMA] = -np.inf
    return rows


def merge_parameter_rows(rows: Floats) -> Floats:
    """Merge rows (n, ..., NUM_PARAMETER_FIELDS) over their first axis; exact but for the rounding of sums."""
    merged = np.empty(rows.shape[1:])
    merged[..., _SUMS] = rows[..., _SUMS].sum(axis=0)
    merged[..., _MINIMA] = rows[..., _MINIMA].min(axis=0)
    merged[..., _MAXIMA] = rows[..., _MAXIMA].max(axis=0)
    return merged
