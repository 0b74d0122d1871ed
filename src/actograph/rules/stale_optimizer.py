"""The rule `stale-optimizer`: an optimizer moves tensors that the model does not have (any more).

No idea of how it came to that.
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
class StaleOptimizer(Rule):
    """An optimizer holds tensors that never get a gradient and that no model has, while the model's own go without one.

    The optimizer was built before the model, or a layer of it, was replaced: by a copy, by a new head, by a wrapper that
    makes parameters of its own.
    """

    id: ClassVar[str] = "stale-optimizer"
    leads_to: ClassVar[tuple[str, ...]] = ("parameters-not-in-optimizer",)
    measured: ClassVar[str] = (
        "Tensors of an optimizer without any gradient that belong to no recorded model, together with parameters of a"
        " recorded model of the same shapes that have gradients and that no optimizer holds."
    )
    silent_on: ClassVar[str] = (
        "Parameters that belong to no module, as long as they get gradients; models that were not called; frozen tensors"
        " among the optimizer's; models that no optimizer is meant to hold, as their shapes are not those of the stale"
        " tensors."
    )
    advice: ClassVar[tuple[str, ...]] = ("Build the optimizer after the model is as it will be trained.",)
    sources: ClassVar[tuple[str, ...]] = ("Jiang et al. 2025, TrainCheck (Accelerate issue 2665)",)

    steps: float = threshold(
        3.0, "steps", "our choice: a model may be replaced between two stages of a training"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find tensors that only an optimizer knows beside parameters that it should hold."""
        if view.facts.looked(FactKind.MISSING_GRADIENT) is None:
            yield from unless_looked(self, view, FactKind.MISSING_GRADIENT, "no update was seen")
            return
        stale = [f for f in view.facts.of(FactKind.UNKNOWN_PARAMETER) if f.num_steps >= self.steps]
        shapes = {fact.text("shape") for fact in stale}
        alone = [
            fact
            for fact in in_order(view, view.facts.of(FactKind.UNHELD_PARAMETER))
            if fact.num_steps >= self.steps and fact.text("shape") in shapes
        ]
        if not stale or not alone:
            return
        first = alone[0]
        first_step, last_step = steps_of(view, first)
        which = names([fact.subject for fact in alone])
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR,
            layer=layer_of(view, first.subject),
            first_step=first_step,
            last_step=last_step,
            evidence={
                "stale_tensors": float(len(stale)),
                "parameters_without_optimizer": float(len(alone)),
                "parameters": ", ".join(fact.subject for fact in alone[:20]),
            },
            message=(
                f"The optimizer holds {len(stale)} tensor{'s' if len(stale) > 1 else ''} that no model has and that"
                f" never got a gradient, while {which} of the same shapes {'get' if len(alone) > 1 else 'gets'} gradients"
                " and no optimizer holds them: it was built for a model, or a layer, that has been replaced since."
            ),
            remedies=(
                Remedy(
                    "build the optimizer anew, from the parameters of the model that is trained", "optimizer"
                ),
            ),
            reference=self.reference,
        )
