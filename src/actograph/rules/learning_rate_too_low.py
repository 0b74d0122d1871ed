"""The rule `learning-rate-too-low`: the weights hardly move, all of them, though gradients say where to.

No idea of other reasons why they hardly move but those it asks for: epsilon, clipping, a rate that decayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import number, percent, rounded
from actograph.rules.learning_rate_decayed_early import fell_early
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.small_updates import held_by_clipping, held_by_epsilon
from actograph.rules.updates import NO_UPDATES, Updates
from actograph.runlog.view import RunView

SMALLEST_STEP, LARGEST_STEP = 3.0, 1e4  # factors by which a rate is raised
STEP_UP = 30.0  # where the first update was not measured: half of the catalogue's range of 10 to 100


@dataclass(frozen=True)
class LearningRateTooLow(Rule):
    """The learning rate is so low that the whole run moves the weights by a fraction of their size.

    Everything works, only far too slowly: gradients do not shrink and keep pointing the same way.
    """

    id: ClassVar[str] = "learning-rate-too-low"
    measured: ClassVar[str] = (
        "At recorded steps, on a sample of the weights: the size of the update over that of the weights, and the cosine"
        " between neighbouring gradients. The rate is too low where the sum of these ratios over the run is small for every"
        " sampled weight, single ratios are small as well, gradients are as large as at the start and still agree in the"
        " later half, and half or more of the loss at the start is left."
    )
    silent_on: ClassVar[str] = (
        "Warm-up (abstains while it lasts); fine-tuning, where the loss begins below what chance gives, or gradients"
        " are noise;"
        " converged runs;"
        " small updates because of Adam's epsilon, of clipping or of a schedule that has ended, which are causes"
        " of their own;"
        " gradients that vanish, as a weight near the output moves all the same."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Raise the learning rate to the value given, at which the first update would be 3 % of the weights.",
        "Or look for it with a learning-rate range test (`actograph lr-find`).",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Karpathy 2019, A recipe for training neural networks (updates of 1e-3 of the weights)",
        "Balles, Romero, Hennig 2017, Coupling adaptive batch sizes with learning rates (agreement of gradients)",
    )

    way: float = threshold(
        0.3,
        "sum of update over weights, largest of the weights",
        "five networks: 0.5-5 at tuned rates, 0.1-1.3 at a tenth, 0.01-0.15 at a hundredth",
    )
    ratio: float = threshold(
        1e-3, "update over weights", "the usual size (Karpathy); at a hundredth of tuned rates 3e-5 to 4e-4"
    )
    agreement: float = threshold(
        0.2,
        "mean cosine of neighbouring gradients",
        "asked for where nobody knows whether the network began well: regression from scratch 0.5, fine-tuning 0.0-0.15",
    )
    left: float = threshold(0.5, "share of the loss at the start", "our choice: less than half was learned")
    min_steps: float = threshold(
        50.0, "steps with a loss", "our choice: shorter runs have not had their time"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Look for updates that are too small everywhere."""
        updates = Updates.of(view)
        if updates is None or len(updates.curve) < self.min_steps:
            yield self.abstain(NO_UPDATES)
        elif updates.is_warming_up:
            yield self.abstain("the learning rate is still rising: its warm-up is not over")
        elif self._is_low(updates):
            yield self._finding(view, updates)

    def _is_low(self, updates: Updates) -> bool:
        barely = 0 < updates.way < self.way and updates.early_ratio < self.ratio
        more_to_gain = updates.left >= self.left and updates.gradients_agree and updates.gradients_last
        if not barely or not more_to_gain or updates.died or updates.began_well:
            return False
        if updates.began_well is None and float(updates.late_agreement.mean()) < self.agreement:
            return False
        return fell_early(updates) is None and not held_by_clipping(updates) and not held_by_epsilon(updates)

    def _finding(self, view: RunView, updates: Updates) -> Finding:
        old, good = updates.peak_rate, updates.good_rate()
        factor = STEP_UP if good is None else min(max(good / old, SMALLEST_STEP), LARGEST_STEP)
        new = rounded(old * factor)
        curve = updates.curve
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=updates.in_force_since,
            last_step=view.final_step,
            evidence={
                "learning_rate": old,
                "update_ratio": updates.early_ratio,
                "way": updates.way,
                "gradient_agreement": float(updates.late_agreement.mean()),
                "loss_at_start": updates.base,
                "loss_at_end": curve.final,
            },
            message=(
                f"The learning rate of {number(old)} is too low: an update moves the weights by"
                f" {number(updates.early_ratio)} of"
                f" their size, and all updates of the {view.num_steps} steps together by no more than"
                f" {percent(updates.way)}."
                " Gradients are as large as at the start and still point the same way, so there is more to gain;"
                " the loss only"
                f" went from {number(updates.base)} to {number(curve.final)}."
            ),
            remedies=(
                Remedy("raise the learning rate", "lr", old, new),
                Remedy("look for the learning rate with a range test", "lr"),
            ),
            reference=self.reference,
        )
