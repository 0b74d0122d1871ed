"""The rule `constant-initialization`: all units of a layer began with the same weights, and stay the same.

No idea of how weights should be initialised.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.advice import names
from actograph.rules.facts import in_order, layer_of, steps_of, unless_looked
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class ConstantInitialization(Rule):
    """All units of a layer have the same weights as each other and get the same gradients: the layer is one unit wide.

    Units that begin alike, with alike layers behind them, are never told apart by gradient descent.
    """

    id: ClassVar[str] = "constant-initialization"
    leads_to: ClassVar[tuple[str, ...]] = (
        "missing-normalization",
        "vanishing-gradients",
        "dead-units",
        "labels-misaligned",
    )
    measured: ClassVar[str] = (
        "Weights whose units (rows) were all the same when the model was first seen are looked at after steps 0, 1, 2, 4,"
        " 8, ...: an error where they are still the same, exactly, though they have gradients and the learning rate is"
        " above 0."
    )
    silent_on: ClassVar[str] = (
        "Layers that begin with zeros and are told apart at the first update (heads, last layers of residual branches,"
        " adapters); vectors (biases, gains); frozen or unused parameters; a warm-up that begins at 0."
    )
    advice: ClassVar[tuple[str, ...]] = ("Initialise the layer at random: He for ReLU, Xavier for tanh.",)
    sources: ClassVar[tuple[str, ...]] = (
        "Goodfellow et al. 2016, Deep Learning, section 8.4; Braiek and Khomh 2023, TheDeepChecker (symmetric weights)",
    )

    looks: float = threshold(5.0, "looks", "our choice: after steps 0, 1, 2, 4 and 8")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find weights whose units stay alike."""
        kind = FactKind.EQUAL_UNITS
        facts = [fact for fact in in_order(view, view.facts.of(kind)) if fact.num_steps >= self.looks]
        if not facts:
            yield from unless_looked(self, view, kind, "no step was seen")
            return
        rates = view.scalar("lr").high
        if np.isfinite(rates).any() and np.nanmax(rates) == 0:
            yield self.abstain("the learning rate is 0: units that begin alike cannot change")
            return
        first = facts[0]
        _, last_step = steps_of(view, first)
        which = names([fact.subject for fact in facts])
        yield Finding(
            rule=self.id,
            severity=Severity.ERROR,
            layer=layer_of(view, first.subject),
            first_step=0,
            last_step=last_step,
            evidence={
                "parameters": ", ".join(fact.subject for fact in facts[:20]),
                "num_parameters": float(len(facts)),
                "shape": first.text("shape"),
            },
            message=(
                f"All units of {which} began with the same weights and still have them after step {last_step}:"
                " they get the same gradients, so the layer works like one with a single unit."
            ),
            remedies=(Remedy("initialise at random", first.subject, "constant", "He or Xavier"),),
            reference=self.reference,
        )
