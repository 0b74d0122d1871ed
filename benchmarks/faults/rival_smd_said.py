"""What SageMaker Debugger's rules say, in our words: `CAUSES`; and how a rule is said where a condition first holds.

No idea of any single rule.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from actograph.layout.row import Floats
from faults.said import Said

# What each rule may mean: the rule ids of all causes that its description names or its symptom usually has
CAUSES: dict[str, tuple[str, ...]] = {
    "ExplodingTensor": (
        "non-finite-input", "exploding-gradients", "fp16-overflow", "non-finite-loss", "learning-rate-too-high",
    ),
    "DeadRelu": ("dead-units",),
    "SaturatedActivation": ("saturated-activations",),
    "PoorWeightInitialization": (
        "constant-initialization", "initialization-too-large", "initialization-too-small",
        "head-initialization", "missing-normalization",
    ),
    "AllZero": ("dead-units", "constant-initialization", "inputs-collapsed", "detached-graph", "fp16-underflow"),
    "VanishingGradient": ("vanishing-gradients", "initialization-too-small", "fp16-underflow", "detached-graph"),
    "UnchangedTensor": (
        "parameters-not-in-optimizer", "stale-optimizer", "detached-graph", "learning-rate-decayed-early",
    ),
    "WeightUpdateRatio (large)": (
        "learning-rate-too-high", "momentum-too-high", "exploding-gradients", "summed-loss",
    ),
    "WeightUpdateRatio (small)": (
        "parameters-not-in-optimizer", "stale-optimizer", "detached-graph", "learning-rate-too-low",
        "learning-rate-decayed-early", "optimizer-epsilon", "clipping-too-tight",
    ),
    "ClassImbalance": ("class-collapse", "label-never-seen"),
    "CheckInputImages": ("inputs-not-normalized",),
    "Overfit": ("overfitting",),
    "Overtraining": ("overfitting",),
    "LossNotDecreasing": (
        "loss-not-decreasing", "loss-diverging", "learning-rate-too-low", "learning-rate-too-high",
        "loss-sign-flipped",
    ),
}  # fmt: skip

Flags = NDArray[np.bool_]


def said(rule: str, layer: str | None, step: int) -> Said:
    """Return what a rule says, with what may be meant by it."""
    return Said(rule, layer, step, causes=CAUSES[rule])


def first(rule: str, names: Sequence[str | None], is_so: Flags, steps: NDArray[np.number]) -> Iterator[Said]:
    """Say a rule of each column of ``is_so`` (T, names) that is ever so, with the first step at which it is."""
    for position in np.flatnonzero(is_so.any(axis=0)):
        yield said(rule, names[position], int(steps[np.argmax(is_so[:, position])]))


def lasting(is_so: Flags, num: int) -> Flags:
    """Tell where ``is_so`` (T, N) has been so for ``num`` times."""
    lasts = is_so.copy()
    for back in range(1, num):
        lasts[back:] &= is_so[:-back]
        lasts[:back] = False
    return lasts


def stalls(values: Floats, patience: int, delta: float) -> Flags:
    """Tell where the lowest value is ``patience`` or more values old; one that is not lower by ``delta`` does not count."""
    is_old, best, since = np.zeros(len(values), np.bool_), math.inf, 0
    for position, value in enumerate(values):
        if value < best - delta:
            best, since = value, position
        is_old[position] = position - since >= patience
    return is_old
