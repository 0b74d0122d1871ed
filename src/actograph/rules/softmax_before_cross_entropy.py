"""The rule `softmax-before-cross-entropy`: a loss that takes logits was given probabilities.

No idea of the model; the numbers given to the loss say it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import number
from actograph.rules.facts import steps_of, unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class SoftmaxBeforeCrossEntropy(Rule):
    """The cross-entropy got outputs that are probabilities already; it takes a softmax of them once more.

    The loss cannot come near 0 any more and gradients shrink, as outputs differ by 1 at most.
    """

    id: ClassVar[str] = "softmax-before-cross-entropy"
    measured: ClassVar[str] = (
        "Outputs given to torch's cross-entropy, up to 64 samples a recorded step: all between 0 and 1, and the sum over"
        " the classes 1 for each sample. The floor of the loss is that of a perfect answer, ln(e + C - 1) - 1."
    )
    silent_on: ClassVar[str] = (
        "Logarithms of probabilities (a second log-softmax changes nothing); sigmoid outputs, whose sum is not 1; logits"
        " that happen to lie between 0 and 1; NLLLoss, which takes log-probabilities."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Hand the loss the outputs before the softmax; use it for predictions only.",
    )
    sources: ClassVar[tuple[str, ...]] = ("Braiek and Khomh 2023, TheDeepChecker (redundant softmax)",)

    steps: float = threshold(
        3.0, "recorded steps", "our choice: chance cannot do it once, but a test call may"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find a cross-entropy of probabilities."""
        kind = FactKind.PROBABILITIES
        facts = [fact for fact in view.facts.lasting(kind) if fact.num_steps >= self.steps]
        if not facts:
            yield from unless_looked(self, view, kind, "no call of torch's cross-entropy was seen")
            return
        fact = facts[0]
        first_step, last_step = steps_of(view, fact, fact.since)
        classes = max(fact.number("classes"), 2.0)
        floor = math.log(math.e + classes - 1.0) - 1.0
        softmax = next((info.name for info in reversed(view.layers) if info.kind == "Softmax"), None)
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=softmax,
            first_step=first_step,
            last_step=last_step,
            evidence={"steps": float(fact.num_steps), "classes": classes, "floor_of_the_loss": floor},
            message=(
                f"From step {first_step} on the cross-entropy got probabilities: values between 0 and 1 whose sum over"
                f" the {classes:.0f} classes is 1. It takes a softmax itself, so even a perfect answer has a loss of"
                f" {number(floor)}, and gradients are small."
            ),
            remedies=(
                Remedy(
                    "leave out the softmax before the loss", softmax or "model output", "softmax", "logits"
                ),
            ),
            reference=self.reference,
        )
