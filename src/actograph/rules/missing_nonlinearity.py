"""The rule `missing-nonlinearity`: weight layers with nothing nonlinear in between, which are one linear map together.

No idea of values: the graph that autograd has written shows what lies between two layers.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from actograph.rules.advice import names, number
from actograph.rules.facts import NO_FLOW, layer_of, unless_looked
from actograph.rules.losses import MIN_BLOCK, loss_curve
from actograph.rules.progress import base_level
from actograph.rules.rule import Abstention, Finding, Remedy, Rule, Severity, threshold
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import NONLINEAR, Flow, Kind, WeightLayer
from actograph.runlog.view import RunView

HARMLESS_BETWEEN = frozenset({Kind.LINEAR, Kind.NORM, Kind.MAX_POOL})


ELEMENTWISE = frozenset({Kind.ACTIVATION, Kind.SATURATING, Kind.SOFTMAX, Kind.PRODUCT, Kind.UNKNOWN})


class Pair(NamedTuple):
    """Two layers of which the second takes what the first gives, and nobody else does."""

    front: WeightLayer
    back: WeightLayer
    kinds: frozenset[Kind]


@dataclass(frozen=True)
class MissingNonlinearity(Rule):
    """A layer with weights feeds the next one with no nonlinearity in between: two linear maps in a row are one.

    The layers cost time and memory and can express no more than a single one.
    """

    id: ClassVar[str] = "missing-nonlinearity"
    leads_to: ClassVar[tuple[str, ...]] = (
        "label-noise",
        "labels-misaligned",
    )  # what one linear map cannot tell apart
    measured: ClassVar[str] = (
        "The graph of one training forward: all that lies between a linear or convolution layer and the next one (views,"
        " means, dropout, norms, pooling). Nobody else takes the first one's output, and nothing else comes into the"
        " second one. It is a warning where the loss still has something to gain at the end."
    )
    silent_on: ClassVar[str] = (
        "Bottlenecks that factorise a map on purpose (the middle is narrower than both ends), convolutions taken"
        " apart (depthwise,"
        " rows and columns), shortcuts, attention's projections, recurrent layers, embeddings, functions that"
        " autograd does not look into; any"
        " function of values in between, as a module or not; a loss that came near 0 and a minority of places (notes)."
    )
    advice: ClassVar[tuple[str, ...]] = (
        "Put ReLU or GELU between the layers.",
        "If no nonlinearity is meant, leave one of the two layers out.",
    )
    sources: ClassVar[tuple[str, ...]] = (
        "Goodfellow et al. 2016, Deep Learning, section 6.1; Schoop et al. 2021, UMLAUT (linear hidden layer)",
    )

    near_zero: float = threshold(
        0.02,
        "of the level of not knowing",
        "our choice: below it there is nothing that a nonlinearity could still gain",
    )

    share: float = threshold(
        0.5, "share of the places", "our choice: a single missing one may be meant, as before a head"
    )
    min_steps: float = threshold(50.0, "steps with a loss", "our choice: ten blocks of five")

    def check(self, view: RunView) -> Iterator[Finding | Abstention]:
        """Find pairs of layers that are one linear map."""
        flow = Flow.of(view.facts)
        if not len(flow):
            yield from unless_looked(self, view, FactKind.FLOW, NO_FLOW)
            return
        pairs = list(self._pairs(view, flow))
        if pairs:
            yield self._finding(view, flow, pairs)

    def _pairs(self, view: RunView, flow: Flow) -> Iterator[Pair]:
        by_name = {layer.name: layer for layer in flow.layers}
        for back in flow.layers:
            if (
                len(back.sources) != 1
                or back.op not in ("linear", "convolution")
                or back.from_input is not None
            ):
                continue
            ((name, kinds),) = back.sources.items()
            front = by_name.get(name)
            if front is None or front.op not in ("linear", "convolution") or not kinds <= HARMLESS_BETWEEN:
                continue
            projects = Kind.PRODUCT in back.after or any(
                Kind.PRODUCT in one for one in front.sources.values()
            )
            alone = not projects and set(flow.consumers(name)) == {back.name}
            if alone and not _is_meant(view, front, back):
                yield Pair(front, back, kinds)

    def _finding(self, view: RunView, flow: Flow, pairs: Sequence[Pair]) -> Finding:
        first = pairs[0]
        is_all = not any(
            kinds & NONLINEAR - {Kind.MAX_POOL} for layer in flow.layers for kinds in layer.sources.values()
        )
        curve = loss_curve(view)
        has_pool = Kind.MAX_POOL in first.kinds
        between = " but a max pooling" if has_pool else ""
        is_done = len(curve) >= MIN_BLOCK and curve.final <= self.near_zero * abs(
            base_level(view, flow, float(curve.values[0]))
        )
        with_one = sum(bool(kinds & ELEMENTWISE) for layer in flow.layers for kinds in layer.sources.values())
        is_most = len(pairs) > self.share * (len(pairs) + with_one)
        is_harmful = len(curve) >= self.min_steps and not is_done and is_most
        rest = [f"{pair.front.name} and {pair.back.name}" for pair in pairs[1:]]
        also = f" The same holds between {names(rest)}." if rest else ""
        whole = (
            " No two layers of this network have one: it is a linear model."
            if is_all and not has_pool
            else ""
        )
        evidence: dict[str, float | str] = {
            "num_pairs": float(len(pairs)),
            "pairs": ", ".join(f"{pair.front.name} -> {pair.back.name}" for pair in pairs[:20]),
            "between": ", ".join(sorted(first.kinds)) or "nothing",
        }
        if len(curve) >= MIN_BLOCK:
            evidence |= {"loss_at_start": float(curve.values[0]), "loss_at_end": curve.final}
        course = (
            f" The loss went from {number(float(curve.values[0]))} to {number(curve.final)}."
            if is_harmful
            else ""
        )
        return Finding(
            rule=self.id,
            severity=Severity.WARNING if is_harmful else Severity.NOTE,
            layer=layer_of(view, first.front.name),
            first_step=0,
            last_step=view.final_step,
            evidence=evidence,
            message=(
                f"Nothing nonlinear{between} lies between {first.front.name} and {first.back.name}: two linear maps in a row"
                f" are one, so the second layer adds nothing that the first could not do.{whole}{course}{also}"
            ),
            remedies=(
                *[Remedy("put a nonlinearity behind it", pair.front.name, None, "ReLU") for pair in pairs],
                Remedy("leave it out, if no nonlinearity is meant", first.back.name),
            ),
            reference=self.reference,
        )


def _shape(view: RunView, layer: WeightLayer) -> tuple[int, ...]:
    """Return the shape of a layer's weights, empty where it is not known."""
    for fact in view.facts.of(FactKind.SCALE):
        if fact.subject.rpartition(".")[0] == layer.name and fact.text("shape"):
            found = ast.literal_eval(fact.text("shape"))
            return found if isinstance(found, tuple) else ()
    return ()


def _is_meant(view: RunView, front: WeightLayer, back: WeightLayer) -> bool:
    """Tell whether two layers in a row are together something that one could not be.

    A map of low rank, whose middle is narrower than both ends, or a convolution taken apart: channel by channel, row by row.
    """
    first, second = _shape(view, front), _shape(view, back)  # (out, in, ...)
    if not first or not second:
        return True  # not known: no word
    is_low_rank = first[0] < min(first[1], second[0])
    takes_apart = (bool(front.sources) and _is_depthwise(first)) or (
        _is_kernel(second) and second[1] < first[0]
    )
    return is_low_rank or takes_apart or any(len(set(shape[2:])) > 1 for shape in (first, second))


def _is_depthwise(shape: tuple[int, ...]) -> bool:
    return _is_kernel(shape) and shape[1] == 1 and shape[0] > 1


def _is_kernel(shape: tuple[int, ...]) -> bool:
    return len(shape[2:]) > 0
