"""The rule `learning-rate-decayed-early`: the rate had fallen to nothing while there was still much to learn.

No idea of schedulers: it sees rates only.
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

NOTHING = 0.01  # of the peak: what the usual schedules end at
EARLY = 0.7  # of the run; a schedule that is meant for the run comes there in its last tenth


@dataclass(frozen=True)
class LearningRateDecayedEarly(Rule):
    """The schedule ended long before the run did: for the rest of it the weights stood still, half learned.

    The usual reason is a scheduler for epochs whose `step()` is called after each batch.
    """

    id: ClassVar[str] = "learning-rate-decayed-early"
    measured: ClassVar[str] = (
        "The step from which on the learning rate stayed below a hundredth of its peak, if that lies in the"
        " first 70 % of the"
        " run. It is a warning where since then the loss has not come down, a good part of the loss at the start"
        " is left, and"
        " gradients of neighbouring steps still agree."
    )
    silent_on: ClassVar[str] = (
        "Schedules that end with the run; a plateau of a network that has learned, whose gradients are noise; restarts."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Call the scheduler's step() once an epoch if its numbers are epochs, or give it the number of batches.",
        "Let the schedule end with the run.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "DeepCrime, DeepFD: schedules among the faults of training programs",
    )

    left: float = threshold(
        0.2, "share of the loss at the start", "five networks that ended a schedule in time: below 0.07"
    )
    untouched: float = threshold(
        0.9, "share of the loss at the start", "our choice: nothing was learned before, whatever gradients do"
    )
    gained: float = threshold(
        0.1, "share of the loss at the start", "our choice: what may still be gained after it"
    )
    min_steps: float = threshold(50.0, "steps with a loss", "our choice: as for the loss rules")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Look for a rate that fell to nothing early."""
        updates = Updates.of(view)
        if updates is None or len(updates.curve) < self.min_steps:
            yield self.abstain(NO_UPDATES)
            return
        step = fell_early(updates)
        if step is None or updates.left < self.left or updates.died:
            return
        if not updates.gradients_agree and updates.left < self.untouched:
            return
        before = updates.curve.level_before(step)
        if before - updates.curve.final < self.gained * abs(updates.base):
            yield self._finding(view, updates, step, before)

    def _finding(self, view: RunView, updates: Updates, step: int, before: float) -> Finding:
        peak, last = updates.peak_rate, updates.last_rate
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=step,
            last_step=view.final_step,
            evidence={
                "peak_learning_rate": peak,
                "learning_rate_at_end": last,
                "loss_at_start": updates.base,
                "loss_when_it_had_decayed": before,
                "loss_at_end": updates.curve.final,
            },
            message=(
                f"The learning rate had fallen from {number(peak)} below a hundredth of that by step {step} of"
                f" {view.num_steps}; from there on the weights hardly moved. The loss had come from"
                f" {number(updates.base)} to"
                f" {number(before)} and stayed there, while gradients of neighbouring steps still agree: there was more to"
                " learn. A scheduler for epochs whose step() is called after each batch does that."
            ),
            remedies=(
                Remedy("let the learning rate stay up: call the scheduler once an epoch", "lr", last, peak),
                Remedy("let the schedule end with the run", "lr scheduler"),
            ),
            reference=self.reference,
        )


def fell_early(updates: Updates) -> int | None:
    """Return the step from which on the rate stayed below a hundredth of its peak; None where that is not early."""
    above = np.flatnonzero(updates.rates.high >= NOTHING * updates.peak_rate)
    if not above.size or above[-1] + 1 >= len(updates.rates):
        return None
    step = int(updates.rates.steps[above[-1] + 1])
    return step if step < EARLY * updates.view.num_steps else None
