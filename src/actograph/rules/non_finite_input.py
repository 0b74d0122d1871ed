"""The rule `non-finite-input`: NaN or infinity came in with the data, before any layer.

No idea of where the data come from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.row import Field
from actograph.rules.advice import percent
from actograph.rules.facts import steps_of, unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class NonFiniteInput(Rule):
    """A batch of training data held NaN or infinite values.

    One such value makes the loss NaN, and after one update all weights.
    """

    id: ClassVar[str] = "non-finite-input"
    leads_to: ClassVar[tuple[str, ...]] = ("non-finite-loss", "dead-units", "saturated-activations")
    measured: ClassVar[str] = (
        "The first tensor that each recorded training forward gets is counted through. An error where the loss or the"
        " output of a layer became non-finite at that step or after it, otherwise a note."
    )
    silent_on: ClassVar[str] = (
        "NaN for missing values that the model replaces or masks (a note); finite input, whatever the layers make of it;"
        " inputs that are whole numbers."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Drop or repair the samples with NaN or infinity; look for divisions by a standard deviation of 0.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Hugging Face DebugUnderflowOverflow; UMLAUT (CHI 2021), NaN in the input",
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find the first batch with a non-finite value."""
        kind = FactKind.NON_FINITE_INPUT
        facts = view.facts.of(kind)
        if not facts:
            yield from unless_looked(self, view, kind, "no input of floating-point numbers was recorded")
            return
        fact = facts[0]
        first_step, last_step = steps_of(view, fact)
        first_bad = _first_non_finite(view)
        harms = first_step <= first_bad
        is_harmed = bool(np.isfinite(first_bad)) and harms
        ending = (
            f" The loss or a layer was non-finite from step {int(first_bad)} on."
            if is_harmed
            else " Loss and layers stayed finite, or were so before: the values are masked, or were not the cause."
        )
        share = fact.number("share")
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR if is_harmed else Severity.NOTE,
            layer=None,
            first_step=first_step,
            last_step=last_step,
            evidence={
                "steps": float(fact.num_steps),
                "nan_values": fact.number("nan"),
                "inf_values": fact.number("inf"),
                "share_of_the_batch": share,
            },
            message=(
                f"The input of the model held NaN or infinite values at step {first_step}, before any layer"
                f" (in the last such batch {percent(share)} of all values).{ending}"
            ),
            remedies=(Remedy("drop or repair samples with NaN or infinity", "training data"),),
            reference=self.reference,
        )


def _first_non_finite(view: RunView) -> float:
    """Return the first step with a non-finite loss or output, infinity for never."""
    loss = view.scalar("loss").first_non_finite
    layers = view.rows[:, :, Field.FIRST_NON_FINITE].min(initial=np.inf)
    return float(min(layers, np.inf if loss is None else loss))
