"""The rule `missing-normalization`: a deep network without norms in which the size of values drifts.

No idea of weights of unusual size: with those the fault is the initialization.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import number
from actograph.rules.facts import NO_FLOW, layer_of, unless_looked
from actograph.rules.losses import MIN_BLOCK, loss_curve
from actograph.rules.progress import Stall, held_up, stall_of
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.starts import Start, starts_of
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow, Kind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class MissingNormalization(Rule):
    """A deep network has no normalisation, and values shrink or grow from layer to layer though weights are of usual size.

    What comes out at the end hardly depends on the input, or all too much: a learning rate that works with norms does not.
    """

    id: ClassVar[str] = "missing-normalization"
    leads_to: ClassVar[tuple[str, ...]] = (
        "labels-misaligned",
        "vanishing-gradients",
        "exploding-gradients",
        "learning-rate-too-high",
        "learning-rate-too-low",
        "dead-units",
        "non-finite-loss",
        "fp16-underflow",
    )
    measured: ClassVar[str] = (
        "No norm lies anywhere between the weight layers (the graph of one training forward); the product of their"
        " gains (root"
        " mean square of the weights times the square root of the fan-in, in units of He's for rectifiers, LeCun's for the"
        " rest); and a loss that stood at its first level for a good while (steps counted by their learning rate)."
    )
    silent_on: ClassVar[str] = (
        "Networks with any norm; few layers; weights of unusual size (see initialization-too-small and -too-large); a"
        " network"
        " that learns at once without; sigmoid layers (see vanishing-gradients)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Put BatchNorm (convolutions) or LayerNorm behind each weight layer, in front of its activation.",
        "Put shortcuts around every two layers.",
        "Initialise with He (rectifiers), gain 1 per layer; torch's default has 0.41.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Ioffe, Szegedy 2015, Batch normalization; Hanin, Rolnick 2018, How to start training",
        "Braiek and Khomh 2023, TheDeepChecker (missing batch norm)",
    )

    layers: float = threshold(
        8.0, "hidden weight layers", "our choice: torch's default loses 0.41 a layer, so 1e-3 over 8"
    )
    drift: float = threshold(
        30.0, "times, over all hidden layers", "eight tanh layers of gain 1.2 that learn well: 4.3"
    )
    usual: float = threshold(3.0, "times the usual gain, or a quarter", "beyond it the weights are to blame")
    delay: float = threshold(
        0.15, "share of the run", "healthy runs leave the first level of the loss in 1-9 %"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find deep networks without norms in which the size of values is not kept."""
        flow = Flow.of(view.facts)
        if not len(flow):
            yield from unless_looked(self, view, FactKind.FLOW, NO_FLOW)
            return
        if _has_norm(flow) or any("sigmoid" in info.kind.lower() for info in view.layers):
            return
        hidden = [one for one in starts_of(view, flow) if not one.is_head]
        drift = math.prod(one.ratio for one in hidden)
        is_usual = all(1 / (self.usual + 1) <= one.ratio <= self.usual for one in hidden)
        if len(hidden) < self.layers or not is_usual or 1 / self.drift < drift < self.drift:
            return
        stall, curve = stall_of(view, flow), loss_curve(view)
        if stall is None or len(curve) < MIN_BLOCK:
            yield self.abstain("too few losses were seen to tell whether it does harm")
        elif held_up(view, flow, stall, self.delay):
            yield self._finding(view, hidden, drift, stall)

    def _finding(self, view: RunView, hidden: Sequence[Start], drift: float, stall: Stall) -> Finding:
        curve = loss_curve(view)
        per_layer = drift ** (1 / len(hidden))
        first = hidden[0]
        stood = f"for {stall.num_steps} steps" if stall.is_over else "to the end"
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=layer_of(view, first.name),
            first_step=0,
            last_step=view.final_step,
            evidence={
                "gain_per_layer": per_layer,
                "gain_of_all": drift,
                "num_layers": float(len(hidden)),
                "delay_steps": float(stall.num_steps),
                "delay_share": stall.share,
                "loss_at_start": curve.start,
                "loss_at_end": curve.final,
            },
            message=(
                f"None of the {len(hidden)} hidden layers is normalised, and each changes the size of what goes through to"
                f" {number(per_layer)} of it, from {first.name} on: {number(drift)} over all of them. The loss stood at its"
                f" first level {stood}."
            ),
            remedies=(
                Remedy(
                    "put a norm behind each weight layer", "hidden layers", None, "BatchNorm or LayerNorm"
                ),
                *[one.remedy for one in hidden],
            ),
            reference=self.reference,
        )


def _has_norm(flow: Flow) -> bool:
    return any(
        Kind.NORM in kinds
        for layer in flow.layers
        for kinds in (layer.after, *layer.sources.values(), layer.from_input or ())
    )
