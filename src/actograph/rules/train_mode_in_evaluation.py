"""The rule `train-mode-in-evaluation`: the model was evaluated in training mode.

No idea of metrics. What an evaluation is was said by the driver, or seen: a forward and a loss without gradients.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.facts import layer_of, steps_of, unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class TrainModeInEvaluation(Rule):
    """A model with dropout or running statistics was always evaluated in training mode.

    Its results depend on chance and on what else is in the batch, and running statistics learn from the evaluation data.
    """

    id: ClassVar[str] = "train-mode-in-evaluation"
    measured: ClassVar[str] = (
        "An evaluation is a forward in a validation phase, or one without gradients whose loss is computed without"
        " gradients too. It counts where the model was in evaluation mode in none of them."
    )
    silent_on: ClassVar[str] = (
        "Forwards without gradients that no loss follows (targets, teachers, samples of a generator, new statistics for"
        " averaged weights); single modules in training mode, as in Monte Carlo dropout; models that compute the same in"
        " both modes."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Call model.eval() before each evaluation and model.train() after it.",
    )
    sources: ClassVar[tuple[str, ...]] = ("PyTorch documentation, torch.nn.Module.eval",)

    forwards: float = threshold(2.0, "forwards", "our choice: one may be a look at the loss before training")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find models that were never in evaluation mode when they were evaluated."""
        kind = FactKind.MODE_IN_EVALUATION
        facts = view.facts.of(kind)
        if not facts:
            why = "no evaluation of a model with dropout or running statistics was seen"
            yield from unless_looked(self, view, kind, why)
            return
        for fact in facts:
            num = fact.number("in_training")
            if num < self.forwards or fact.number("in_evaluation"):
                continue
            first_step, last_step = steps_of(view, fact)
            yield Finding(
                rule=self.id,
                severity=Severity.WARNING,
                layer=layer_of(view, fact.text("layer")),
                first_step=first_step,
                last_step=last_step,
                evidence={
                    "forwards_in_training_mode": num,
                    "module": fact.text("layer"),
                    "kind": fact.text("kind"),
                },
                message=(
                    f"From step {first_step} on the model was evaluated in training mode, {num:.0f} forwards and none in"
                    f" evaluation mode: {fact.text('layer')} ({fact.text('kind')}) computes differently there, so results"
                    " depend on chance or on the rest of the batch."
                ),
                remedies=(Remedy("call model.eval() before each evaluation", "model", "train", "eval"),),
                reference=self.reference,
            )
