"""The rule `softmax-in-hidden-layer`: a softmax used as the nonlinearity between two weight layers.

No idea of attention or gates, where a softmax weighs other values: the graph shows which it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from actograph.rules.advice import names, number
from actograph.rules.facts import NO_FLOW, layer_of, unless_looked
from actograph.rules.losses import MIN_BLOCK, LossCurve, loss_curve
from actograph.rules.progress import Stall, held_up, stall_of
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import Flow, Kind
from actograph.runlog.view import RunView

HARMLESS_BETWEEN = frozenset({Kind.LINEAR, Kind.NORM, Kind.SOFTMAX})


class Place(NamedTuple):
    """A softmax between two weight layers, by the recorded layer it is, if it is one."""

    front: str
    back: str
    layer: str | None


@dataclass(frozen=True)
class SoftmaxInHiddenLayer(Rule):
    """A softmax stands where a hidden layer's activation belongs: its units share a sum of 1, so hardly anything"
    " gets through.

    With n units each gives about 1/n, whatever the input; gradients shrink as much at every such layer.
    """

    id: ClassVar[str] = "softmax-in-hidden-layer"
    leads_to: ClassVar[tuple[str, ...]] = (
        "labels-misaligned",
        "vanishing-gradients",
        "learning-rate-too-low",
        "initialization-too-small",
    )
    measured: ClassVar[str] = (
        "The graph of one training forward: nothing but a softmax (views, dropout, a norm) lies between a layer with weights"
        " and the next one. It is a warning where the loss stood at its first level for a while or did not come down well."
    )
    silent_on: ClassVar[str] = (
        "Attention, gates, mixtures of experts: there a softmax multiplies other values; the output layer; a softmax in"
        " front of a matrix that is no layer (a codebook); a network that learns well with it (a note)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Use ReLU or GELU in hidden layers; a softmax belongs behind the last layer, and torch's cross-entropy has it.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Braiek and Khomh 2023, TheDeepChecker (wrong activation); Nikanjam et al. 2021, NeuraLint",
    )

    delay: float = threshold(
        0.15, "share of the run", "healthy runs leave the first level of the loss in 1-9 %"
    )
    learned: float = threshold(
        0.8, "share of the loss at the start", "our choice: strict, as the layer is certainly wrong"
    )

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find softmaxes in hidden layers."""
        flow = Flow.of(view.facts)
        if not len(flow):
            yield from unless_looked(self, view, FactKind.FLOW, NO_FLOW)
            return
        places = list(self._places(view, flow))
        if places:
            yield self._finding(view, flow, places)

    def _places(self, view: RunView, flow: Flow) -> Iterator[Place]:
        by_name = {layer.name: layer for layer in flow.layers}
        names_of_modules = [
            info.name for info in view.layers if info.kind in ("Softmax", "functional softmax")
        ]
        for back in flow.layers:
            if back.op not in ("linear", "convolution", "recurrent") or layer_of(view, back.name) is None:
                continue
            for name, kinds in back.sources.items():
                front = by_name.get(name)
                if front is None or Kind.SOFTMAX not in kinds or not kinds <= HARMLESS_BETWEEN:
                    continue
                yield Place(name, back.name, _between(view, name, back.name, names_of_modules))

    def _finding(self, view: RunView, flow: Flow, places: Sequence[Place]) -> Finding:
        first = places[0]
        curve, stall = loss_curve(view), stall_of(view, flow)
        harm = self._harm(view, flow, curve, stall)
        where = first.layer or f"the softmax behind {first.front}"
        also = (
            f" The same holds behind {names([one.front for one in places[1:]])}." if len(places) > 1 else ""
        )
        evidence: dict[str, float | str] = {
            "num_places": float(len(places)),
            "places": ", ".join(f"{one.front} -> softmax -> {one.back}" for one in places[:20]),
        }
        position = _position(view, first.layer)
        if position is not None and len(view.buckets):
            std = float(view.column("std")[0, position])
            if np.isfinite(std):
                evidence |= {"std_at_first": std, "units": float(view.layers[position].num_units)}
        if len(curve) >= MIN_BLOCK:
            evidence |= {"loss_at_start": float(curve.values[0]), "loss_at_end": curve.final}
        course = (
            f" The loss went from {number(float(curve.values[0]))} to {number(curve.final)}."
            if len(curve) >= MIN_BLOCK
            else ""
        )
        return Finding(
            rule=self.id,
            severity=Severity.WARNING if harm else Severity.NOTE,
            layer=first.layer or layer_of(view, first.front),
            first_step=0,
            last_step=view.final_step,
            evidence=evidence,
            message=(
                f"{where[0].upper() + where[1:] if first.layer is None else where} is the activation of a hidden"
                f" layer, between"
                f" {first.front} and {first.back}. Its outputs add up to 1, so each is about 1 / width whatever the"
                f" input, and"
                f" hardly any gradient gets through.{course}{also}"
            ),
            remedies=tuple(
                Remedy(
                    "use another activation in this hidden layer", one.layer or one.front, "Softmax", "ReLU"
                )
                for one in places
            ),
            reference=self.reference,
        )

    def _harm(self, view: RunView, flow: Flow, curve: LossCurve, stall: Stall | None) -> bool:
        if len(curve) < MIN_BLOCK:
            return False
        is_late = stall is not None and held_up(view, flow, stall, self.delay)
        return is_late or curve.start - curve.final < self.learned * abs(curve.start)


def _between(view: RunView, front: str, back: str, softmaxes: Sequence[str]) -> str | None:
    """Return the recorded softmax that comes after one layer and before the other in forward order."""
    order = {info.name: position for position, info in enumerate(view.layers)}
    begin, end = order.get(layer_of(view, front) or "", -1), order.get(layer_of(view, back) or "", len(order))
    return next((name for name in softmaxes if begin < order[name] < end), None)


def _position(view: RunView, name: str | None) -> int | None:
    return next((position for position, info in enumerate(view.layers) if info.name == name), None)
