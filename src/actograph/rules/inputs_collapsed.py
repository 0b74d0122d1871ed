"""The rule `inputs-collapsed`: the model gets one and the same number as its whole input.

No idea of what the input should be.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import number
from actograph.rules.facts import steps_of, unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class InputsCollapsed(Rule):
    """All values of the input are the same number, batch after batch, so no sample can be told from another.

    A preparation step has gone wrong (a division of whole numbers, a clipping range, a normalisation done twice), or the
    input is replaced on its way.
    """

    id: ClassVar[str] = "inputs-collapsed"
    leads_to: ClassVar[tuple[str, ...]] = ("labels-misaligned", "label-noise", "overfitting")
    measured: ClassVar[str] = (
        "Smallest and largest value of the first tensor of each recorded training forward, all samples together: exactly"
        " equal, in every step up to the end."
    )
    silent_on: ClassVar[str] = (
        "Inputs with any difference in them, however small; single blank batches; models of which more than the first"
        " input counts are not known, so other inputs are named as a possibility."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Look at a batch right before the model; go back to the step that loses it.",
    )
    sources: ClassVar[tuple[str, ...]] = ("Braiek and Khomh 2023, TheDeepChecker (constant features)",)

    steps: float = threshold(5.0, "steps", "our choice: no data set has so many blank batches in a row")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find inputs that are constant up to the end."""
        kind = FactKind.CONSTANT_INPUT
        facts = [f for f in view.facts.lasting(kind) if f.last_step - f.since + 1 >= self.steps]
        if not facts:
            yield from unless_looked(self, view, kind, "no input of floating-point numbers was recorded")
            return
        fact = facts[0]
        first_step, last_step = steps_of(view, fact, fact.since)
        value = fact.number("value")
        was_varied = fact.since > 0
        severity = Severity.ERROR if was_varied else Severity.WARNING
        yield Finding(
            rule=self.id,
            severity=severity,
            layer=None,
            first_step=first_step,
            last_step=last_step,
            evidence={"value": value, "steps": float(last_step - first_step + 1)},
            message=(
                f"From step {first_step} on every value of the model's first input is {number(value)}: no sample can be"
                " told from another by it."
            ),
            remedies=(Remedy("look at a batch right before the model", "training data"),),
            reference=self.reference,
        )
