"""The rule `parameters-not-in-optimizer`: parameters get gradients and no optimizer holds them.

No idea of which optimizer should.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import names
from actograph.rules.facts import in_order, layer_of, steps_of, unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class ParametersNotInOptimizer(Rule):
    """Parameters that require gradients, and get them, are held by no optimizer: they never move.

    Usual reasons are an optimizer that was built from a part of the model, or layers that were added after it was built.
    """

    id: ClassVar[str] = "parameters-not-in-optimizer"
    measured: ClassVar[str] = (
        "After each recorded update it is known which parameters of recorded models have a gradient, and which are held by"
        " any optimizer that has moved. A parameter counts when it has gradients and no optimizer has ever held it, or none"
        " does any more, up to the end, while others of its model are held."
    )
    silent_on: ClassVar[str] = (
        "Frozen parameters (requires_grad=False); parameters that a later optimizer or group takes in; models that no"
        " optimizer holds at all (teachers, targets, the networks of a perceptual loss); tied weights; parameters"
        " without gradients."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Build the optimizer from model.parameters(), after the last layer was added.",
        "If the parameters are meant to rest, say parameter.requires_grad_(False): their backward is then saved too.",
    )
    sources: ClassVar[tuple[str, ...]] = ("Jiang et al. 2025, TrainCheck (Accelerate issue 2665)",)

    steps: float = threshold(
        3.0, "steps", "our choice: a second optimizer may take its first step a little later"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find parameters with gradients that nobody moves."""
        kind = FactKind.UNHELD_PARAMETER
        looked = view.facts.looked(FactKind.MISSING_GRADIENT)
        if looked is None:
            yield from unless_looked(self, view, FactKind.MISSING_GRADIENT, "no update was seen")
            return
        facts = [
            fact
            for fact in in_order(view, view.facts.of(kind))
            if fact.number("partly_held") and fact.num_steps >= self.steps
        ]
        if not facts:
            return
        first = facts[0]
        first_step, last_step = steps_of(view, first)
        together = [fact for fact in facts if fact.first_step == first.first_step]
        which = names([fact.subject for fact in together])
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=layer_of(view, first.subject),
            first_step=first_step,
            last_step=last_step,
            evidence={
                "parameters": ", ".join(fact.subject for fact in facts[:20]),
                "num_parameters": float(len(facts)),
                "steps_with_gradient": float(first.num_steps),
            },
            message=(
                f"{which} {'get' if len(together) > 1 else 'gets'} gradients from step {first_step} on, and no optimizer"
                " holds them: they stay as they are while the rest of the model is trained."
            ),
            remedies=(
                Remedy("give the optimizer these parameters too", first.subject),
                Remedy(
                    "freeze them, if they are meant to rest",
                    first.subject,
                    "requires_grad=True",
                    "requires_grad=False",
                ),
            ),
            reference=self.reference,
        )
