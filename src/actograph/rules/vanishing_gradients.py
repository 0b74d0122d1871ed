"""The rule `vanishing-gradients`: hardly any gradient reaches the first layers, though weights began with a usual size.

No idea of why; rules of causes (weights too small, saturated or dead layers) take it as their consequence.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from actograph.layout.row import Floats
from actograph.rules.advice import names, number
from actograph.rules.facts import NO_FLOW, layer_of, unless_looked
from actograph.rules.losses import loss_curve
from actograph.rules.progress import Stall, held_up, stall_of
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.starts import Start, positions_of, starts_of
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow, Kind
from actograph.runlog.view import RunView

TINY = 1e-30  # in place of a gain of 0


@dataclass(frozen=True)
class VanishingGradients(Rule):
    """The gradient shrinks from layer to layer on its way back, so the first layers hardly learn.

    Sigmoid passes a quarter of a gradient at most, tanh less than all: over many layers without shortcuts little is left.
    """

    id: ClassVar[str] = "vanishing-gradients"
    leads_to: ClassVar[tuple[str, ...]] = ("labels-misaligned",)
    measured: ClassVar[str] = (
        "Gradients of the weights of layers in a single file, after steps 0, 1, 2, 4, 8, ... while the loss stood at"
        " its first"
        " level, each over the size of what came into its layer: the first layer against the last hidden one. It is a"
        " warning"
        " where the loss stood there for a good while, or for good."
    )
    silent_on: ClassVar[str] = (
        "Networks that learn at once; layers with shortcuts around them; gradients that become small because the loss has;"
        " frozen layers; small but even gradients."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Use ReLU or GELU with He's initialization in hidden layers instead of sigmoid or tanh.",
        "Put shortcuts around every two layers, or normalisation layers between them.",
        "Use fewer layers.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Hochreiter 1998, The vanishing gradient problem; Glorot, Bengio 2010",
        "Zhang et al. 2021, AutoTrainer (first to last below 1e-3)",
    )

    ratio: float = threshold(
        1e-3, "gradient of the first layer / last hidden one", "AutoTrainer; healthy: 0.1-3"
    )
    layers: float = threshold(4.0, "weight layers in a single file", "our choice: fewer are not deep")
    delay: float = threshold(
        0.15, "share of the run", "healthy runs leave the first level of the loss in 1-9 %"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find chains along which the gradient is lost."""
        flow = Flow.of(view.facts)
        if not len(flow):
            yield from unless_looked(self, view, FactKind.FLOW, NO_FLOW)
            return
        chain = _longest_chain(view, flow)
        if len(chain) < self.layers:
            return
        stall = stall_of(view, flow)
        if stall is None:
            yield self.abstain("too few losses were seen to tell whether the training got under way")
            return
        if not held_up(view, flow, stall, self.delay):
            return
        sizes = _sizes(view, chain, loss_curve(view).steps[: stall.num_steps])
        if sizes is None:
            yield self.abstain("gradients of these layers were not seen")
            return
        if sizes[0] <= self.ratio * sizes[-1]:
            yield self._finding(view, flow, chain, sizes, stall)

    def _finding(
        self, view: RunView, flow: Flow, chain: Sequence[Start], sizes: Floats, stall: Stall
    ) -> Finding:
        weak = [one for one, size in zip(chain, sizes, strict=True) if size <= self.ratio * sizes[-1]]
        first = chain[0]
        curve = loss_curve(view)
        saturating = any(
            Kind.SATURATING in kinds for layer in flow.layers for kinds in layer.sources.values()
        )
        stood = (
            f"stood at its first level, {number(float(curve.values[0]))}, for {stall.num_steps} steps"
            if stall.is_over
            else f"never left its first level, {number(float(curve.values[0]))}"
        )
        per_layer = float((sizes[0] / sizes[-1]) ** (1 / (len(sizes) - 1))) if sizes[0] > 0 else 0.0
        shortcuts = Remedy(
            "put shortcuts or normalisation layers in", "hidden layers", None, "LayerNorm or residual"
        )
        other = Remedy(
            "use an activation with slope 1", "hidden layers", "sigmoid or tanh", "ReLU with He weights"
        )
        return Finding(
            rule=self.id,
            severity=Severity.WARNING,
            layer=layer_of(view, first.name),
            first_step=0,
            last_step=view.final_step,
            evidence={
                "gradient_first": float(sizes[0]),
                "gradient_last": float(sizes[-1]),
                "ratio_per_layer": per_layer,
                "num_layers": float(len(chain)),
                "layers": names([one.name for one in weak], limit=20),
                "delay_steps": float(stall.num_steps),
                "delay_share": stall.share,
            },
            message=(
                f"On its way back through {len(chain)} layers the gradient shrinks to {number(per_layer)} of its size"
                f" at each:"
                f" {chain[-1].name} gets one of {number(float(sizes[-1]))} (root mean square), {first.name} one of"
                f" {number(float(sizes[0]))}. The first layers do not learn, and the loss {stood}."
            ),
            remedies=(other, shortcuts) if saturating else (shortcuts,),
            reference=self.reference,
        )


def _longest_chain(view: RunView, flow: Flow) -> list[Start]:
    """Return the hidden layers in front of the output in a single file, without shortcuts."""
    starts = {start.name: start for start in starts_of(view, flow)}
    best: list[Start] = []
    for head in flow.heads:
        chain = [starts[name] for name in flow.chain_to(head.name)[:-1] if name in starts]
        plain = [one for one in chain if Kind.MERGE not in one.layer.after]
        best = max(best, plain if len(plain) == len(chain) else [], key=len)
    return best


def _sizes(view: RunView, chain: Sequence[Start], steps: Floats) -> Floats | None:
    """Return what comes back to the output of each layer (n,), over the looks at these steps; None where some are missing.

    The gradient of a weight is what comes back times what came in; the latter is about the layer's output over its gain.
    """
    positions = positions_of(view, list(chain))
    if not len(steps) or not len(view.buckets) or any(one.name not in positions for one in chain):
        return None
    rms = view.column("rms")[0]
    found = []
    for start in chain:
        at, sizes = start.fact.data.get("steps"), start.fact.data.get("grad_rms")
        if not isinstance(at, list) or not isinstance(sizes, list):
            return None
        values = [
            value for step, value in zip(at, sizes, strict=True) if step <= steps[-1] and math.isfinite(value)
        ]
        came_in = float(rms[positions[start.name]]) / max(start.gain, TINY)
        if not values or not came_in > 0:
            return None
        found.append(float(np.median(values)) / came_in)
    return np.array(found)
