"""What a run's input is like, and whether the layers are well: what rules about labels and losses must rule out first.

No idea of labels. Names are those of layers as they were called, in order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actograph.layout.layer import Nonlinearity
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow, Kind
from actograph.runlog.view import RunView

INPUT = "input"  # phase of scalars
NORMS = (
    "BatchNorm",
    "LayerNorm",
    "GroupNorm",
    "InstanceNorm",
    "RMSNorm",
    "SyncBatchNorm",
    "LocalResponseNorm",
)
BENDING = (
    "ReLU",
    "ELU",
    "SELU",
    "CELU",
    "GELU",
    "SiLU",
    "Mish",
    "Tanh",
    "Sigmoid",
    "Softplus",
    "Softmax",
    "Hardswish",
)
FIRST_POINTS = 8  # of the input's numbers that tell how it began
ALL_BUT_DEAD = 0.9  # share of a layer's units or values
STILL = 0.05  # relative change of every layer's root mean square that different batches alone can make


@dataclass(frozen=True)
class InputScale:
    """Mean and standard deviation of all values of the first model's input, and the extremes seen."""

    mean: float
    std: float
    low: float
    high: float

    @property
    def rms(self) -> float:
        """Root mean square."""
        return float(np.hypot(self.mean, self.std))


def input_scale(view: RunView) -> InputScale | None:
    """Return the scale of the first model's input over the first recorded steps; None where no numbers went in."""
    values = []
    for name, reduce in (("mean", np.median), ("std", np.median), ("min", np.min), ("max", np.max)):
        series = view.scalar(name, INPUT).values
        series = series[np.isfinite(series)][:FIRST_POINTS]
        if not len(series):
            return None
        values.append(float(reduce(series)))
    return InputScale(*values)


def is_normalized_first(view: RunView) -> bool:
    """Tell whether a norm stands before the first nonlinearity, so that the input's scale does not matter behind it.

    Where it is known which layer feeds which, the norm must take all that comes from the input: none passes it by.
    """
    entries = [layer for layer in Flow.of(view.facts).layers if layer.from_input is not None]
    if entries:
        return all(layer.is_normalized or Kind.NORM in (layer.from_input or ()) for layer in entries)
    for info in view.layers:
        if info.kind.startswith(NORMS):
            return True
        is_bent = info.flat is not None or info.kind.startswith(BENDING)
        if is_bent or info.kind in ("LSTM", "GRU", "RNN", "MultiheadAttention", "TransformerEncoderLayer"):
            return False
    return False


def is_normalized_input(view: RunView) -> bool:
    """Tell whether a norm is the first layer with parameters, or stands in front of it."""
    for info in view.layers:
        if info.kind.startswith(NORMS):
            return True
        if info.num_parameters:
            return False
    return False


def has_bad_input(view: RunView) -> bool:
    """Tell whether inputs were constant or not finite: then nothing can be said of how labels fit them."""
    facts = (*view.facts.of(FactKind.CONSTANT_INPUT), *view.facts.of(FactKind.NON_FINITE_INPUT))
    return any(fact.num_steps > 1 for fact in facts)


def has_dead_layer(view: RunView) -> bool:
    """Tell whether some rectifier layer is all but dead, or some other one all but saturated, at the end."""
    if not len(view.buckets):
        return False
    flat, dead = view.column("flat")[-1], view.column("dead")[-1]
    rectifiers = np.array(
        [info.flat is not None and info.flat.nonlinearity is Nonlinearity.RECTIFIER for info in view.layers],
        np.bool_,
    )
    # of a rectifier that has not been watched for long, values tell what units would
    is_dead = np.where(np.isfinite(dead), dead, flat) >= ALL_BUT_DEAD
    return bool((np.where(rectifiers, is_dead, flat >= ALL_BUT_DEAD)).any())


def largest_change(view: RunView) -> float | None:
    """Return the largest relative change of any layer's root mean square between the first and the last quarter."""
    quarter = len(view.buckets) // 4
    if not view.layers or not quarter:
        return None
    rms = view.column("rms")
    with np.errstate(invalid="ignore", divide="ignore"):
        change = np.abs(np.median(rms[-quarter:], axis=0) / np.median(rms[:quarter], axis=0) - 1.0)
    finite = change[np.isfinite(change)]
    return float(finite.max()) if finite.size else None
