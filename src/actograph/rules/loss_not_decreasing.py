"""The symptom `loss-not-decreasing`: the training loss stayed where it began.

No idea why: a cause that began in time takes this as its consequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.row import Floats
from actograph.rules.advice import highest_learning_rate, lower_learning_rate, number
from actograph.rules.given import STILL, largest_change
from actograph.rules.losses import CLEARLY, LossCurve, loss_curve
from actograph.rules.outcomes import only_classification
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.view import RunView

STEP_UP = 10.0  # one notch of the usual search grid for learning rates
USUAL = (
    1e-3  # Adam's default (Kingma, Ba 2015): where nothing moves at all there is no reason to stay below it
)
FRESH = 0.05  # share of the loss of chance: fresh networks are within 3 % of it, or above


@dataclass(frozen=True)
class LossNotDecreasing(Rule):
    """The training loss never got clearly below where it began.

    The network learns nothing that shows. It says nothing about the reason; no rule found the cause.
    """

    id: ClassVar[str] = "loss-not-decreasing"
    is_cause: ClassVar[bool] = False
    measured: ClassVar[str] = (
        "Medians of the loss over blocks of a twentieth of the run. The best block and the last quarter of the run"
        " must lie below the start by a small share of its level and by more than the blocks scatter. Where the"
        " scatter is so large that a real decrease could hide in it, the rule abstains."
    )
    silent_on: ClassVar[str] = (
        "A plateau after a decrease (converged); a loss that fell and rose again (see loss-diverging); warm-up that"
        " is not over, very short runs and networks that were trained before (abstains); a validation metric that improved."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Where no activation moved: raise the learning rate by 10, and check that the optimizer holds the model's"
        " parameters.",
        "Where they moved: check that inputs and labels belong together, then try a learning rate 10 times lower.",
        "Try to overfit one batch: a network and a loop that are right bring its loss near zero.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Karpathy 2019, A recipe for training neural networks; SageMaker Debugger, LossNotDecreasing; runmedic (2 %)",
    )

    decrease: float = threshold(0.02, "share of the level at the start", "runmedic's 'not learning'")
    tellable: float = threshold(
        0.15,
        "share of the level at the start",
        "our choice: scatter that hides a larger decrease means abstain",
    )
    min_steps: float = threshold(50.0, "steps with a loss", "our choice: ten blocks of five")
    metric_gain: float = threshold(
        0.1, "of a validation share", "at least 3 standard errors of a difference on 500 samples"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Compare the best of the training loss with its start."""
        curve = loss_curve(view)
        if len(curve) < self.min_steps:
            yield self.abstain(
                f"only {len(curve)} steps with a finite loss; at least {self.min_steps:.0f} are needed"
            )
            return
        if self._decreased(curve) or self._metric_improved(view):
            return
        *_, error = _quarters(curve)
        if CLEARLY * error > self.tellable * abs(curve.start):
            yield self.abstain("the loss scatters so much from step to step that a decrease could hide in it")
        elif _is_warming_up(view):
            yield self.abstain("the learning rate is still rising: its warm-up is not over")
        elif _has_begun_trained(view, curve):
            yield self.abstain("the loss began below that of chance: the network was trained before")
        else:
            yield self._finding(view, curve)

    def _decreased(self, curve: LossCurve) -> bool:
        gain = curve.start - curve.best
        enough = self.decrease * abs(curve.start)
        if gain >= max(enough, CLEARLY * curve.error_between(0, curve.best_block)):
            return True
        early, late, error = _quarters(curve)
        return early - late >= max(enough, CLEARLY * error)

    def _metric_improved(self, view: RunView) -> bool:
        """Tell whether a validation metric that is a share, such as accuracy, rose clearly."""
        for (phase, name), series in view.scalars.items():
            values = series.values[np.isfinite(series.values)]
            is_share = len(values) > 1 and values.min() >= 0.0 and values.max() <= 1.0
            if (
                phase == "valid"
                and name != "loss"
                and is_share
                and values[-1] - values[0] >= self.metric_gain
            ):
                return True
        return False

    def _finding(self, view: RunView, curve: LossCurve) -> Finding:
        moved = largest_change(view)
        stands_still = moved is not None and moved < STILL
        evidence: dict[str, float | str] = {
            "loss_at_start": curve.start,
            "best_loss": curve.best,
            "loss_at_end": curve.final,
        }
        rate = highest_learning_rate(view)
        if rate is not None:
            evidence["highest_learning_rate"] = rate
        if moved is not None:
            evidence["largest_change_of_activations"] = moved
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=int(curve.steps[0]),
            last_step=int(curve.steps[-1]),
            evidence=evidence,
            message=(
                f"The training loss did not come down in {len(curve)} steps: it began at {number(curve.start)}, was"
                f" {number(curve.best)} at best and {number(curve.final)} at the end. Such a difference says no more than"
                f" its scatter from step to step.{_movement(moved)}"
            ),
            remedies=_remedies(view, rate, stands_still=stands_still),
            reference=self.reference,
        )


def _remedies(view: RunView, rate: float | None, *, stands_still: bool) -> tuple[Remedy, ...]:
    higher = Remedy(
        "raise the learning rate", "lr", rate, None if rate is None else max(STEP_UP * rate, USUAL)
    )
    pairing = Remedy("check that inputs and labels belong together", "training data")
    lower = lower_learning_rate(view, view.num_steps)
    overfit = Remedy("overfit one batch: its loss must go near zero", "training loop")
    if stands_still:
        holds = Remedy("check that it holds the model's parameters", "optimizer")
        return higher, holds, overfit
    return pairing, lower, overfit


def _movement(change: float | None) -> str:
    if change is None:
        return ""
    if change < STILL:
        return " The activations stayed as they were as well, so the weights hardly move."
    return (
        f" The activations did change (by up to {number(100 * change)} %), so the weights move, but in vain."
    )


def _quarters(curve: LossCurve) -> tuple[float, float, float]:
    """Return the medians of the first and the last quarter of the curve and the standard error of their difference."""
    quarter = len(curve) // 4
    parts = (curve.values[:quarter], curve.values[-quarter:])
    early, late = (LossCurve(np.arange(quarter, dtype=np.float64), part) for part in parts)
    error = max(_median_error(early.values), _median_error(late.values))
    return float(np.median(early.values)), float(np.median(late.values)), error * np.sqrt(2)


def _median_error(values: Floats) -> float:
    """Return the standard error of the median of values that scatter around a level: from their quartiles."""
    low, high = np.quantile(values, [0.25, 0.75])
    return 1.2533 * float(high - low) / 1.349 / float(np.sqrt(len(values)))


def _is_warming_up(view: RunView) -> bool:
    """Tell whether the learning rate still rises at the end, having risen a good part of the run."""
    values = view.scalar("lr").values
    values = values[np.isfinite(values)]
    if len(values) <= 1:
        return False
    return bool(
        values[-1] > values[0] and values[-1] >= values.max() and values[-1] > values[len(values) // 2]
    )


def _has_begun_trained(view: RunView, curve: LossCurve) -> bool:
    """Tell whether a classification's loss began lower than that of a network that knows nothing of the inputs."""
    outcomes = only_classification(view)
    if (
        outcomes is None
        or outcomes.fact.text("reduction") != "mean"
        or outcomes.fact.text("task") != "classes"
    ):
        return False
    return curve.start < (1 - FRESH) * outcomes.chance_loss
