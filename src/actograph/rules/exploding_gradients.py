"""The rule `exploding-gradients`: in a recurrent network without clipping, gradients grow through the steps of the sequence.

No idea of what the sequence is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.rules.advice import number
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.updates import FEW, NO_UPDATES, Updates
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView

RECURRENT = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
USUAL_LIMIT = 1.0  # Pascanu et al. 2013 and what most programs use


@dataclass(frozen=True)
class ExplodingGradients(Rule):
    """Gradients of a recurrent network are multiplied at each step of the sequence and become huge; nothing clips them.

    One such gradient throws the weights far off what had been learned.
    """

    id: ClassVar[str] = "exploding-gradients"
    leads_to: ClassVar[tuple[str, ...]] = (
        "learning-rate-too-high",
        "non-finite-loss",
        "dead-units",
        "saturated-activations",
    )
    measured: ClassVar[str] = (
        "A recurrent layer was recorded and no clipping was seen. The norm of all gradients is ten times its usual"
        " size or more"
        " (its median over the run, or the first where that is lower), or not finite; updates then moved the weights by"
        " several percent; and a good part of the loss at the start is left, or it is NaN."
    )
    silent_on: ClassVar[str] = (
        "Spikes that clipping cuts off; networks without recurrent layers, where a rate that is too high is the usual"
        " reason;"
        " a network that learns."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Clip the gradient norm at 1.",
        "Use an LSTM or GRU, or orthogonal recurrent weights with gain 1.",
        "Lower the learning rate by 10.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Pascanu, Mikolov, Bengio 2013, On the difficulty of training recurrent neural networks",
    )

    growth: float = threshold(
        10.0, "times", "trainproof and runmedic call 10x exploding; healthy and clipped: 2 to 4"
    )
    growth_adaptive: float = threshold(
        100.0,
        "times, where each weight's update is divided by its gradients' size",
        "our choice: healthy 2 to 10",
    )
    ratio: float = threshold(0.02, "update over weights", "as for a learning rate that is too high")
    left: float = threshold(0.2, "share of the loss at the start", "healthy recurrent networks: 0.02-0.07")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Look for huge gradients that nothing clips."""
        updates = Updates.of(view)
        if updates is None:
            yield self.abstain(NO_UPDATES)
            return
        layers = [info.name for info in view.layers if info.kind in RECURRENT]
        if not layers or view.facts.of(FactKind.CLIPPING) or updates.left < self.left:
            return
        series = view.scalar("grad_norm", "update")
        finite = series.values[np.isfinite(series.values)]
        if not len(finite) or float(np.nanmax(updates.ratio.values)) < self.ratio:
            return
        if updates.is_adaptive and updates.replaces_weights:
            return  # whatever its gradients: an update of Adam's kind is as large as its rate
        growth = self.growth_adaptive if updates.is_adaptive else self.growth
        usual = min(float(np.median(finite)), float(np.median(finite[:FEW])))
        huge = ~np.isfinite(series.values) | (series.values >= growth * usual)
        if huge.any():
            step = int(series.steps[np.argmax(huge)])
            yield self._finding(view, updates, layers[0], step, usual, float(finite.max()))

    def _finding(
        self, view: RunView, updates: Updates, layer: str, step: int, usual: float, highest: float
    ) -> Finding:
        end = "became NaN" if updates.died else f"ended at {number(updates.curve.final)}"
        return Finding(
            rule=self.id,
            severity=Severity.ERROR if updates.died else Severity.WARNING,
            layer=layer,
            first_step=step,
            last_step=max(view.num_steps - 1, step),
            evidence={
                "usual_gradient_norm": usual,
                "highest_gradient_norm": highest,
                "loss_at_start": updates.base,
                "loss_at_end": "not finite" if updates.died else updates.curve.final,
            },
            message=(
                f"The gradients of {layer} grow through the steps of the sequence: their norm, usually"
                f" {number(usual)}, came to"
                f" {number(highest)}, and nothing clips them. The loss began at {number(updates.base)} and {end}."
            ),
            remedies=(
                Remedy("clip the gradient norm", "gradients", "not clipped", USUAL_LIMIT),
                Remedy("use orthogonal recurrent weights with gain 1, or an LSTM", layer),
                Remedy("lower the learning rate", "lr", updates.peak_rate, updates.peak_rate / 10),
            ),
            reference=self.reference,
        )
