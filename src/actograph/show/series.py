"""Scalars of a run as the figures and tables need them: smoothed, split into rates and others, best value of a metric.

No idea of how they are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from actograph.layout.row import Floats
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.schema import Event
from actograph.runlog.view import RunView

LOSS, SMOOTH_LOSS = "loss", "smooth_loss"
TRAIN, VALID = "train", "valid"
PHASE = "phase"
SMOOTHING = 0.98  # weight of the past at every step, as in fastai's recorder
SCHEDULE_PREFIXES = ("lr", "mom", "beta", "weight_decay", "wd")
SMALLER_IS_BETTER = ("loss", "error", "err", "mae", "mse", "rmse", "perplexity")


class Best(NamedTuple):
    """The best value of a validation metric and the step at which it was measured."""

    name: str
    value: float
    step: int


def smoothed(values: Floats, beta: float = SMOOTHING) -> Floats:
    """Return the exponentially weighted mean (n,), corrected for its start (Kingma and Ba 2015, section 3).

    A non-finite value is NaN in the result and does not spoil those after it.

    >>> smoothed(np.array([1.0, 1.0, np.nan, 1.0])).round(6).tolist()
    [1.0, 1.0, nan, 1.0]
    """
    result = np.full(len(values), np.nan)
    total = weight = 0.0
    for position, value in enumerate(values):
        if math.isfinite(value):
            total, weight = beta * total + (1 - beta) * value, beta * weight + (1 - beta)
            result[position] = total / weight
    return result


def training_loss(view: RunView) -> tuple[ScalarSeries, Floats]:
    """Return the training loss and its smoothed values (n,): as recorded, else smoothed here."""
    losses = view.scalar(LOSS)
    recorded = view.scalar(SMOOTH_LOSS)
    same = np.array_equal(recorded.steps, losses.steps)
    return losses, recorded.values if same and len(losses) else smoothed(losses.values)


def schedules(view: RunView) -> Mapping[str, ScalarSeries]:
    """Return the training scalars that an optimizer follows (rates, momenta), by name."""
    return {
        name: series
        for (phase, name), series in view.scalars.items()
        if phase == TRAIN and name.startswith(SCHEDULE_PREFIXES) and len(series)
    }


def other_scalars(view: RunView) -> Mapping[str, ScalarSeries]:
    """Return the training scalars that are neither the loss nor a schedule, by name."""
    known = {LOSS, SMOOTH_LOSS, *schedules(view)}
    return {
        name: series
        for (phase, name), series in view.scalars.items()
        if phase == TRAIN and name not in known and len(series)
    }


def valid_metrics(view: RunView) -> Mapping[str, ScalarSeries]:
    """Return the scalars measured in validation, by name, the loss last."""
    names = [name for (phase, name), series in view.scalars.items() if phase == VALID and len(series)]
    return {name: view.scalar(name, VALID) for name in sorted(names, key=lambda name: name == LOSS)}


def best(name: str, series: ScalarSeries) -> Best | None:
    """Return the best finite value of a metric; errors and losses are best when small, all else when large."""
    finite = np.flatnonzero(np.isfinite(series.values))
    if not len(finite):
        return None
    pick = np.argmin if name.lower().endswith(SMALLER_IS_BETTER) else np.argmax
    at = int(finite[int(pick(series.values[finite]))])
    return Best(name, float(series.values[at]), int(series.steps[at]))


def best_metric(view: RunView) -> Best | None:
    """Return the best value of the first validation metric, or of the validation loss where there is no other."""
    found = (best(name, series) for name, series in valid_metrics(view).items())
    return next((value for value in found if value is not None), None)


def epochs(view: RunView) -> list[Event]:
    """Return the events that say that an epoch's training begins."""
    phases = [event for event in view.events if event.kind == PHASE and event.data.get("name") == TRAIN]
    return [event for event in phases if "epoch" in event.data]
