"""The rule `over-regularized`: weight decay pulls the weights to zero, or dropout leaves nearly nothing.

No idea of overfitting, which is what regularization is for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import number, percent
from actograph.rules.facts import layer_of
from actograph.rules.outcomes import chance_loss
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.updates import NO_UPDATES, Updates
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.view import RunView

USUAL_DECAY = 1e-4  # He et al. 2016
DIVIDED_BY = 100.0  # if that is less
USUAL_DROPOUT = 0.2  # Srivastava et al. 2014: 0.5 for hidden units at most, 0.2 for inputs


@dataclass(frozen=True)
class OverRegularized(Rule):
    """Regularization is so strong that the network cannot learn its training data.

    Weight decay shrinks the weights faster than gradients can build them up; or dropout sets nearly all values to zero.
    """

    id: ClassVar[str] = "over-regularized"
    leads_to: ClassVar[tuple[str, ...]] = (
        "learning-rate-too-high",
        "non-finite-loss",
        "dead-units",
        "labels-misaligned",
    )
    measured: ClassVar[str] = (
        "Weight decay: the optimizer has one, and sampled weights have shrunk to less than 60 % of what they were."
        " Dropout: a layer drops 80 % or more. Either is a warning where 40 % or more of the loss at the start, or of chance"
        " where that is less, is left in training."
    )
    silent_on: ClassVar[str] = (
        "Decay at which weights grow or stay; weights that shrink in a network that learns; dropout of 0.5."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Divide the weight decay by 100, or set it to the usual 1e-4.",
        "Drop 20 to 50 %.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "TheDeepChecker (ratio of the penalty's gradient to the data's)",
        "Srivastava et al. 2014, Dropout; He et al. 2016, Deep residual learning (decay of 1e-4)",
    )

    shrunk: float = threshold(
        0.6,
        "size at the end over that at the start",
        "26 healthy trainings: 0.99 and more; decay of 0.1 to 0.3: up to 0.35",
    )
    dropped: float = threshold(
        0.8, "share of values", "Srivastava et al. 2014: errors rise from 0.6 on, steeply from 0.8"
    )
    left: float = threshold(0.4, "share of the loss at the start", "healthy, with dropout of 0.5: 0.23")
    min_steps: float = threshold(
        50.0, "steps with a loss", "our choice: shorter runs have not had their time"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Look for weights that shrink and for layers that drop nearly all."""
        updates = Updates.of(view)
        if updates is None or len(updates.curve) < self.min_steps:
            yield self.abstain(NO_UPDATES)
            return
        chance = chance_loss(
            view
        )  # dropout may make the first outputs large: coming down from there takes no knowledge
        start = updates.base if chance is None else min(updates.base, chance)
        if updates.died or start <= 0 or updates.curve.final < self.left * start:
            return
        dropout = max(view.facts.of(FactKind.DROPOUT), key=lambda fact: fact.number("share"), default=None)
        decay = 0.0 if updates.settings is None else updates.settings.number("decay")
        if decay > 0 and updates.growth < self.shrunk:
            yield self._decayed(view, updates, decay)
        elif dropout is not None and dropout.number("share") >= self.dropped:
            yield self._dropped(view, updates, dropout)

    def _decayed(self, view: RunView, updates: Updates, decay: float) -> Finding:
        sizes = updates.scalar("weight_rms").values
        return self._finding(
            view,
            updates,
            None,
            updates.in_force_since,
            {"weight_decay": decay, "weights_at_start": float(sizes[0]), "weights_at_end": float(sizes[-1])},
            f"A weight decay of {number(decay)} has shrunk the weights from a root mean square of"
            f" {number(float(sizes[0]))} to"
            f" {number(float(sizes[-1]))}: it pulls them to zero faster than gradients build them up.",
            Remedy("lower the weight decay", "weight_decay", decay, min(decay / DIVIDED_BY, USUAL_DECAY)),
        )

    def _dropped(self, view: RunView, updates: Updates, dropout: Fact) -> Finding:
        share = dropout.number("share")
        return self._finding(
            view,
            updates,
            layer_of(view, dropout.subject),
            0,
            {"dropout": share},
            f"{dropout.subject} drops {percent(share)} of its values in training: what is left of them says too little.",
            Remedy("drop less", "dropout", share, USUAL_DROPOUT),
        )

    def _finding(
        self,
        view: RunView,
        updates: Updates,
        layer: str | None,
        step: int,
        evidence: dict[str, float | str],
        what: str,
        remedy: Remedy,
    ) -> Finding:
        start, end = updates.base, updates.curve.final
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=layer,
            first_step=step,
            last_step=max(view.num_steps - 1, step),
            evidence={**evidence, "loss_at_start": start, "loss_at_end": end},
            message=f"{what} The training loss only went from {number(start)} to {number(end)}.",
            remedies=(remedy,),
            reference=self.reference,
        )
