"""`LayerOrder`: the layers of a block in the order of a run that was taken up.

No idea of how they are measured. In a run from its beginning both orders are the same, and nothing is done.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from actograph.layout.layer import LayerInfo
from actograph.layout.row import Counts, Floats, empty_rows
from actograph.runlog.buckets import packed_size

Bytes = NDArray[np.uint8]


class LayerOrder:
    """Where each layer of the block stands in the run, in the order in which they were seen."""

    def __init__(self) -> None:
        self._positions: list[int] = []

    @property
    def num_layers(self) -> int:
        """How many layers were seen."""
        return len(self._positions)

    def add(self, layer: LayerInfo, known: Sequence[LayerInfo]) -> bool:
        """Note the block's next layer; return whether it is new to the run, whose layers are ``known``."""
        seen = set(self._positions)
        same = (
            position
            for position, one in enumerate(known)
            if position not in seen and (one.name, one.quantity) == (layer.name, layer.quantity)
        )
        position = len(known) if len(seen) == len(known) else next(same, len(known))
        self._positions.append(position)
        return position == len(known)

    def apply(
        self, rows: Floats, hist: Counts, fired: Bytes, layers: Sequence[LayerInfo]
    ) -> tuple[Floats, Counts, Bytes]:
        """Return a block's rows, histograms and packed flags for all the run's ``layers``, empty where not seen.

        Where layers were seen since the rows were measured, the block has the first ones only.
        """
        if self._positions == list(range(len(layers))):
            return rows, hist, fired
        all_rows = empty_rows(len(layers))
        all_hist = np.zeros((len(layers), hist.shape[1]), hist.dtype)
        positions = self._positions[: len(rows)]
        all_rows[positions], all_hist[positions] = rows, hist
        sizes = [packed_size(layer.num_flags) for layer in layers]
        parts: list[Bytes] = [np.zeros(size, np.uint8) for size in sizes]
        begin = 0
        for position in positions:
            parts[position] = fired[begin : begin + sizes[position]]
            begin += sizes[position]
        return all_rows, all_hist, np.concatenate(parts)
