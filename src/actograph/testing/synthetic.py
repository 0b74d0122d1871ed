"""Synthetic runs for tests of rules and figures: you give each layer's values, you get the `RunView` of such a run.

No idea of torch or files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actograph.layout.layer import FlatRegion, LayerInfo, Nonlinearity, Side
from actograph.layout.row import Field
from actograph.runlog.buckets import Bucket
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.runlog.view import RunView
from actograph.testing.reference import numpy_fired, numpy_histogram, numpy_row

RELU = FlatRegion(Nonlinearity.RECTIFIER, Side.OUTPUT, ((-np.inf, 0.0),))
TANH = FlatRegion(Nonlinearity.SATURATING, Side.OUTPUT, ((-np.inf, -0.9746794), (0.9746794, np.inf)))
SIGMOID = FlatRegion(Nonlinearity.SATURATING, Side.OUTPUT, ((-np.inf, 0.0527864), (0.9472136, np.inf)))


def layer(name: str, kind: str, num_units: int, flat: FlatRegion | None = None, batch: int = 64) -> LayerInfo:
    """Return what is known of a layer with output (batch, num_units)."""
    return LayerInfo(
        name, kind, (batch, num_units), "float32", channel_axis=1, num_units=num_units, flat=flat
    )


class SyntheticRun:
    """Collects steps like a recording does. ``step`` takes each layer's values (batch, units) and any scalars."""

    def __init__(self, layers: Sequence[LayerInfo], name: str = "synthetic", **config: Any) -> None:
        self.writer = RunWriter(None, RunInfo(name, created="2026-01-01T00:00:00+00:00", config=config))
        for info in layers:
            self.writer.add_layer(info)
        self.next_step = 0

    def step(self, values: Mapping[str, NDArray[Any]], **scalars: float) -> None:
        """Append one step: an array for every layer, by name, and training scalars such as ``loss``."""
        step = self.next_step
        self.next_step += 1
        if values:
            self.writer.add_block(self._bucket(step, values))
        for name, value in scalars.items():
            self.writer.add_scalar(name, step, value)

    def view(self, status: str = "finished") -> RunView:
        """Return the run so far."""
        self.writer.close(status)
        return self.writer.view()

    def _bucket(self, step: int, values: Mapping[str, NDArray[Any]]) -> Bucket:
        layers = self.writer.layers
        rows = np.stack([numpy_row(values[info.name], flat=info.flat) for info in layers])
        bad = rows[:, Field.NAN] + rows[:, Field.INF] > 0
        rows[bad, Field.FIRST_NON_FINITE] = step
        hist = np.stack([numpy_histogram(values[info.name]) for info in layers]).astype(np.uint32)
        fired = [_packed_fired(values[info.name], info) for info in layers]
        return Bucket(step, step, 1, rows, hist, np.concatenate(fired))


def _packed_fired(values: NDArray[Any], info: LayerInfo) -> NDArray[np.uint8]:
    if info.flat is None or info.channel_axis is None:
        return np.zeros(0, np.uint8)
    return np.packbits(numpy_fired(values, info.flat, info.channel_axis), bitorder="little")
