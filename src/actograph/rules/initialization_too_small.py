"""The rule `initialization-too-small`: weights that began so small that hardly anything gets through the layers.

No idea of layers whose output goes through a norm or is added to a shortcut: there small is no fault.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from actograph.rules.advice import names, number
from actograph.rules.facts import NO_FLOW, layer_of, unless_looked
from actograph.rules.losses import loss_curve
from actograph.rules.progress import Stall, stall_of
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.starts import DEFAULT, HE, Start, positions_of, starts_of
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow
from actograph.runlog.view import RunView

SMALLEST_USUAL = DEFAULT / HE  # torch's default in front of a rectifier


@dataclass(frozen=True)
class InitializationTooSmall(Rule):
    """The weights of hidden layers began so small that values shrink from layer to layer, forward and backward.

    Outputs do not depend on the input, gradients are next to nothing: the loss stands where it began until some weights
    have grown.
    """

    id: ClassVar[str] = "initialization-too-small"
    leads_to: ClassVar[tuple[str, ...]] = (
        "labels-misaligned",
        "vanishing-gradients",
        "missing-normalization",
        "fp16-underflow",
        "learning-rate-too-low",
        "optimizer-epsilon",
    )
    measured: ClassVar[str] = (
        "The gain of each hidden layer when it was first called: root mean square of its weights times the square root of"
        " its fan-in, in units of the usual one; of those far below usual, the product. It is a warning where the loss stood"
        " at its first level for a good while (steps counted by their learning rate), or for good."
    )
    silent_on: ClassVar[str] = (
        "Layers behind which a norm stands or whose output is added to a shortcut (residual branches that begin with 0,"
        " adapters, transformers with 0.02); the output layer; a loss that falls at once all the same (a note)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Initialise with He (rectifiers) or Xavier (tanh): standard deviation sqrt(2 / fan-in) or sqrt(1 / fan-in).",
        "Put normalisation layers or shortcuts in.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Glorot, Bengio 2010, Understanding the difficulty of training deep feedforward neural networks",
        "He et al. 2015, Delving deep into rectifiers, section 2.2",
    )

    ratio: float = threshold(0.25, "times the usual gain", "usual schemes give 0.35 to 2")
    product: float = threshold(
        0.1, "product of small layers' shares of the smallest usual gain", "one layer ten times too small"
    )
    strong: float = threshold(
        0.01, "product, as above", "two layers ten times too small: little delay is enough of a sign"
    )
    delay: float = threshold(
        0.05, "share of the run", "healthy runs leave the first level in 1-3 %, under a cosine in 9 %"
    )
    short_delay: float = threshold(0.01, "share of the run", "as above; where the mechanism is strong")
    min_steps: float = threshold(3.0, "steps", "our choice: fewer are no delay")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find hidden layers that began too small and held the loss up."""
        flow = Flow.of(view.facts)
        if not len(flow):
            yield from unless_looked(self, view, FactKind.FLOW, NO_FLOW)
            return
        small = [
            one
            for one in starts_of(view, flow)
            if one.ratio <= self.ratio
            and not (one.is_head or one.is_normalized or one.is_branch)
            and one.rms > 0
        ]
        product = math.prod(min(one.ratio / SMALLEST_USUAL, 1.0) for one in small)
        if not small or product > self.product * (1 + 1e-2):
            return
        stall = stall_of(view, flow)
        if stall is None:
            yield self.abstain(
                f"the weights of {names([one.name for one in small])} began small, and too few losses were seen"
            )
            return
        yield self._finding(view, small, product, stall)

    def _finding(self, view: RunView, small: Sequence[Start], product: float, stall: Stall) -> Finding:
        delay = self.short_delay if product <= self.strong else self.delay
        is_late = stall.share >= delay and stall.num_steps >= self.min_steps
        first = small[0]
        curve = loss_curve(view)
        if not stall.is_over:
            words = f"The loss never left its first level, {number(curve.start)}."
        else:
            words = (
                f"The loss stood at its first level for {stall.num_steps} steps."
                if is_late
                else "The loss fell at once."
            )
        positions = positions_of(view, list(small))
        sizes: dict[str, float | str] = {}
        if len(view.buckets) and first.name in positions and small[-1].name in positions:
            rms = view.column("rms")[0]
            sizes = {
                "rms_first": float(rms[positions[first.name]]),
                "rms_last": float(rms[positions[small[-1].name]]),
            }
        also = f" The same holds for {names([one.name for one in small[1:]])}." if len(small) > 1 else ""
        return Finding(
            rule=self.id,
            severity=Severity.WARNING if is_late else Severity.NOTE,
            layer=layer_of(view, first.name),
            first_step=0,
            last_step=view.final_step,
            evidence={
                "gain": first.gain,
                "usual_gain": first.usual,
                "weight_rms": first.rms,
                "num_layers": float(len(small)),
                "layers": ", ".join(f"{one.name} ({number(one.ratio)}x)" for one in small[:20]),
                "product": product,
                "delay_steps": float(stall.num_steps),
                "delay_share": stall.share,
                **{
                    name: value
                    for name, value in sizes.items()
                    if not isinstance(value, float) or math.isfinite(value)
                },
            },
            message=(
                f"The weights of {first.name} began with {number(first.ratio)} of the usual size (root mean square"
                f" {number(first.rms)} with {first.fan_in:.0f} inputs), so hardly anything gets through."
                f" {words}{also}"
            ),
            remedies=(
                *[one.remedy for one in small],
                Remedy("put a normalisation layer behind it", first.name, None, "LayerNorm or BatchNorm"),
            ),
            reference=self.reference,
        )
