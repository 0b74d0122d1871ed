"""The rule `softmax-before-cross-entropy`: a loss that takes logits was given probabilities, of a softmax or a sigmoid.

No idea of the model; the numbers given to the loss say it, or where they come from.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import number
from actograph.rules.facts import steps_of, unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class SoftmaxBeforeCrossEntropy(Rule):
    """The cross-entropy got outputs that are probabilities already; it takes a softmax, or a sigmoid, of them once more.

    The loss cannot come near 0 any more and gradients shrink, as outputs differ by 1 at most.
    """

    id: ClassVar[str] = "softmax-before-cross-entropy"
    measured: ClassVar[str] = (
        "Outputs given to torch's cross-entropy, up to 64 samples a recorded step: all between 0 and 1, and the sum over"
        " the classes 1 for each sample. The floor of the loss is that of a perfect answer, ln(e + C - 1) - 1. Of the"
        " binary cross-entropy with logits: its input comes out of a sigmoid, by autograd's graph. A perfect answer has a"
        " loss of ln(1 + 1 / e) where the target is 1, and of ln(2) where it is 0."
    )
    silent_on: ClassVar[str] = (
        "Logarithms of probabilities (a second log-softmax changes nothing); sigmoid outputs for several classes, whose sum"
        " is not 1; logits that happen to lie between 0 and 1; NLLLoss and BCELoss, which take probabilities or their"
        " logarithms."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Hand the loss the outputs before the softmax or sigmoid; use these for predictions only.",
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
            yield from unless_looked(self, view, kind, "no call of one of torch's cross-entropies was seen")
            return
        yield self._finding(view, facts[0])

    def _finding(self, view: RunView, fact: Fact) -> Finding:
        first_step, last_step = steps_of(view, fact, fact.since)
        classes = fact.number("classes")
        is_binary = classes <= 1.0
        what = "sigmoid" if is_binary else "softmax"
        layer = next((info.name for info in reversed(view.layers) if info.kind.lower() == what), None)
        floor = math.log1p(1.0 / math.e) if is_binary else math.log(math.e + classes - 1.0) - 1.0
        got = (
            "From step {} on the binary cross-entropy with logits got the outputs of a sigmoid. It takes a sigmoid itself,"
            " so even a perfect answer has a loss of {} or more, and gradients are small."
            if is_binary
            else "From step {} on the cross-entropy got probabilities: values between 0 and 1 whose sum over the classes is"
            " 1. It takes a softmax itself, so even a perfect answer has a loss of {}, and gradients are small."
        )
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=layer,
            first_step=first_step,
            last_step=last_step,
            evidence={
                "steps": float(fact.num_steps),
                "classes": max(classes, 2.0),
                "floor_of_the_loss": floor,
            },
            message=got.format(first_step, number(floor)),
            remedies=(
                Remedy(f"leave out the {what} before the loss", layer or "model output", what, "logits"),
            ),
            reference=self.reference,
        )
