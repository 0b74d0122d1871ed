"""The rule `batchnorm-statistics-frozen`: a norm trains on batch statistics while its running ones stand still.

No idea of evaluation: that is where it does harm.
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

DEFAULT_MOMENTUM = 0.1  # torch's


@dataclass(frozen=True)
class BatchNormStatisticsFrozen(Rule):
    """A batch norm in training mode whose running mean and variance have never moved.

    It normalises with each batch's statistics in training and with the old ones in evaluation, which belong to other data.
    """

    id: ClassVar[str] = "batchnorm-statistics-frozen"
    measured: ClassVar[str] = (
        "Sums of running mean and variance after steps 0, 1, 2, 4, 8, ... of each norm that is in training mode then:"
        " exactly as after the first step, at each look up to the last."
    )
    silent_on: ClassVar[str] = (
        "Norms in evaluation mode (they rest on purpose); norms without running statistics; statistics that stand still"
        " after having moved."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Give the norm a momentum above 0 (torch's default is 0.1).",
        "If the statistics are meant to rest, set the norm to evaluation mode in training too.",
    )

    looks: float = threshold(
        3.0, "looks", "our choice: after steps 1, 2 and 4, so over four updates at least"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find norms whose statistics never moved."""
        kind = FactKind.FROZEN_STATISTICS
        facts = [fact for fact in in_order(view, view.facts.of(kind)) if fact.num_steps >= self.looks]
        if not facts:
            yield from unless_looked(self, view, kind, "no step was seen")
            return
        first = facts[0]
        _, last_step = steps_of(view, first)
        which = names([fact.subject for fact in facts])
        momentum = first.data.get("momentum", "None")
        old = momentum if isinstance(momentum, (int, float)) and momentum == 0 else None
        yield Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=layer_of(view, first.subject),
            first_step=0,
            last_step=last_step,
            evidence={"norms": which, "num_norms": float(len(facts)), "momentum": str(momentum)},
            message=(
                f"The running statistics of {which} have not moved in the first {last_step + 1} steps, though"
                f" {'they are' if len(facts) > 1 else 'it is'} in training mode: in evaluation mode the model computes"
                f" with statistics of other data (momentum {momentum})."
            ),
            remedies=(
                Remedy("set the norm's momentum", first.subject, old, DEFAULT_MOMENTUM),
                Remedy("set the norm to evaluation mode, if its statistics are meant to rest", first.subject),
            ),
            reference=self.reference,
        )
