"""The rule `learning-rate-too-high`: updates so large that they throw the loss up, at the start or where the rate jumped.

No idea of what the loss is. That a large rate does no harm in the end is no fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.advice import STEP_DOWN, number, rounded
from actograph.rules.losses import LossCurve
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.updates import FEW, NO_UPDATES, Updates, peak
from actograph.runlog.view import RunView

WINDOW = 10  # steps right before a rise
WENT_WELL = 0.6  # share of the loss at the start: below it something was learned
LARGEST_STEP = 1e3  # factor by which a rate is lowered


@dataclass(frozen=True)
class _Rise:
    """Where the loss was thrown up."""

    step: int  # at which the rate that did it came into force
    rate: float
    rate_before: float | None  # where it jumped
    ratio: float  # update over weights then
    loss_before: float
    highest: float


@dataclass(frozen=True)
class LearningRateTooHigh(Rule):
    """The learning rate is so high that updates overshoot: the loss is thrown up and does not come back.

    What follows is known by other names: units that die, activations that saturate, a loss that becomes NaN.
    """

    id: ClassVar[str] = "learning-rate-too-high"
    leads_to: ClassVar[tuple[str, ...]] = (
        "non-finite-loss",
        "dead-units",
        "saturated-activations",
        "vanishing-gradients",
        "labels-misaligned",
    )
    measured: ClassVar[str] = (
        "Three things together. The update moves a sampled weight by several percent of its size at a step, three recorded"
        " steps in a row. The loss rises clearly above where it began, or after a jump of the rate above what had been"
        " reached: by a fifth and by more than its scatter; or it need not rise where the first updates are as large as the"
        " weights themselves. And harm: at the end a good part of the loss at the start is left, or of what had been gained"
        " is lost, or the loss is NaN. It began where the rate that did it came into force."
    )
    silent_on: ClassVar[str] = (
        "Bumps that are over: the peak of 1cycle, restarts, gradient descent at the edge of stability; large updates of a"
        " network that learns; a loss that is high although updates are small."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Lower the learning rate to the value given: that of before the jump, or at which the first update is 3 % of the"
        " weights.",
        "Warm the rate up over a tenth of the run, and clip the gradient norm at 1.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Karpathy 2019, A recipe for training neural networks (updates of 1e-3 of the weights)",
        "Cohen et al. 2021, Gradient descent on neural networks typically occurs at the edge of stability",
        "Lewkowycz et al. 2020, The large learning rate phase of deep learning (a bump at the start may be healthy)",
    )

    ratio: float = threshold(
        0.02, "update over weights", "tuned rates: up to 0.06 at first, and no rise; 30 times these: 0.02-0.6"
    )
    rise: float = threshold(0.2, "of the loss before", "1cycle and restarts go higher, and come back")
    scatter: float = threshold(
        3.0, "times the scatter of single losses", "a median of five scatters half as much"
    )
    left: float = threshold(0.2, "share of the loss at the start", "five networks at tuned rates: 0.002-0.07")
    lost: float = threshold(0.25, "share of the gain", "our choice: so much given back since a jump is harm")
    jump: float = threshold(
        3.0, "times the rate of the step before", "a schedule's steps up are smaller, or restarts"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Look for a rise of the loss that large updates brought about."""
        updates = Updates.of(view)
        if updates is None:
            yield self.abstain(NO_UPDATES)
            return
        rise = self._after_jump(updates) or self._from_start(updates) or self._stuck(updates)
        if rise is not None:
            yield self._finding(view, updates, rise)

    def _after_jump(self, updates: Updates) -> _Rise | None:
        """Return the rise after a jump of the rate to where it had never been."""
        step = _last_jump(updates, self.jump)
        if step is None:
            return None
        curve = updates.curve
        later = curve.values[curve.steps >= step]
        before = min(curve.level_before(step), updates.base)
        seen = updates.ratio.values[updates.ratio.steps >= step]
        ratio = peak(seen) if len(seen) >= FEW else max(updates.foretold(step), *seen, 0.0)
        if ratio < self.ratio or not len(later):
            return None
        gained = updates.base - before
        given_back = np.inf if updates.died else curve.final - before
        is_clear = self._is_risen(updates, before, _highest(later))
        if not is_clear or given_back < max(self.lost * gained, self.rise * abs(before)):
            return None
        rates = updates.rates
        at = int(np.searchsorted(rates.steps, step))
        return _Rise(
            step,
            float(rates.high[at]),
            float(np.median(rates.values[:at])),
            ratio,
            before,
            float(later.max()),
        )

    def _from_start(self, updates: Updates) -> _Rise | None:
        """Return the rise above where the loss began."""
        curve, step = updates.curve, updates.in_force_since
        highest = _highest(curve.values)
        ratio = updates.peak_ratio
        is_risen = self._is_risen(updates, updates.base, highest)
        if ratio < self.ratio or not is_risen or updates.left < self.left:
            return None
        late = self._late_rise(updates)
        if (
            late is not None
        ):  # it went well for a while: the rate is to blame only if updates were large just before
            seen = updates.ratio
            before = seen.values[(seen.steps > late - WINDOW) & (seen.steps < late)]
            if not len(before) or float(np.median(before)) < self.ratio:
                return None
            step = late
        return _Rise(step, updates.peak_rate, None, ratio, updates.base, float(curve.values.max()))

    def _stuck(self, updates: Updates) -> _Rise | None:
        """Return where updates that replace the weights have left a loss that does not rise, but does not come down well."""
        if not updates.replaces_weights or updates.left < self.left:
            return None
        highest = float(updates.curve.values.max())
        return _Rise(
            updates.in_force_since, updates.peak_rate, None, updates.peak_ratio, updates.base, highest
        )

    def _late_rise(self, updates: Updates) -> int | None:
        """Return the step at which the loss rose above where it began, if it had been well below it; None if it had not."""
        curve = updates.curve
        above = np.flatnonzero(curve.smooth() > (1 + self.rise) * updates.base)
        if not above.size or above[0] < WINDOW:
            return None
        before = float(np.median(curve.values[above[0] - WINDOW : above[0]]))
        return int(curve.steps[above[0]]) if before < WENT_WELL * updates.base else None

    def _is_risen(self, updates: Updates, before: float, highest: float) -> bool:
        return highest - before >= max(self.rise, self.scatter * updates.scatter) * abs(before)

    def _finding(self, view: RunView, updates: Updates, rise: _Rise) -> Finding:
        curve: LossCurve = updates.curve
        is_worse = updates.died or curve.final >= 0.9 * updates.base
        evidence: dict[str, float | str] = {
            "learning_rate": rise.rate,
            "update_ratio": rise.ratio,
            "loss_before": rise.loss_before,
            "highest_loss": rise.highest,
            "loss_at_end": "not finite" if updates.died else curve.final,
        }
        if rise.rate_before is not None:
            evidence["learning_rate_before"] = rise.rate_before
        end = "became NaN" if updates.died else f"ended at {number(curve.final)}"
        since = (
            f"The learning rate of {number(rise.rate)} is too high"
            if rise.rate_before is None
            else f"At step {rise.step} the learning rate jumped from {number(rise.rate_before)} to {number(rise.rate)}"
        )
        return Finding(
            rule=self.id,
            severity=Severity.ERROR if is_worse else Severity.WARNING,
            layer=None,
            first_step=rise.step,
            last_step=max(view.num_steps - 1, rise.step),
            evidence=evidence,
            message=(
                f"{since}: updates then moved the weights by up to {number(rise.ratio)} of their size a step, where 0.001 to"
                f" 0.01 is usual. {self._course(updates, rise)} and {end}."
            ),
            remedies=self._remedies(view, updates, rise),
            reference=self.reference,
        )

    def _course(self, updates: Updates, rise: _Rise) -> str:
        """Say what the loss did."""
        if self._is_risen(updates, rise.loss_before, rise.highest):
            return f"The loss was thrown from {number(rise.loss_before)} up to {number(rise.highest)}"
        return f"The loss began at {number(rise.loss_before)}"

    def _remedies(self, view: RunView, updates: Updates, rise: _Rise) -> tuple[Remedy, ...]:
        if rise.rate_before is not None:
            schedule = Remedy("take the jump out of the schedule", "lr", rise.rate, rise.rate_before)
            return schedule, Remedy("clip the gradient norm", "gradients", "not clipped", 1.0)
        good = updates.good_rate()
        factor = STEP_DOWN if good is None else min(max(rise.rate / good, STEP_DOWN), LARGEST_STEP)
        steps = float(max(view.num_steps // 10, 1))
        return (
            Remedy("lower the learning rate", "lr", rise.rate, rounded(rise.rate / factor)),
            Remedy("warm the learning rate up over a tenth of the run", "warmup_steps", None, steps),
            Remedy("clip the gradient norm", "gradients", "not clipped", 1.0),
        )


def _last_jump(updates: Updates, factor: float) -> int | None:
    """Return the last step at which the rate rose by ``factor`` at once to where it had never been before."""
    rates = updates.rates.high
    if len(rates) <= 1:
        return None
    before = np.maximum.accumulate(rates)[:-1]
    up = (rates[1:] >= factor * rates[:-1]) & (rates[1:] >= factor * before) & (before > 0)
    found = np.flatnonzero(up)
    return int(updates.rates.steps[found[-1] + 1]) if found.size else None


def _highest(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """Return the highest loss that a median of five came near; of fewer their highest."""
    if len(values) < FEW:
        return float(values.max())
    return float(np.median(np.lib.stride_tricks.sliding_window_view(values, FEW), axis=1).max())
