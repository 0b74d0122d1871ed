"""The rule `momentum-too-high`: a momentum near 1 that adds up so many updates that they overshoot.

No idea of schedules of momentum; the highest one counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.advice import number
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.updates import NO_UPDATES, Updates
from actograph.runlog.view import RunView

USUAL = 0.9  # Sutskever et al. 2013: 0.9 with few steps, more only late and with a rate that fits


@dataclass(frozen=True)
class MomentumTooHigh(Rule):
    """Momentum adds up to 1 / (1 - momentum) updates: at 0.99 ten times as many as at the usual 0.9, at the same rate.

    The weights swing past what they should come to, and further each time.
    """

    id: ClassVar[str] = "momentum-too-high"
    leads_to: ClassVar[tuple[str, ...]] = (
        "learning-rate-too-high",
        "non-finite-loss",
        "dead-units",
        "saturated-activations",
    )
    measured: ClassVar[str] = (
        "The momentum (or first beta) is 0.97 or more; updates move the weights by a percent or more a step; and the"
        " loss gave"
        " back half of what had been gained, or was NaN, or never fell below half of its start."
    )
    silent_on: ClassVar[str] = (
        "A high momentum of a network that learns; a loss that came down and stayed there."
    )
    advice: ClassVar[tuple[str, ...]] = ("Set the momentum to 0.9, or divide the learning rate by 10.",)
    sources: ClassVar[tuple[str, ...]] = (
        "Sutskever et al. 2013, On the importance of initialization and momentum in deep learning",
    )

    momentum: float = threshold(0.97, "momentum", "1cycle's highest is 0.95; at 0.97 updates add up to 33")
    ratio: float = threshold(0.01, "update over weights", "smaller ones throw no loss up")
    lost: float = threshold(0.5, "share of the gain", "our choice: so much given back is harm")
    left: float = threshold(0.5, "share of the loss at the start", "our choice: less than half was learned")
    min_steps: float = threshold(30.0, "steps with a loss", "our choice: as for a loss that diverges")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Look for a high momentum that threw the loss up."""
        updates = Updates.of(view)
        if updates is None or updates.settings is None or len(updates.curve) < self.min_steps:
            yield self.abstain(NO_UPDATES)
            return
        series = view.scalar("momentum").high
        momentum = max([updates.momentum, *series[np.isfinite(series)].tolist()])
        if self.momentum <= momentum < 1 and updates.peak_ratio >= self.ratio and self._did_harm(updates):
            yield self._finding(view, updates, momentum)

    def _did_harm(self, updates: Updates) -> bool:
        curve = updates.curve
        given_back = curve.final - curve.best
        gave_back = given_back >= self.lost * (updates.base - curve.best) and given_back > 0.2 * abs(
            updates.base
        )
        return updates.died or gave_back or updates.left >= self.left

    def _finding(self, view: RunView, updates: Updates, momentum: float) -> Finding:
        curve = updates.curve
        lower = Remedy("lower the learning rate", "lr", updates.peak_rate, updates.peak_rate / 10)
        end = "became NaN" if updates.died else f"ended at {number(curve.final)}"
        return Finding(
            rule=self.id,
            severity=Severity.ERROR
            if updates.died or curve.final >= 0.9 * updates.base
            else Severity.WARNING,
            layer=None,
            first_step=updates.in_force_since,
            last_step=view.final_step,
            evidence={
                "momentum": momentum,
                "update_ratio": updates.peak_ratio,
                "loss_at_start": updates.base,
                "best_loss": curve.best,
                "loss_at_end": "not finite" if updates.died else curve.final,
            },
            message=(
                f"With a momentum of {number(momentum)} about {1 / (1 - momentum):.0f} updates add up, where 10 are"
                f" usual: they"
                f" moved the weights by up to {number(updates.peak_ratio)} of their size a step and overshot. The"
                f" loss began at"
                f" {number(updates.base)}, was {number(curve.best)} at best and {end}."
            ),
            remedies=(Remedy("lower the momentum", "momentum", momentum, USUAL), lower),
            reference=self.reference,
        )
