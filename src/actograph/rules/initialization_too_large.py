"""The rule `initialization-too-large`: weights of hidden layers that began several times too large.

No idea of the output layer, nor of layers behind which a norm takes the size away.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from actograph.layout.layer import Nonlinearity
from actograph.rules.advice import names, number, percent
from actograph.rules.facts import NO_FLOW, layer_of, unless_looked
from actograph.rules.losses import MIN_BLOCK, loss_curve
from actograph.rules.progress import Excess, base_level, first_loss, wild_start
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.rules.starts import Start, positions_of, starts_of
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow, Kind
from actograph.runlog.view import RunView


@dataclass(frozen=True)
class InitializationTooLarge(Rule):
    """The weights of hidden layers began so large that values grow from layer to layer, or saturate at once.

    The first outputs are wild guesses, the first gradients are huge or, behind tanh and sigmoid, next to nothing.
    """

    id: ClassVar[str] = "initialization-too-large"
    leads_to: ClassVar[tuple[str, ...]] = (
        "labels-misaligned",
        "label-noise",
        "saturated-activations",
        "dead-units",
        "exploding-gradients",
        "vanishing-gradients",
        "learning-rate-too-high",
        "non-finite-loss",
        "missing-normalization",
        "fp16-overflow",
        "head-initialization",
    )
    measured: ClassVar[str] = (
        "The gain of each hidden layer when it was first called: root mean square of its weights times the square root of"
        " its fan-in, in units of the usual one (He's for rectifiers, LeCun's for the rest); and its effect: a first loss"
        " far above ln(number of classes), outputs far larger than they end up, or saturated tanh and sigmoid layers."
    )
    silent_on: ClassVar[str] = (
        "Layers whose output goes through a norm, if the loss comes down well; the output layer (see"
        " head-initialization); large weights that show in"
        " neither loss nor activations (a note); trained weights that are trained further, as their loss is low."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Initialise with He (rectifiers) or Xavier (tanh): standard deviation sqrt(2 / fan-in) or sqrt(1 / fan-in).",
        "Put a normalisation layer behind each weight layer; then their size does not matter.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Glorot, Bengio 2010, Understanding the difficulty of training deep feedforward neural networks",
        "He et al. 2015, Delving deep into rectifiers, section 2.2",
        "Mishkin, Matas 2016, All you need is a good init",
    )

    ratio: float = threshold(
        3.0,
        "times the usual gain",
        "usual schemes give 0.35 to 2, He by fan-out up to 2.8 where a layer narrows by 4",
    )
    loss_ratio: float = threshold(
        2.0, "times ln(number of classes)", "usual starts: 0.98-1.1; He in the head too: 1.4"
    )
    output_ratio: float = threshold(
        3.0, "times the outputs at the end", "regressions at usual starts: 0.05-1"
    )
    flat_share: float = threshold(
        0.5, "share of values", "first step of 24 healthy layers: up to 0.04; with weights x20: 0.67-0.92"
    )

    most: float = threshold(
        0.5, "share of the hidden layers", "our choice: where all that is large is behind norms"
    )
    learned: float = threshold(
        0.4, "of the level of not knowing", "our choice: likewise; a loss below it came down well"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find hidden layers that began too large and show it."""
        flow = Flow.of(view.facts)
        if not len(flow):
            yield from unless_looked(self, view, FactKind.FLOW, NO_FLOW)
            return
        starts = starts_of(view, flow)
        hidden = [one for one in starts if not one.is_head]
        large = [one for one in hidden if one.ratio >= self.ratio]
        free = [one for one in large if not one.is_normalized]
        if not large:
            return
        excess = self._excess(view, flow, free)
        is_normed = any(Kind.NORM in kinds for kinds in flow.between)
        if len(large) >= self.most * len(hidden) and not excess.harm and (is_normed or not free):
            yield self._finding(view, large, self._in_pace(view, flow, large))
        elif free:
            yield self._finding(view, free, excess)

    def _excess(self, view: RunView, flow: Flow, large: Sequence[Start]) -> Excess:
        found = [wild_start(view, flow, self.loss_ratio, self.output_ratio), self._in_saturation(view, large)]
        told = [one for one in found if one.harm]
        evidence: dict[str, float | str] = {}
        for one in found:
            evidence |= one.evidence
        return Excess(" ".join(one.harm for one in told), evidence)

    def _in_pace(self, view: RunView, flow: Flow, large: Sequence[Start]) -> Excess:
        """Look for a training that is slow: next to weights c times as large a step is 1 / c of itself."""
        curve, loss = loss_curve(view), first_loss(view)
        if len(curve) < MIN_BLOCK or loss is None:
            return Excess("", {})
        level = base_level(view, flow, loss)
        pace = math.prod(one.ratio for one in large) ** (-1 / len(large))
        words = (
            "Norms take the size of what they give away, but next to such weights each step is"
            f" {number(pace)} of what it would be, or less: the loss was still {number(curve.final)} at the end."
        )
        evidence: dict[str, float | str] = {"pace": pace, "level_of_not_knowing": level}
        return Excess(words if curve.final > self.learned * level else "", evidence)

    def _in_saturation(self, view: RunView, large: Sequence[Start]) -> Excess:
        """Look at the first row of saturating layers right behind the large ones."""
        if not len(view.buckets) or view.first_steps[0] > 0:
            return Excess("", {})
        flat = view.column("flat")[0]
        for position in positions_of(view, list(large)).values():
            behind = position + 1
            if behind >= len(view.layers):
                continue
            info = view.layers[behind]
            is_saturating = info.flat is not None and info.flat.nonlinearity is Nonlinearity.SATURATING
            if is_saturating and flat[behind] >= self.flat_share:
                share = float(flat[behind])
                words = (
                    f"At the first step {percent(share)} of the outputs of {info.name} lay in its flat ends."
                )
                return Excess(words, {"flat_share_at_first": share, "flat_layer": info.name})
        return Excess("", {})

    def _finding(self, view: RunView, large: Sequence[Start], excess: Excess) -> Finding:
        first = large[0]
        curve = loss_curve(view)
        course = (
            f" The loss went from {number(float(curve.values[0]))} to {number(curve.final)}."
            if len(curve) >= MIN_BLOCK
            else ""
        )
        taken = "" if first.is_normalized else ", and nothing takes their size away again"
        harm = f" {excess.harm}" if excess.harm else " Neither loss nor activations show harm of it."
        also = f" The same holds for {names([one.name for one in large[1:]])}." if len(large) > 1 else ""
        return Finding(
            rule=self.id,
            severity=Severity.WARNING if excess.harm else Severity.NOTE,
            layer=layer_of(view, first.name),
            first_step=0,
            last_step=view.final_step,
            evidence={
                "gain": first.gain,
                "usual_gain": first.usual,
                "weight_rms": first.rms,
                "num_layers": float(len(large)),
                "layers": ", ".join(f"{one.name} ({number(one.ratio)}x)" for one in large[:20]),
                **excess.evidence,
            },
            message=(
                f"The weights of {first.name} began {number(first.ratio)} times as large as usual (root mean square"
                f" {number(first.rms)} with {first.fan_in:.0f} inputs){taken}."
                f"{harm}{course}{also}"
            ),
            remedies=(
                *[one.remedy for one in large],
                Remedy("put a normalisation layer behind it", first.name, None, "LayerNorm or BatchNorm"),
            ),
            reference=self.reference,
        )
