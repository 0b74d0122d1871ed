"""`Start`: how large each weight layer's weights were at the start, and how large they should have been.

No idea of any particular rule. The gain of a layer is the root mean square of its weights times the square root of its
fan-in: about what it multiplies the size of its inputs with. He's initialization has a gain of sqrt(2) for rectifiers
(He et al. 2015), LeCun's and Xavier's about 1 (Glorot, Bengio 2010), torch's default 1 / sqrt(3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from actograph.rules.facts import layer_of
from actograph.rules.rule import Remedy
from actograph.runlog.facts import Fact, FactKind
from actograph.runlog.flow import NONLINEAR, Flow, Kind, WeightLayer
from actograph.runlog.view import RunView

HE, LECUN = math.sqrt(2.0), 1.0  # gains for rectifiers and for the rest
DEFAULT = 1.0 / math.sqrt(3.0)  # torch's: uniform within 1 / sqrt(fan-in)
RECURRENT = "weight_hh"  # of a recurrent layer, the weights that act again and again


@dataclass(frozen=True)
class Start:
    """One weight layer and its weights as the first forward found them."""

    layer: WeightLayer
    fact: Fact
    is_head: bool
    is_rectified: bool  # a rectifier or its like comes next
    is_normalized: bool  # a norm takes the size of what it gives away
    is_branch: (
        bool  # what it gives is added to something else, at once or behind further layers, or gates something
    )

    @property
    def name(self) -> str:
        """The module's name."""
        return self.layer.name

    @property
    def rms(self) -> float:
        """Root mean square of the weights."""
        return self.fact.number("rms")

    @property
    def fan_in(self) -> float:
        """How many inputs each unit sums up."""
        return max(self.fact.number("fan_in"), 1.0)

    @property
    def gain(self) -> float:
        """What the layer multiplies the size of its inputs with, about."""
        return self.rms * math.sqrt(self.fan_in)

    @property
    def usual(self) -> float:
        """The gain that keeps the size."""
        return HE if self.is_rectified else LECUN

    @property
    def ratio(self) -> float:
        """The gain, in units of the usual one."""
        return self.gain / self.usual

    @property
    def remedy(self) -> Remedy:
        """Weights of the usual size."""
        scheme = "He" if self.is_rectified else "LeCun or Xavier"
        gain = DEFAULT if self.is_head else self.usual
        scheme = "torch's default" if self.is_head else scheme
        return Remedy(
            f"initialise the weights with this standard deviation ({scheme})",
            self.fact.subject,
            self.rms,
            gain / math.sqrt(self.fan_in),
        )


def starts_of(view: RunView, flow: Flow) -> list[Start]:
    """Return the weight layers whose weights were measured, in the order of the flow."""
    facts = view.facts.of(FactKind.SCALE)
    heads = {head.name for head in flow.heads}
    found = []
    for layer in flow.layers:
        fact = _fact_of(layer, facts)
        if fact is None or layer.op == "embedding":
            continue
        found.append(
            Start(
                layer=layer,
                fact=fact,
                is_head=layer.name in heads,
                is_rectified=bool(layer.after & {Kind.ACTIVATION, Kind.MAX_POOL}),
                is_normalized=layer.is_normalized,
                is_branch=any(one.after & {Kind.MERGE, Kind.PRODUCT} for one in flow.from_on(layer.name)),
            )
        )
    return found


def positions_of(view: RunView, starts: list[Start]) -> dict[str, int]:
    """Return where the layers stand among those whose outputs were recorded."""
    known = {info.name: position for position, info in enumerate(view.layers)}
    found = {start.name: layer_of(view, start.name) for start in starts}
    return {name: known[layer] for name, layer in found.items() if layer is not None and layer in known}


def has_nonlinearity(kinds: frozenset[Kind]) -> bool:
    """Tell whether there is any on the way."""
    return bool(kinds & NONLINEAR)


def _fact_of(layer: WeightLayer, facts: tuple[Fact, ...]) -> Fact | None:
    own = [
        fact for fact in facts if fact.subject.rpartition(".")[0] == layer.name and fact.data.get("fan_in")
    ]
    again = [fact for fact in own if RECURRENT in fact.subject]
    return next(iter([*again, *own]), None)
