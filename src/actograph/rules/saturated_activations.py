"""The rule `saturated-activations`: sigmoid or tanh layers stuck in their flat ends while the network does not learn.

No idea of layers that cannot saturate: a Linear, a Conv or a ReLU is never judged here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout import bins
from actograph.layout.layer import FlatRegion, Nonlinearity
from actograph.rules.advice import lower_learning_rate, names, number, percent
from actograph.rules.between import onset_between
from actograph.rules.layers import Sick, column_of, first_of, others
from actograph.rules.losses import MIN_BLOCK, LossCurve, loss_curve
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.view import RunView

DIP_BUCKETS = (
    5  # a dip shorter than half of this many buckets does not end a saturated stretch (running median)
)
ONE_END = (
    0.9  # share of the values on one side of the middle from which a layer is said to be stuck at one end
)
TARGET_RMS = (
    1.0  # what should come into a sigmoid or tanh: LeCun et al. 1998, Efficient BackProp, section 4.4
)


@dataclass(frozen=True)
class SaturatedActivations(Rule):
    """A sigmoid or tanh layer works almost only in its flat ends, where its slope is below 0.05.

    A gradient that goes through such a value keeps less than a twentieth, so the layers in front learn next to nothing.
    """

    id: ClassVar[str] = "saturated-activations"
    leads_to: ClassVar[tuple[str, ...]] = ("labels-misaligned", "vanishing-gradients")
    measured: ClassVar[str] = (
        "The share of a layer's outputs in the flat region of its own nonlinearity (slope below 0.05: tanh beyond"
        " ±0.975, sigmoid outside 0.053 to 0.947), at every recorded step. The onset is the step since which the"
        " share stayed high to the end. It is a warning only where harm is seen: the loss did not come down well, or"
        " rose again since then."
    )
    silent_on: ClassVar[str] = (
        "The output layer (a sigmoid that is rightly sure); gates that are flat 30-60 % of the time; a"
        " layer that saturates while the network learns well is a note."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "From the start: scale the inputs to mean 0 and standard deviation 1, initialise with Xavier (gain 5/3 for"
        " tanh).",
        "During training: lower the learning rate by 10.",
        "Normalise in front of the layer, or use ReLU or GELU in hidden layers.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Glorot, Bengio 2010, Understanding the difficulty of training deep feedforward neural networks",
        "Rakitianskaia, Engelbrecht 2015, Measuring saturation in neural networks",
    )

    flat: float = threshold(
        0.85,
        "share of values",
        "nets at working rates ended at up to 0.80 (24), at rates too high 0.80-0.97 (12)",
    )
    flat_at_start: float = threshold(
        0.6, "share of values", "first step of 24 layers: up to 0.04; with weights x20: 0.67-0.92"
    )
    window: float = threshold(20.0, "steps", "as long as a unit must be silent to count as dead")
    few: float = threshold(
        5.0, "recorded steps", "of these, where steps are thinned: a share of a layer's values is no chance"
    )
    learned_at_start: float = threshold(
        0.8, "share of the loss at the start", "our choice: stricter, as large weights inflate the first loss"
    )
    learned: float = threshold(
        0.5, "share of the loss at the start", "our choice: a loss that fell by half, the network learns well"
    )
    lost: float = threshold(
        0.25, "share of the gain", "our choice: so much of the gain given back since the onset is harm"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find saturating layers, but for the output layer, whose share in the flat region stays high."""
        if not len(view.buckets):
            yield self.abstain("no activations were recorded")
            return
        curve = loss_curve(view)
        sick: list[Sick] = []
        unsure: list[str] = []
        for position in range(_head(view)):
            info = view.layers[position]
            if info.flat is None or info.flat.nonlinearity is not Nonlinearity.SATURATING:
                continue
            judged = self._judge(view, position, info.flat, curve)
            if isinstance(judged, Sick):
                sick.append(judged)
            elif judged:
                unsure.append(info.name)
        if unsure:
            yield self.abstain(f"too few recorded steps for {names(unsure)}")
        if sick:
            yield self._finding(view, sick, curve)

    def _judge(self, view: RunView, position: int, flat: FlatRegion, curve: LossCurve) -> Sick | bool:
        """Return the layer as sick; else whether it could not be judged."""
        present = np.flatnonzero(view.was_called(position))
        share = column_of(view, "flat", position)[present]
        finite = np.isfinite(share)
        present, share = present[finite], share[finite]
        if not self._is_long(view, present):
            return bool(share.size == 0 or share[-1] >= self.flat_at_start)
        smooth = _running_median(share)
        from_start = bool((smooth >= self.flat_at_start).all())
        low = np.flatnonzero(smooth < self.flat)
        onset = 0 if from_start or not low.size else int(low[-1]) + 1
        if onset >= len(share) or not self._is_long(view, present[onset:]):
            return False
        first_step = int(view.first_steps[present[onset]])
        if onset:
            first_step = onset_between(view, int(view.last_steps[present[onset - 1]]), first_step)
        lasting = float(np.median(share[onset:]))
        end, evidence = _which_end(view, position, flat, int(present[-1]))
        harm = self._harm(curve, first_step, self.learned_at_start if from_start else self.learned)
        return Sick(
            position=position,
            name=view.layers[position].name,
            severity=Severity.WARNING if harm else Severity.NOTE,
            first_step=first_step,
            share=lasting,
            evidence={"flat_share": lasting, "flat_share_at_first": float(share[0]), **evidence},
            words=f" {end}",
            remedies=self._remedies(view, position, first_step, from_start=from_start),
        )

    def _is_long(self, view: RunView, buckets: np.ndarray[tuple[int], np.dtype[np.intp]]) -> bool:
        """Tell whether buckets have enough of recorded steps, over enough of all."""
        if view.num_recorded[buckets].sum() < self.few:
            return False
        return bool(view.last_steps[buckets[-1]] - view.first_steps[buckets[0]] + 1 >= self.window)

    def _harm(self, curve: LossCurve, step: int, learned: float) -> bool:
        """Tell whether the loss shows harm; without a loss none is seen."""
        return len(curve) >= MIN_BLOCK and curve.shows_harm(step, learned, self.lost)

    def _remedies(self, view: RunView, position: int, step: int, *, from_start: bool) -> tuple[Remedy, ...]:
        name, kind = view.layers[position].name, view.layers[position].kind
        calmer = lower_learning_rate(view, step)
        normal = Remedy("put a normalisation layer in front", name, None, "LayerNorm or BatchNorm")
        other = Remedy("use an activation that does not saturate", name, kind, "ReLU")
        if not from_start:
            return calmer, normal, other
        return (*_smaller_input(view, position), normal, other)

    def _finding(self, view: RunView, sick: list[Sick], curve: LossCurve) -> Finding:
        first = first_of(sick, view.num_steps)
        since = "from the first step" if first.first_step == 0 else f"since step {first.first_step}"
        rest = [layer.name for layer in sick if layer is not first]
        also = f" The same holds for {names(rest)}." if rest else ""
        evidence: dict[str, float | str] = {**first.evidence, **others(sick, first)}
        if len(curve) >= MIN_BLOCK:
            evidence |= {"loss_at_start": curve.start, "loss_at_end": curve.final}
        return Finding(
            rule=self.id,
            severity=first.severity,
            layer=first.name,
            first_step=first.first_step,
            last_step=int(view.last_steps[-1]),
            evidence=evidence,
            message=(
                f"{percent(first.share)} of the outputs of {first.name} lie in the flat ends of its curve"
                f" {since}.{first.words} A gradient that passes there keeps less than a twentieth, so the layers in"
                f" front of it hardly learn. {self._outcome(first, curve)}{also}"
            ),
            remedies=first.remedies,
            reference=self.reference,
        )

    def _outcome(self, first: Sick, curve: LossCurve) -> str:
        if len(curve) < MIN_BLOCK:
            return "No loss was recorded, so whether it does harm is not known."
        course = f"from {number(curve.start)} to {number(curve.final)}"
        if first.severity is Severity.NOTE:
            return f"The loss went {course} nevertheless, so this network learns with it."
        return f"The loss went {course}."


def _head(view: RunView) -> int:
    """Return where the output begins: after the last layer with parameters; where none is known to have any, the last."""
    with_parameters = [position for position, info in enumerate(view.layers) if info.num_parameters]
    return with_parameters[-1] if with_parameters else len(view.layers) - 1


def _smaller_input(view: RunView, position: int) -> tuple[Remedy, ...]:
    """Return what makes the values that come in smaller, with the factor where the layer in front was recorded."""
    gain = Remedy(
        "initialise with Xavier, gain 5/3 for tanh and 1 for sigmoid", "weights in front", None, "Xavier"
    )
    inputs = Remedy(
        "scale the inputs to mean 0 and standard deviation 1", "input data", None, "mean 0, std 1"
    )
    if position == 0:
        return inputs, gain
    rms = float(column_of(view, "rms", position - 1)[0])
    if not np.isfinite(rms) or rms <= TARGET_RMS:
        return gain, inputs
    front = view.layers[position - 1].name
    smaller = Remedy(
        "initialise smaller, so that its outputs have a root mean square near 1", front, rms, TARGET_RMS
    )
    return (smaller, inputs) if position > 1 else (inputs, smaller)


def _which_end(
    view: RunView, position: int, flat: FlatRegion, bucket: int
) -> tuple[str, dict[str, float | str]]:
    """Tell at which end of its curve the layer is, from the last bucket's histogram."""
    middle = (flat.intervals[0][1] + flat.intervals[-1][0]) / 2  # of one interval alone this means nothing
    counts = view.histogram(position)[bucket].astype(np.float64)
    # an edge falls on the middle of tanh, hardtanh (0) and sigmoid (1/2), so the two sides are exact
    is_high = np.greater(bins.CENTERS, middle)
    high = float(counts[is_high].sum() / max(counts.sum(), 1.0))
    evidence: dict[str, float | str] = {"share_at_high_end": high}
    if high >= ONE_END:
        return "Nearly all are at the high end: the values that come in are too large and positive.", evidence
    if high <= 1 - ONE_END:
        return "Nearly all are at the low end: the values that come in are too large and negative.", evidence
    return "They are at both ends: the values that come in are spread too widely.", evidence


def _running_median(
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    half = DIP_BUCKETS // 2
    padded = np.pad(values, half, mode="edge")
    smooth: np.ndarray[tuple[int], np.dtype[np.float64]] = np.median(
        np.lib.stride_tricks.sliding_window_view(padded, DIP_BUCKETS), axis=1
    )
    return smooth
