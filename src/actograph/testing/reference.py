"""A second, naive implementation of rows in float64 numpy, to test back ends against.

No idea of torch. Slow and plain on purpose.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actograph.layout.bins import histogram
from actograph.layout.layer import FlatRegion
from actograph.layout.row import NEAR_ZERO, Field, Floats, empty_rows


def numpy_row(
    values: NDArray[Any], flat_values: NDArray[Any] | None = None, flat: FlatRegion | None = None
) -> Floats:
    """Return the row (NUM_FIELDS,) of an array of any shape.

    ``flat_values`` is what the flat region is looked for in, where that is not ``values`` itself (the layer's input).
    """
    exact = np.asarray(values, np.float64).ravel()
    finite = exact[np.isfinite(exact)]
    row = empty_rows()
    for part, first in ((finite[finite < 0], Field.NEG_COUNT), (finite[finite > 0], Field.POS_COUNT)):
        if len(part):
            mean = part.mean()
            row[first : first + 3] = len(part), mean, ((part - mean) ** 2).sum()
    row[Field.ZEROS] = (finite == 0).sum()
    row[Field.NEAR_ZERO] = (np.abs(finite) <= NEAR_ZERO).sum()
    row[Field.NAN] = np.isnan(exact).sum()
    row[Field.INF] = np.isinf(exact).sum()
    row[Field.NEAR_ZERO_NEG] = ((finite < 0) & (finite >= -NEAR_ZERO)).sum()
    row[Field.INF_NEG] = (exact == -np.inf).sum()
    if flat is not None:
        row[Field.FLAT] = in_flat_region(values if flat_values is None else flat_values, flat).sum()
    if len(finite):
        row[Field.MIN], row[Field.MAX] = finite.min(), finite.max()
    return row


def numpy_histogram(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return the counts (NUM_BINS,) of an array of any shape."""
    return histogram(np.asarray(values))


def numpy_fired(values: NDArray[Any], flat: FlatRegion, channel_axis: int) -> NDArray[np.bool_]:
    """Tell for each unit whether any of its values (or NaN: it is not in the flat region) is outside the flat region."""
    outside = np.moveaxis(~in_flat_region(values, flat), channel_axis, 0)
    fired: NDArray[np.bool_] = np.logical_or.reduce(outside.reshape(outside.shape[0], -1), axis=1)
    return fired


def in_flat_region(values: NDArray[Any], flat: FlatRegion) -> NDArray[np.bool_]:
    """Tell for each value whether it lies in the flat region; finite values only, NaN and infinity never do."""
    exact = np.asarray(values, np.float64)
    inside: NDArray[np.bool_] = np.zeros(exact.shape, np.bool_)
    for low, high in flat.intervals:
        inside |= (exact >= low) & (exact <= high)
    inside &= np.isfinite(exact)
    return inside
