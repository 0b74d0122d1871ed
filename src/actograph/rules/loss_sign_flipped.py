"""The rule `loss-sign-flipped`: the training maximizes its loss.

No idea of what the loss is: a backward began with the negative of what a loss returned, or an optimizer maximizes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import number
from actograph.rules.facts import steps_of, unless_looked
from actograph.rules.losses import MIN_BLOCK, loss_curve
from actograph.rules.outcomes import has_several_optimizers
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.view import RunView

EQUAL = 0.01  # how far a ratio may be from -1: a small penalty may have been added


@dataclass(frozen=True)
class LossSignFlipped(Rule):
    """The parameters go up the loss instead of down: the loss has the wrong sign, or the optimizer maximizes it.

    It gets worse from the first step on, without a bound.
    """

    id: ClassVar[str] = "loss-sign-flipped"
    leads_to: ClassVar[tuple[str, ...]] = (
        "learning-rate-too-high",
        "exploding-gradients",
        "dead-units",
        "saturated-activations",
        "non-finite-loss",
        "fp16-overflow",
    )
    measured: ClassVar[str] = (
        "The number that a backward begins with, beside what torch's loss returned before it: the negative of it; or an"
        " optimizer with maximize=True whose backward begins with a loss. And the loss itself rises above its start."
    )
    silent_on: ClassVar[str] = (
        "Several optimizers (adversarial training); a loss that comes down all the same (the sign was turned twice, or a"
        " gradient is reversed inside the model); policy gradients and other objectives that are not torch's losses."
    )
    advice: ClassVar[tuple[str, ...]] = ("Take the minus away from the loss; leave maximize=False.",)
    sources: ClassVar[tuple[str, ...]] = (
        "Braiek and Khomh 2023, TheDeepChecker (flipped sign of the gradient)",
    )

    looks: float = threshold(3.0, "steps", "our choice: an adversarial example is made of fewer")
    rise: float = threshold(0.2, "share of the loss at the start", "our choice: more than batches differ by")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find a loss that is maximized."""
        if has_several_optimizers(view):
            yield self.abstain("several optimizers train: one may work against the other on purpose")
            return
        negated = [
            fact
            for fact in view.facts.lasting(FactKind.NEGATED_LOSS)
            if fact.num_steps >= self.looks and abs(fact.number("ratio") + 1.0) <= EQUAL
        ]
        positive = [fact for fact in view.facts.of(FactKind.BACKWARD_FROM) if fact.number("ratio") > 0]
        maximized = view.facts.lasting(FactKind.MAXIMIZED) if positive else ()
        for fact in (*negated, *maximized)[:1]:
            finding = self._finding(view, fact)
            if finding is not None:
                yield finding
        if not negated and not maximized:
            yield from unless_looked(
                self, view, FactKind.NEGATED_LOSS, "no backward was seen that began with torch's loss"
            )

    def _finding(self, view: RunView, fact: Fact) -> Finding | None:
        is_negated = fact.kind is FactKind.NEGATED_LOSS
        sign = -1.0 if is_negated else 1.0
        curve, bad = loss_curve(view), view.scalar("loss").first_non_finite
        if len(curve) < MIN_BLOCK and bad is None:
            return None
        first, last = (sign * float(curve.values[at]) for at in (0, -1)) if len(curve) else (0.0, 0.0)
        if bad is None and max(last, sign * curve.final) - first < self.rise * abs(first):
            return None
        first_step, last_step = steps_of(view, fact, 0 if fact.since <= FIRST_LOOKS else fact.since)
        where = (
            "the backward begins with the negative of what the loss function returned"
            if is_negated
            else "the optimizer was made with maximize=True"
        )
        remedy = (
            Remedy("take the minus sign away from the loss", "loss function", "-loss", "loss")
            if is_negated
            else Remedy(
                "minimize the loss: leave maximize=False", "optimizer", "maximize=True", "maximize=False"
            )
        )
        ending = f" and was not finite from step {bad} on" if bad is not None else ""
        return Finding(
            rule=self.id,
            severity=Severity.ERROR,
            layer=None,
            first_step=first_step,
            last_step=last_step,
            evidence={"loss_at_start": first, "loss_at_end": last, "what": where},
            message=f"The loss is maximized: {where}. It rose from {number(first)} to {number(last)}{ending}.",
            remedies=(remedy,),
            reference=self.reference,
        )


FIRST_LOOKS = 8  # steps within which a thinned recording sees what is so from the start
