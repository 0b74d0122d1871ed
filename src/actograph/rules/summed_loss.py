"""The rule `summed-loss`: the loss is summed over the batch, and the training cannot bear it.

No idea of optimizers; it goes by what a backward began with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.advice import highest_learning_rate, number
from actograph.rules.facts import steps_of, unless_looked
from actograph.rules.losses import MIN_BLOCK, loss_curve
from actograph.rules.outcomes import outcomes_of
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView

EQUAL = 1e-3  # relative difference of two numbers that are the same but for rounding


@dataclass(frozen=True)
class SummedLoss(Rule):
    """The loss is the sum over the batch, so gradients are as many times too large as there are samples in it.

    A learning rate that suits a mean is then too high by the batch size.
    """

    id: ClassVar[str] = "summed-loss"
    leads_to: ClassVar[tuple[str, ...]] = (
        "learning-rate-too-high",
        "exploding-gradients",
        "dead-units",
        "saturated-activations",
        "non-finite-loss",
        "clipping-too-tight",
    )
    measured: ClassVar[str] = (
        "torch's losses with reduction='sum', or a backward that began with the batch size times the mean of what the loss"
        " returned. Harm: the loss became non-finite, rose to a multiple of its start, or never came down."
    )
    silent_on: ClassVar[str] = (
        "A sum that trains well (a variational autoencoder with Adam, whose step does not depend on the gradient's size,"
        " or a rate that was chosen for it): a note."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Use reduction='mean' (torch's default), or divide the loss by the number of samples.",
        "Or divide the learning rate by the batch size.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Braiek and Khomh 2023, TheDeepChecker (loss that grows with the batch)",
    )

    looks: float = threshold(3.0, "steps", "our choice: fewer are a test call")
    rise: float = threshold(
        1.08, "times the first loss", "our choice: the first losses of fresh networks are within 5 %"
    )
    learned: float = threshold(
        0.2, "share of the loss at the start", "our choice: less is as good as nothing"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find a summed loss that does harm."""
        found = outcomes_of(view)
        if not found:
            yield from unless_looked(
                self, view, FactKind.LOSS_CALLS, "no call of one of torch's losses was seen"
            )
            return
        fact = found[0].fact
        samples = self._samples(view)
        if fact.num_steps < 1 or samples is None:
            return
        first_step, last_step = steps_of(view, fact, 0)
        curve = loss_curve(view)
        if len(curve) < MIN_BLOCK and view.scalar("loss").first_non_finite is None:
            return
        is_harmed, words = self._harm(view)
        rate = highest_learning_rate(view)
        new_rate = None if rate is None else rate / samples
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if is_harmed else Severity.NOTE,
            layer=None,
            first_step=first_step,
            last_step=last_step,
            evidence={"loss": fact.text("name"), "samples_in_a_batch": samples},
            message=(
                f"The loss is summed over the {samples:.0f} samples of a batch, so its gradient is {samples:.0f} times that"
                f" of their mean, and so is each step of plain gradient descent. {words}"
            ),
            remedies=(
                Remedy("average the loss over the batch", "loss function", "sum", "mean"),
                Remedy("divide the learning rate by the batch size", "lr", rate, new_rate),
            ),
            reference=self.reference,
        )

    def _samples(self, view: RunView) -> float | None:
        """Return the number of samples over which the loss is summed; None where it is not."""
        for fact in view.facts.of(FactKind.BACKWARD_FROM):
            ratio, samples = fact.number("ratio"), fact.number("samples")
            if fact.num_steps < self.looks or samples <= 1:
                continue
            is_summed = any(
                one.fact.text("reduction") == "sum" and one.fact.text("name") == fact.subject
                for one in outcomes_of(view)
            )
            if is_summed and abs(ratio - 1.0) <= EQUAL:
                return samples
            if not is_summed and abs(ratio / samples - 1.0) <= EQUAL:
                return samples
        return None

    def _harm(self, view: RunView) -> tuple[bool, str]:
        curve = loss_curve(view)
        bad = view.scalar("loss").first_non_finite
        if bad is not None:
            return True, f"The loss was not finite at step {bad}."
        first = float(curve.values[0])
        highest = float(np.max(curve.smooth()[: max(len(curve) // 4, MIN_BLOCK)]))
        if highest >= self.rise * abs(first):
            return True, f"The loss rose from {number(first)} to {number(highest)}."
        if curve.best >= (1.0 - self.learned) * abs(first):
            return True, f"The loss never came clearly below the {number(first)} at which it began."
        return False, "The training bears it."
