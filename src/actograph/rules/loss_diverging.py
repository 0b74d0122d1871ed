"""The symptom `loss-diverging`: the training loss went up for good.

No idea why: a cause that began no later takes this as its consequence.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.advice import lower_learning_rate, number
from actograph.rules.losses import LossCurve, loss_curve
from actograph.rules.outcomes import outcomes_of
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.view import RunView

LEFT_BAND = 0.05  # of the curve's scale: how far above the best level the loss must be to have left it


@dataclass(frozen=True)
class LossDiverging(Rule):
    """The training loss rose far above what had been reached and stayed there.

    It says that something went wrong, not what; no rule found the cause.
    """

    id: ClassVar[str] = "loss-diverging"
    is_cause: ClassVar[bool] = False
    measured: ClassVar[str] = (
        "Medians of the loss over blocks of a twentieth of the run. It diverged when the last block lies above the best one"
        " by half of all that was gained, by half of the level at the start, and by many times the scatter of the blocks;"
        " and when the block before does so too, or all that was gained is lost. The onset is the step after which the"
        " loss never again came near its best level."
    )
    silent_on: ClassVar[str] = (
        "Bumps that are over (the peak of 1cycle, warm restarts, spikes); noise of small batches; a converged loss"
        " that trembles near zero; a loss that is negative and falls further; a loss of one's own that changes its sign, as"
        " the objective of a policy gradient does (abstains)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Lower the learning rate by 10.",
        "Clip the gradient norm at 1; warm the learning rate up.",
        "Check the sign of the loss and the data that came at the onset.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "llm-foundry, KillLossSpike (2x the running mean); TheDeepChecker (2x the minimum)",
    )

    rise: float = threshold(
        0.5,
        "of the first level or of the gain, the larger",
        "our choice: bumps of 1.2-1.5x of what was reached stay below",
    )
    clearly: float = threshold(
        6.0,
        "standard errors",
        "last against best block of pure skewed noise: 99 % below 3.5, highest of 1,500 runs 5.6",
    )
    min_steps: float = threshold(30.0, "steps with a loss", "our choice: six blocks of five")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Compare the end of the training loss with its best level."""
        curve = loss_curve(view)
        if len(curve) < self.min_steps:
            yield self.abstain(
                f"only {len(curve)} steps with a finite loss; at least {self.min_steps:.0f} are needed"
            )
            return
        last = len(curve.levels) - 1
        rise = curve.final - curve.best
        error = curve.error_between(curve.best_block, last)
        if rise <= 0 or rise < self.rise * curve.scale or rise < self.clearly * error:
            return
        lasts = curve.levels[last - 1] - curve.best >= self.rise * curve.scale
        if not lasts and curve.final < curve.start:
            return
        if _is_objective(view, curve):
            yield self.abstain(
                "the loss is none of torch's and changes its sign: such a value need not tell how well it goes"
            )
        else:
            yield self._finding(view, curve, int(_onset(curve)))

    def _finding(self, view: RunView, curve: LossCurve, onset: int) -> Finding:
        is_worse = curve.final >= curve.start
        than = "higher than at the start" if is_worse else "and did not come back"
        return Finding(
            rule=self.id,
            severity=Severity.ERROR if is_worse else Severity.WARNING,
            layer=None,
            first_step=onset,
            last_step=int(curve.steps[-1]),
            evidence={
                "loss_at_start": curve.start,
                "best_loss": curve.best,
                "loss_at_end": curve.final,
                "highest_loss": float(curve.values.max()),
            },
            message=(
                f"The training loss went up from step {onset} on: it had been at {number(curve.best)} and ended at"
                f" {number(curve.final)}, {than} (it began at {number(curve.start)}). The most frequent reason is a"
                " learning rate that is too high."
            ),
            remedies=(
                lower_learning_rate(view, onset),
                Remedy("clip the gradient norm", "gradients", "not clipped", 1.0),
                Remedy(
                    f"look at the batches around step {onset} and at the sign of the loss",
                    "data and loss function",
                ),
            ),
            reference=self.reference,
        )


def _is_objective(view: RunView, curve: LossCurve) -> bool:
    """Tell whether what is minimized is something like a policy gradient's objective: only its gradient means anything."""
    changes_sign = float(curve.values.min()) < 0 < float(curve.values.max())
    return changes_sign and bool(view.facts.facts) and not outcomes_of(view)


def _onset(curve: LossCurve) -> float:
    """Return the step after the last at which the smoothed loss was near its best level."""
    best = curve.best_block
    band = max(LEFT_BAND * curve.scale, curve.error(best) * np.sqrt(len(curve) / len(curve.levels)))
    near = np.flatnonzero(curve.smooth() <= curve.best + band)
    left = min(int(near[-1]) + 1 if near.size else 0, len(curve) - 1)
    return float(curve.steps[left])
