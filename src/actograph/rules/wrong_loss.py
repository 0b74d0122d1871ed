"""The rule `wrong-loss`: the loss does not fit what the targets are.

No idea of the task; it goes by what the loss function was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.facts import steps_of, unless_looked
from actograph.rules.losses import LossCurve
from actograph.rules.outcomes import REGRESSION, Outcomes, level_at_end, outcomes_of
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.view import RunView

BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
ROUNDING = 1e-3  # a sum of probabilities may be off by
NOT_SEEN = "no call of one of torch's losses was seen with outputs and targets that can be compared"


@dataclass(frozen=True)
class WrongLoss(Rule):
    """The loss does not fit the targets or the outputs, so that its gradient is weak, or pulls to the wrong place.

    The squared error of probabilities of classes hardly pushes an output that is surely wrong; a binary cross-entropy for
    each of many classes is mostly about the classes that are not it; outputs (N, 1) and targets (N,) are compared each with
    each.
    """

    id: ClassVar[str] = "wrong-loss"
    measured: ClassVar[str] = (
        "Outputs and targets given to torch's losses. Certain: shapes differ so that each output is compared with each"
        " target; `nll_loss` got numbers above 0, which are no logarithms of probabilities. Statistical: all targets are one"
        " class each (a one in a row of zeros), the loss is a regression's or a binary cross-entropy averaged over at least"
        " `classes` classes, and the training is slow or weak for it: the accuracy in training comes near its level at the"
        " end (to `accuracy` of it) only after `slow` of the run."
    )
    silent_on: ClassVar[str] = (
        "Several labels a sample (multi-label); a regression or an autoencoder, whose targets are numbers; one class"
        " against the other with a single output; a training that gets there all the same (a note); losses that are"
        " computed by hand, which nobody sees."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Give class numbers and the outputs before the softmax to the cross-entropy.",
        "Give outputs and targets the same shape: outputs.squeeze(1), or targets[:, None].",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Golik, Doetsch, Ney 2013, Cross-entropy vs. squared error training; Braiek and Khomh 2023, TheDeepChecker"
        " (inappropriate loss)",
    )

    accuracy: float = threshold(
        0.9, "share of the accuracy at the end", "our choice: near, but not converged"
    )
    slow: float = threshold(
        0.25, "share of the run", "our choice: a cross-entropy took 5-20 % of runs that suit it"
    )
    learned: float = threshold(0.3, "accuracy above chance", "our choice: less is no training that goes well")
    classes: float = threshold(3.0, "classes", "with two, one output says it all")
    looks: float = threshold(5.0, "calls", "our choice: fewer are a test call")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find losses that do not fit their targets."""
        broadcast = [fact for fact in view.facts.of(FactKind.BROADCAST_LOSS) if fact.num_steps >= self.looks]
        yield from (self._of_shapes(view, fact) for fact in broadcast)
        found = outcomes_of(view)
        if not found and not broadcast:
            if view.facts.of(FactKind.LOSS_CALLS):
                return
            yield from unless_looked(self, view, FactKind.LOSS_CALLS, NOT_SEEN)
            return
        for outcomes in found:
            yield from self._of_logarithms(view, outcomes)
        if len(found) == 1 and found[0].is_classification and found[0].fact.text("task") == "scores":
            yield from self._of_classes(view, found[0])

    def _of_logarithms(self, view: RunView, outcomes: Outcomes) -> Iterator[Finding]:
        """Find an `nll_loss` of numbers that are no logarithms of probabilities: they are above 0."""
        confidence = outcomes.series(
            "confidence"
        )  # mean of the largest output's exponential: at most 1 of a probability
        if outcomes.fact.text("name") != "nll_loss" or len(confidence) < self.looks:
            return
        size = float(np.median(confidence.values))
        if size <= 1.0 + ROUNDING:
            return
        first_step, last_step = steps_of(view, outcomes.fact, 0)
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=first_step,
            last_step=last_step,
            evidence={"loss": "nll_loss", "exponential_of_outputs": size},
            message=(
                "nll_loss takes logarithms of probabilities, which are 0 at most, and got larger numbers: probabilities, or"
                " outputs before any softmax. It only pushes the output of the right class up, whatever the others do."
            ),
            remedies=(
                Remedy(
                    "use cross_entropy of the outputs before the softmax, or put log_softmax before nll_loss",
                    "loss function",
                    "nll_loss",
                    "cross_entropy",
                ),
            ),
            reference=self.reference,
        )

    def _of_shapes(self, view: RunView, fact: Fact) -> Finding:
        first_step, last_step = steps_of(view, fact)
        outputs, targets = fact.text("outputs"), fact.text("targets")
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=None,
            first_step=0 if first_step <= FIRST_LOOKS else first_step,
            last_step=last_step,
            evidence={
                "loss": fact.subject,
                "outputs": outputs,
                "targets": targets,
                "calls": float(fact.num_steps),
            },
            message=(
                f"{fact.subject} got outputs of shape {outputs} and targets of shape {targets}: torch compares each output"
                " with each target, so the best that the model can learn is the mean of all targets."
            ),
            remedies=(
                Remedy(
                    "give outputs and targets of the loss the same shape", "loss function", outputs, targets
                ),
            ),
            reference=self.reference,
        )

    def _of_classes(self, view: RunView, outcomes: Outcomes) -> Iterator[Finding]:
        fact, accuracy = outcomes.fact, outcomes.series("accuracy")
        name = fact.text("name")
        if (
            len(accuracy) < self.looks
            or outcomes.num_classes < self.classes
            or name not in (*REGRESSION, *BINARY)
        ):
            return
        seen_until = int(accuracy.steps[-1])
        end = level_at_end(accuracy)
        near = LossCurve(accuracy.steps, accuracy.values).smooth() >= self.accuracy * end
        reached = int(accuracy.steps[near][0]) if near.any() else None
        has_learned = end >= outcomes.chance_accuracy + self.learned
        is_slow = reached is None or reached >= self.slow * view.num_steps or not has_learned
        is_probable = fact.number("output_low") >= 0.0 and fact.number("output_high") <= 1.0
        kind = _kind_of(name, is_probable=is_probable, adds_up=fact.number("sum_off") <= ROUNDING)
        first_step, last_step = 0, min(seen_until, view.final_step)
        until = "never" if reached is None else f"at step {reached}"
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING if is_slow and view.num_steps >= MIN_STEPS else Severity.NOTE,
            layer=None,
            first_step=first_step,
            last_step=last_step,
            evidence={
                "loss": name,
                "classes": float(outcomes.num_classes),
                "accuracy_at_end": level_at_end(accuracy),
                "came_near_it": until,
            },
            message=(
                f"The targets are one of {outcomes.num_classes} classes each, and the loss is {kind}, whose gradient is"
                f" small where an output is surely wrong. The accuracy in training came near its end {until}."
            ),
            remedies=(
                Remedy(
                    "use the cross-entropy of the outputs before the softmax",
                    "loss function",
                    name,
                    "cross_entropy",
                ),
            ),
            reference=self.reference,
        )


FIRST_LOOKS = 8  # steps within which a thinned recording sees what is so from the start
MIN_STEPS = 50  # of a run that could have learned


def _kind_of(name: str, *, is_probable: bool, adds_up: bool) -> str:
    if name in BINARY:
        return "a binary cross-entropy for each class"
    what = "probabilities" if is_probable and adds_up else "sigmoids" if is_probable else "class scores"
    return f"{name} of {what}"
