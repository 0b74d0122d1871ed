"""The rule `missing-zero-grad`: gradients of the last update are still there when the next backward adds to them.

No idea of norms: that gradients grow is a consequence, and not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import percent
from actograph.rules.facts import in_order, steps_of, unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class MissingZeroGrad(Rule):
    """An optimizer used gradients that it had used before: they were not zeroed between two of its steps.

    Each step then moves along the sum of all gradients so far. It looks like a learning rate that is too high, or like a
    momentum of 1.
    """

    id: ClassVar[str] = "missing-zero-grad"
    leads_to: ClassVar[tuple[str, ...]] = (
        "learning-rate-too-high",
        "exploding-gradients",
        "non-finite-loss",
        "dead-units",
        "saturated-activations",
    )
    measured: ClassVar[str] = (
        "At the first backward after each step of an optimizer, a few of its gradients are looked at: the same tensors as"
        " the optimizer has used, not changed since and not zero. If they were not zeroed before the optimizer's next step"
        " either, and were added to, they are left over."
    )
    silent_on: ClassVar[str] = (
        "Gradient accumulation: micro-batches between two steps; several optimizers that each zero their own gradients"
        " right before their own backward; gradients zeroed in place; a step or two without zeroing."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Call optimizer.zero_grad() once between two steps of the optimizer.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Jiang et al. 2025, TrainCheck (a missing zero_grad among silent errors)",
    )

    steps: float = threshold(3.0, "steps", "our choice: once or twice may be a special first step")
    share: float = threshold(0.5, "share of the steps since", "our choice: rarely left over does little harm")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find optimizers whose gradients are not zeroed."""
        kind = FactKind.LEFTOVER_GRADIENT
        facts = in_order(view, view.facts.of(kind))
        if not facts:
            yield from unless_looked(self, view, kind, "no backward was seen that an optimizer has used")
        for fact in facts:
            first_step, last_step = steps_of(view, fact)
            share = fact.num_steps / max(last_step - first_step + 1, 1)
            if fact.num_steps < self.steps or share < self.share:
                continue
            yield Finding(
                rule=self.id,
                severity=Severity.ERROR,
                layer=None,
                first_step=first_step,
                last_step=last_step,
                evidence={
                    "optimizer": fact.subject,
                    "steps": float(fact.num_steps),
                    "share_of_steps": min(share, 1.0),
                },
                message=(
                    f"From step {first_step} on each backward adds to the gradients of the step before ({fact.subject},"
                    f" {percent(min(share, 1.0))} of the steps since): nothing zeroes them, so each step moves along the"
                    " sum of all gradients so far."
                ),
                remedies=(Remedy("call zero_grad() after each step, or before each backward", fact.subject),),
                reference=self.reference,
            )
