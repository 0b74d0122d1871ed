"""How a training loss got under way: the level it began at, what that should have been, and how long it stood there.

No idea of causes. Steps count by their learning rate, so that a warm-up is no delay.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from actograph.layout.row import Floats
from actograph.rules.advice import number
from actograph.rules.facts import layer_of
from actograph.rules.losses import CLEARLY, MIN_BLOCK, loss_curve
from actograph.rules.outcomes import outcomes_of
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow
from actograph.runlog.view import RunView

FIRST_FALL = 0.05  # of the level at the start: a loss that is lower by so much has left it
LONG = 20  # steps: a start that takes less is none to worry about
ERROR_RATIO = (
    4.0  # of the first squared error to the targets' variance: usual starts, targets standardized: 0.9 to 1.5
)
LASTING = 0.8  # of the later losses that must lie below, so that a dip is no start


class Excess(NamedTuple):
    """How weights that began too large show: the harm in words, empty where there is none, and the numbers."""

    harm: str
    evidence: dict[str, float | str]


class Stall(NamedTuple):
    """How long the loss stood where it began."""

    share: float  # of the run, steps counted by their learning rate
    num_steps: int
    is_over: bool


def stall_of(view: RunView, flow: Flow) -> Stall | None:
    """Return how long the training loss stayed at its first level; None where there are too few losses to tell.

    Where a cross-entropy began above ln(number of classes), that is the level: coming down to it takes no knowledge.
    """
    curve = loss_curve(view)
    if len(curve) < 2 * MIN_BLOCK:
        return None
    smooth = curve.smooth()
    level = base_level(view, flow, float(np.median(curve.values[:MIN_BLOCK])))
    fall = max(FIRST_FALL * abs(level), CLEARLY * curve.error(0))
    below = smooth <= level - fall
    later = np.cumsum(below[::-1])[::-1] / np.arange(len(below), 0, -1)  # share of the rest that lies below
    left = np.flatnonzero(below & (later >= LASTING))
    end = int(left[0]) if left.size else len(curve)
    weights = _rates_at(view, curve.steps)
    total = float(weights.sum())
    return Stall(float(weights[:end].sum()) / total if total > 0 else 1.0, end, bool(left.size))


def held_up(view: RunView, flow: Flow, stall: Stall, share: float) -> bool:
    """Tell whether a stall was one to worry about: a good share of the run, or a loss that did not fall by half after it."""
    curve = loss_curve(view)
    level = base_level(view, flow, float(np.median(curve.values[:MIN_BLOCK])))
    return stall.num_steps >= LONG and (stall.share >= share or curve.final >= level / 2)


def base_level(view: RunView, flow: Flow, first: float) -> float:
    """Return the loss of not knowing: that at the first, or of a cross-entropy ln(number of classes) where it is less."""
    classes = num_classes(view, flow)
    return first if classes is None else min(first, math.log(classes))


def first_loss(view: RunView) -> float | None:
    """Return the first training loss, None where it was not recorded or is not finite."""
    series = view.scalar("loss")
    if not len(series) or series.steps[0] > 0 or not math.isfinite(series.values[0]):
        return None
    return float(series.values[0])


def num_classes(view: RunView, flow: Flow) -> int | None:
    """Return between how many classes a cross-entropy tells, None where no call of it was seen."""
    for fact in view.facts.of(FactKind.LABELS):
        counts = fact.data.get("counts")
        if isinstance(counts, list) and len(counts) > 1:
            return len(counts)
    if view.facts.looked(FactKind.PROBABILITIES) is None or len(flow.heads) != 1:
        return None
    position = position_of_head(view, flow)
    units = view.layers[position].num_units if position is not None else 0
    return units if units > 1 else None


def position_of_head(view: RunView, flow: Flow) -> int | None:
    """Return where the layer that makes the model's output stands among those recorded; None for several, and for none."""
    if len(flow.heads) != 1:
        return None
    name = layer_of(view, flow.heads[0].name)
    return next((position for position, info in enumerate(view.layers) if info.name == name), None)


def wild_start(view: RunView, flow: Flow, loss_ratio: float, output_ratio: float) -> Excess:
    """Look whether the first outputs were wild guesses.

    They were where the first loss of a cross-entropy is more than ``loss_ratio`` times ln(number of classes), or the first
    squared error of a regression more than `ERROR_RATIO` times the targets' variance; where neither was seen, where the
    first outputs' root mean square is more than ``output_ratio`` times that at the end.
    """
    loss, classes = first_loss(view), num_classes(view, flow)
    if classes is not None:
        expected = math.log(classes)
        if loss is None:
            return Excess("", {})
        words = f"The first loss was {number(loss)}; not knowing anything costs ln({classes}) = {number(expected)}."
        evidence: dict[str, float | str] = {"first_loss": loss, "expected_loss": expected}
        return Excess(words if loss > loss_ratio * expected else "", evidence)
    error = _first_error(view)
    if error is not None and error > ERROR_RATIO:
        words = f"The first squared error was {number(error)} times that of always saying the targets' mean."
        return Excess(words, {"first_error_over_variance": error})
    position = position_of_head(view, flow)
    if position is None or not len(view.buckets) or view.first_steps[0] > 0:
        return Excess("", {})
    rms = view.column("rms")[:, position]
    first, last = float(rms[0]), float(np.median(rms[-MIN_BLOCK:]))
    if not (math.isfinite(first) and math.isfinite(last)):
        return Excess("", {})
    words = f"The first outputs had a root mean square of {number(first)}; in the end it was {number(last)}."
    evidence = {"first_output_rms": first, "last_output_rms": last}
    return Excess(words if first > output_ratio * last else "", evidence)


def _first_error(view: RunView) -> float | None:
    """Return the first squared error of a regression over the variance of its targets; None where that is not known."""
    found = outcomes_of(view)
    if len(found) != 1 or not found[0].is_regression or not found[0].target_variance:
        return None
    errors = found[0].series("squared_error")
    if not len(errors) or errors.steps[0] > 0 or not math.isfinite(errors.values[0]):
        return None
    return float(errors.values[0]) / found[0].target_variance


def _rates_at(view: RunView, steps: Floats) -> Floats:
    """Return the learning rate of each step (n,), 1 where none is known."""
    series = view.scalar("lr")
    known = np.isfinite(series.values)
    if not known.any():
        return np.ones(len(steps))
    return np.interp(steps, series.steps[known], series.values[known])
