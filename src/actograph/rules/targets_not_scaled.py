"""The rule `targets-not-scaled`: the targets of a regression lie far from what a fresh network puts out.

No idea of units; it compares targets with outputs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.advice import number
from actograph.rules.facts import unless_looked
from actograph.rules.losses import MIN_BLOCK, loss_curve
from actograph.rules.outcomes import Outcomes, outcomes_of
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView

SQUARED = "mse_loss"


@dataclass(frozen=True)
class TargetsNotScaled(Rule):
    """The targets of a regression are large numbers, and the network spends its training on getting there.

    Outputs begin near 0 with a spread of about 1. To reach thousands the last layer has to grow by as much, and gradients of
    a squared error are as large as the targets.
    """

    id: ClassVar[str] = "targets-not-scaled"
    leads_to: ClassVar[tuple[str, ...]] = (
        "learning-rate-too-high",
        "exploding-gradients",
        "dead-units",
        "saturated-activations",
        "non-finite-loss",
        "head-initialization",
        "clipping-too-tight",
    )
    measured: ClassVar[str] = (
        "Mean and standard deviation of targets and outputs given to torch's regression losses. Targets are of another scale"
        " than `scale` allows, and the training suffers: the loss became non-finite, or the squared error was above the"
        " variance of the targets (the error of who always says their mean) for `lost` of the run."
    )
    silent_on: ClassVar[str] = (
        "Large targets that are learned soon all the same; targets that cannot be told from their mean (noise); targets that"
        " move with the training (a value function), where they stay small."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Standardize the targets: subtract their mean and divide by their standard deviation; undo that in predictions.",
        "Or start the last layer's bias at the mean of the targets.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Karpathy 2019, A recipe for training neural networks (init well); LeCun et al. 1998, Efficient BackProp, section 4",
    )

    scale: float = threshold(
        5.0, "root mean square of the targets", "our choice: outputs begin with about 0.1 to 1"
    )
    lost: float = threshold(
        0.1, "share of the run", "our choice: standardized targets took less than a twentieth"
    )
    min_steps: float = threshold(50.0, "steps with a loss", "our choice: less is not enough to get anywhere")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find targets that the outputs reach late or never."""
        found = [one for one in outcomes_of(view) if one.fact.text("task") != "classes"]
        if not found:
            yield from unless_looked(
                self, view, FactKind.LOSS_CALLS, "no call of one of torch's losses was seen"
            )
            return
        outcomes = found[0]
        means = outcomes.series("target_mean").values
        if len(found) > 1 or outcomes.is_classification or not len(means):
            return
        mean, std, size = float(np.median(means)), math.sqrt(outcomes.target_variance), outcomes.target_size
        bad = view.scalar("loss").first_non_finite
        if size < self.scale or not std or (bad is None and len(loss_curve(view)) < self.min_steps):
            return
        share = self._lost_share(view, outcomes, std)
        if bad is None and share < self.lost:
            return
        begins_small = float(np.abs(outcomes.series("output_mean").values[0])) < size / 2
        if not begins_small:
            return
        words = (
            f"the loss was not finite at step {bad}"
            if bad is not None
            else f"for {100 * share:.0f} % of the run the error was larger than that of always saying their mean"
        )
        last_step = view.final_step
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=0,
            last_step=last_step,
            evidence={"target_mean": mean, "target_std": std, "share_of_the_run_above_their_variance": share},
            message=(
                f"The targets have mean {number(mean)} and standard deviation {number(std)}, while the outputs of a fresh"
                f" network lie near 0: {words}."
            ),
            remedies=(
                Remedy(
                    "standardize the targets, and undo that in predictions", "targets",
                    f"mean {number(mean)}, std {number(std)}", "mean 0, std 1",
                ),
                Remedy("start the last layer's bias at the mean of the targets", "model output", 0.0, mean),
            ),
            reference=self.reference,
        )  # fmt: skip

    def _lost_share(self, view: RunView, outcomes: Outcomes, std: float) -> float:
        """Return the share of the run in which the squared error was above the variance of the targets."""
        curve = loss_curve(view)
        if (
            outcomes.fact.text("name") == SQUARED
            and outcomes.fact.text("reduction") == "mean"
            and len(curve) >= MIN_BLOCK
        ):
            return float(np.mean(curve.smooth() > std**2))
        errors = outcomes.series("squared_error").values
        return float(np.mean(errors > std**2)) if len(errors) else 0.0
