"""The rule `eval-mode-in-training`: the model was trained in evaluation mode.

No idea of what the modules compute; the facts name those that make a difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import names
from actograph.rules.facts import in_order, layer_of, steps_of, unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class EvalModeInTraining(Rule):
    """Gradients flowed through a model in evaluation mode, and an optimizer used them.

    Dropout is off and batch norms use their running statistics, which no longer follow the data. Usually `model.eval()` was
    called for an evaluation and `model.train()` not again.
    """

    id: ClassVar[str] = "eval-mode-in-training"
    measured: ClassVar[str] = (
        "A forward in evaluation mode counts when a gradient came back through its output, an optimizer that holds the"
        " model's parameters moved, and there was no forward in training mode between that optimizer's last step and"
        " this one. The layer named is the first dropout or batch norm, the step is exact."
    )
    silent_on: ClassVar[str] = (
        "Single layers in evaluation mode while the model trains, as in fine-tuning with resting batch norms (a note);"
        " modules whose parameters are frozen; models without dropout or running statistics; adversarial examples made in"
        " evaluation mode for a step in training mode; gradients that no optimizer uses."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Call model.train() at the beginning of each epoch, after every evaluation.",
        "If the norms are meant to rest, freeze their parameters too, or leave the rest of the model in training mode.",
    )
    sources: ClassVar[tuple[str, ...]] = ("PyTorch documentation, torch.nn.Module.eval",)

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find modules that were in evaluation mode while their model was trained."""
        kind = FactKind.EVAL_IN_TRAINING
        facts = in_order(view, view.facts.of(kind))
        if not facts:
            why = "no update of a model with dropout or running statistics was seen"
            yield from unless_looked(self, view, kind, why)
            return
        whole = [fact for fact in facts if fact.number("whole")]
        found = whole or facts
        first = found[0]
        looked = view.facts.looked(kind)
        has_trained = looked is not None and looked.first_step < first.first_step
        first_step, last_step = steps_of(view, first)
        which = names([fact.subject for fact in found])
        what = f"From step {first_step} on the model was trained in evaluation mode" if whole else (
            f"From step {first_step} on {which} {'were' if len(found) > 1 else 'was'} in evaluation mode while the rest"
            " of the model was trained"
        )  # fmt: skip
        effect = (
            f", so {which} did not do what training needs: dropout drops nothing, running statistics do not follow."
            if whole
            else ", as is done on purpose to let running statistics rest."
        )
        severity = Severity.ERROR if has_trained else Severity.WARNING
        yield Finding(
            rule=self.id,
            severity=severity if whole else Severity.NOTE,
            layer=layer_of(view, first.subject),
            first_step=first_step,
            last_step=last_step,
            evidence={
                "modules": which,
                "kind": first.text("kind"),
                "steps_in_evaluation_mode": float(first.num_steps),
                "trained_before": str(has_trained),
            },
            message=what + effect,
            remedies=(
                Remedy("call model.train() before each epoch of training", "model", "eval", "train"),
                Remedy("freeze the parameters of norms that are meant to rest", first.subject),
            ),
            reference=self.reference,
        )
