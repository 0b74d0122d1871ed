"""The rule `optimizer-epsilon`: Adam's epsilon is larger than its gradients, so that it divides by a constant.

No idea of optimizers without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import number
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.small_updates import epsilon_effect, held_by_epsilon
from actograph.rules.updates import NO_UPDATES, Updates
from actograph.runlog.view import RunView

DEFAULT = 1e-8  # torch, and Kingma, Ba 2015


@dataclass(frozen=True)
class OptimizerEpsilon(Rule):
    """The epsilon of Adam's kind of optimizer is so large that updates follow the raw gradients, which are small.

    Adam then is plain momentum at a rate of lr / epsilon, and hardly moves.
    """

    id: ClassVar[str] = "optimizer-epsilon"
    measured: ClassVar[str] = (
        "The size of an update a weight over the learning rate, at the first recorded updates: 0.1 to 1 for Adam by its"
        " construction. It is much smaller here, epsilon is far above its default, gradients still agree, and"
        " half or more of the loss at the start is left; or all but all of it is."
    )
    silent_on: ClassVar[str] = (
        "A large epsilon together with a rate that makes up for it; small updates at the default epsilon."
    )
    advice: ClassVar[tuple[str, ...]] = ("Set epsilon to its default, 1e-8.",)
    sources: ClassVar[tuple[str, ...]] = (
        "Kingma, Ba 2015, Adam, section 2.1 (the size of a step is at most about the learning rate)",
        "Choi et al. 2019, On empirical comparisons of optimizers (epsilon as a setting)",
    )

    left: float = threshold(0.5, "share of the loss at the start", "our choice: less than half was learned")
    way: float = threshold(
        0.3, "sum of update over weights, largest of the weights", "as for a learning rate that is too low"
    )
    nothing: float = threshold(
        0.9, "share of the loss at the start", "our choice: nothing was learned, whatever gradients do"
    )
    way_of_nothing: float = threshold(
        1.0, "sum of update over weights", "five networks at tuned rates: 0.5-5"
    )
    min_steps: float = threshold(
        50.0, "steps with a loss", "our choice: shorter runs have not had their time"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Look for updates that epsilon holds back."""
        updates = Updates.of(view)
        if updates is None or len(updates.curve) < self.min_steps or updates.settings is None:
            yield self.abstain(NO_UPDATES)
            return
        effect = epsilon_effect(updates)
        if effect is None or not held_by_epsilon(updates) or updates.died:
            return
        is_held = updates.way < self.way and updates.left >= self.left and updates.gradients_agree
        if is_held or (updates.way < self.way_of_nothing and updates.left >= self.nothing):
            yield self._finding(view, updates, effect, updates.settings.number("eps"))

    def _finding(self, view: RunView, updates: Updates, effect: float, epsilon: float) -> Finding:
        assert updates.settings is not None
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=min(updates.settings.since, view.final_step),
            last_step=view.final_step,
            evidence={
                "epsilon": epsilon,
                "update_over_rate": effect,
                "update_ratio": updates.early_ratio,
                "loss_at_start": updates.base,
                "loss_at_end": updates.curve.final,
            },
            message=(
                f"{updates.settings.text('kind')} runs with an epsilon of {number(epsilon)}: an update is"
                f" {number(effect)} of"
                " the learning rate a weight, where 0.1 to 1 is usual, as epsilon is larger than the gradients"
                " it is added to."
                f" The weights hardly move, and the loss went from {number(updates.base)} to {number(updates.curve.final)}."
            ),
            remedies=(Remedy("set epsilon to its default", "eps", epsilon, DEFAULT),),
            reference=self.reference,
        )
