"""The rule `overfitting`: from some step on the validation loss rises while the training loss goes on falling.

No idea of the model's size; it compares two curves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.row import Floats
from actograph.rules.advice import number
from actograph.rules.losses import LossCurve, loss_curve
from actograph.rules.outcomes import (
    chance_loss,
    level_at_end,
    only_classification,
    validation_accuracy,
    validation_loss,
    validation_metrics,
)
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.view import RunView

LAST = 0.25  # share of the evaluations that tell the level at the end
MIN_LAST = 3  # of them
MIN_POINTS = 5  # evaluations


@dataclass(frozen=True)
class _Gap:
    """How far training and validation are apart at the end."""

    loss: float  # share of the loss at the start, or of chance where that is more
    accuracy: float | None  # None where one of both is not known
    left: float  # training loss over validation loss

    @classmethod
    def of(cls, view: RunView, curve: LossCurve, level: float) -> _Gap:
        """Compare the training's end with a level of the validation loss."""
        outcomes, valid = only_classification(view), validation_accuracy(view)
        accuracy = None
        if outcomes is not None and valid is not None:
            seen = level_at_end(outcomes.series("accuracy")) - level_at_end(valid)
            accuracy = seen if math.isfinite(seen) else None
        scale = max(abs(curve.start), chance_loss(view) or 0.0) or 1.0
        return cls((level - curve.final) / scale, accuracy, curve.final / level if level > 0 else math.inf)


@dataclass(frozen=True)
class Overfitting(Rule):
    """The model learns its training samples by heart: they fit ever better, and others worse.

    Too few samples for the model, or too many steps.
    """

    id: ClassVar[str] = "overfitting"
    leads_to: ClassVar[tuple[str, ...]] = ()
    measured: ClassVar[str] = (
        "The validation loss (said, or seen where a loss is computed without gradients): its lowest value, the onset, and"
        " its level over the last quarter of the evaluations, which must all lie above. The training loss must have gone on"
        " to a small share of what it was at the onset. Or the lowest value came early, and since then the training loss"
        " fell to next to nothing, or both losses, and accuracies where both are known, are very far apart. It is a note"
        " where they are close at the end, or where a validation metric has gained since."
    )
    silent_on: ClassVar[str] = (
        "A gap between both losses as such; a rise that costs next to nothing (a note); a validation loss that goes up and"
        " down; one that rises while the accuracy rises as well (a note: outputs get too sure); a training loss that rises"
        " too (see loss-diverging)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Stop at the step with the lowest validation loss, and keep the weights of that step.",
        "Regularize: weight decay, dropout, augmentation; or gather more samples.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Prechelt 1998, Early stopping, but when?; runmedic (validation loss 15 % above its minimum)",
    )

    rise: float = threshold(
        0.2, "share of the lowest validation loss", "runmedic has 15 %; healthy runs had up to 13 %"
    )
    fell: float = threshold(
        0.5, "share of the training loss at the onset", "our choice: it must have gone on for long"
    )
    noise: float = threshold(3.0, "standard errors of the last evaluations", "our choice")
    gain: float = threshold(0.03, "of a metric", "our choice: 1.5 standard errors of 90 % on 250 samples")
    heart: float = threshold(
        0.01, "share of the validation loss", "few samples: 0.0004 to 0.006; healthy runs: 0.014 to 1"
    )
    early: float = threshold(
        0.25, "share of the run", "our choice: three quarters of the run were for nothing"
    )
    gap: float = threshold(
        0.2,
        "share of the loss at the start",
        "few samples: 0.2 to 0.9; healthy runs: up to 0.14, with 90 samples 0.3",
    )
    accuracy_gap: float = threshold(0.12, "accuracy", "few samples: 0.14 to 0.45; healthy runs: up to 0.1")
    far: float = threshold(
        0.25, "share of the loss at the start", "as for the gap, where the loss need not rise"
    )
    accuracy_far: float = threshold(0.2, "accuracy", "our choice: twice what healthy runs have")
    little: float = threshold(
        0.1, "of the validation loss", "few samples: 0.04; healthy regressions: 0.5 to 1.2"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Compare the end of the validation loss with its lowest value."""
        series = validation_loss(view)
        finite = np.isfinite(series.values)
        steps, values = series.steps[finite], series.values[finite]
        if len(values) < MIN_POINTS:
            yield self.abstain(
                f"{len(values)} evaluations of a validation loss were seen; at least {MIN_POINTS} are needed"
            )
            return
        curve = loss_curve(view)
        if not len(curve):
            yield self.abstain("no training loss was recorded")
            return
        best = int(np.argmin(values))
        onset = int(steps[best])
        lowest = float(values[best])
        last = values[-max(int(np.ceil(LAST * len(values))), MIN_LAST) :]
        before = curve.level_before(onset + 1)
        gains = {name: _gain(one.steps, one.values, onset) for name, one in validation_metrics(view).items()}
        level = float(np.median(last))
        gap = _Gap.of(view, curve, level)
        is_early = onset <= self.early * view.num_steps
        is_rising = self._rises(values, best, last) and curve.final <= self.fell * before
        by_heart = curve.final <= self.heart * lowest and is_early
        is_far = is_early and self._is_far(gap)
        if not is_rising and not by_heart and not is_far:
            return
        has_gained = any(gain > self.gain for gain in gains.values())
        is_harmless = not self._is_wide(gap) or (has_gained and not is_far)
        yield Finding(
            rule=self.id,
            severity=Severity.NOTE if is_harmless else Severity.WARNING,
            layer=None,
            first_step=min(onset, view.final_step),
            last_step=view.final_step,
            evidence={
                "lowest_validation_loss": lowest,
                "validation_loss_at_end": level,
                "training_loss_then": before,
                "training_loss_at_end": curve.final,
                **{f"gain_of_{name}": gain for name, gain in gains.items()},
            },
            message=(
                f"Since step {onset} the validation loss went from {number(lowest)} to {number(level)}, while the"
                f" training loss fell from {number(before)} to {number(curve.final)}: training samples are learned by heart."
            ),
            remedies=(
                Remedy(
                    "stop early, and keep the weights of the step with the lowest validation loss", "num_steps",
                    float(view.num_steps), float(onset + 1),
                ),
                Remedy("regularize: weight decay, dropout, augmentation, or more samples", "training data"),
            ),
            reference=self.reference,
        )  # fmt: skip

    def _is_wide(self, gap: _Gap) -> bool:
        """Tell whether training and validation are so far apart at the end that it counts."""
        return gap.loss >= self.gap and (gap.accuracy is None or gap.accuracy >= self.accuracy_gap)

    def _is_far(self, gap: _Gap) -> bool:
        """Tell whether they are so far apart that nothing else need show it."""
        if gap.accuracy is None:
            return gap.loss >= self.far and gap.left <= self.little
        return gap.loss >= self.far and gap.accuracy >= self.accuracy_far

    def _rises(self, values: Floats, best: int, last: Floats) -> bool:
        """Tell whether the last evaluations all lie clearly above the best one."""
        lowest = float(values[best])
        if best + len(last) >= len(values):
            return False
        scatter = float(np.median(np.abs(np.diff(values[best:]))))
        rise = float(np.median(last)) - lowest
        enough = max(self.rise * abs(lowest), self.noise * scatter / float(np.sqrt(len(last))))
        return rise >= enough and float(last.min()) > lowest + scatter


def _gain(steps: Floats, values: Floats, onset: int) -> float:
    """Return what a metric gained since a step: the median of its last quarter over its value at that step."""
    known = np.isfinite(values)
    steps, values = steps[known], values[known]
    if not len(values):
        return 0.0
    then = int(np.argmin(np.abs(steps - onset)))
    return float(np.median(values[-max(int(np.ceil(LAST * len(values))), 1) :]) - values[then])
