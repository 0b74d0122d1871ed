"""Rows that follow from other rows: the same values again, or what a ReLU makes of them.

No idea of tensors, steps or modules. Exact: every count, the extremes and the moments equal those of a measured output.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actograph.layout.bins import ZERO_BIN
from actograph.layout.row import Counts, Field, Floats


def derive(rows: Floats, hist: Counts, followers: NDArray[np.int64]) -> None:
    """Fill in rows (slots, NUM_FIELDS) and histograms (slots, NUM_BINS) that follow from others among them.

    ``followers`` is (n, 3): slot, parent, and 1 where a ReLU is between them, else 0; parents before their heirs.
    """
    for slot, parent, rectifies in followers.tolist():
        rows[slot], hist[slot] = rows[parent], hist[parent]
        rows[slot, Field.FLAT] = 0.0  # an alias has no flat region
        if rectifies:
            rectify(rows[slot : slot + 1], hist[slot : slot + 1])


def rectify(rows: Floats, hist: Counts) -> None:
    """Turn rows (n, NUM_FIELDS) and histograms (n, NUM_BINS) of x into those of max(x, 0), in place.

    What is below zero, -inf with it, becomes a zero; NaN stays NaN. The flat region becomes that of a ReLU.
    """
    neg_infs = rows[:, Field.INF_NEG]
    made_zero = rows[:, Field.NEG_COUNT] + neg_infs
    rows[:, Field.NEAR_ZERO] += made_zero - rows[:, Field.NEAR_ZERO_NEG]
    rows[:, Field.ZEROS] += made_zero
    rows[:, Field.INF] -= neg_infs
    rows[:, Field.FLAT] = zeros = rows[:, Field.ZEROS]
    rows[zeros > 0, Field.MIN] = 0.0
    rows[:, Field.MAX] = np.maximum(rows[:, Field.MAX], np.where(zeros > 0, 0.0, -np.inf))
    rows[:, Field.NEG_COUNT : Field.NEG_M2 + 1] = 0.0
    hist[:, ZERO_BIN] = zeros
    hist[:, :ZERO_BIN] = 0
    rows[:, [Field.NEAR_ZERO_NEG, Field.INF_NEG]] = 0.0
    rows[rows[:, Field.NAN] + rows[:, Field.INF] == 0, Field.FIRST_NON_FINITE] = np.inf
