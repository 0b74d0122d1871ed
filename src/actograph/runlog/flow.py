"""`Flow`: which weight layer feeds which, and what lies in between, as a run's facts tell it.

No idea of torch. Weight layers are modules with a matrix or kernel (linear, convolution, recurrent); everything else is what
an edge goes through, told by its `Kind`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from actograph.runlog.facts import Fact, FactKind, FactView, Value

OUTPUT = ""  # the consumer that stands for the model's output


class Kind(StrEnum):
    """What an operation between two weight layers is."""

    LINEAR = (
        "linear"  # views, means, dropout, padding, scaling by constants or parameters: affine in its input
    )
    NORM = "norm"  # batch, layer, group, RMS norm
    ACTIVATION = "activation"  # a nonlinearity of each value for itself, unbounded
    SATURATING = "saturating"  # sigmoid, tanh and their like
    SOFTMAX = "softmax"
    MAX_POOL = "max pool"
    MERGE = "merge"  # a sum or concatenation of two values that both depend on the input: shortcuts
    PRODUCT = "product"  # of two such values: gates, attention
    UNKNOWN = "unknown"  # may be anything


NONLINEAR = frozenset(
    {Kind.ACTIVATION, Kind.SATURATING, Kind.SOFTMAX, Kind.MAX_POOL, Kind.PRODUCT, Kind.UNKNOWN}
)


@dataclass(frozen=True)
class WeightLayer:
    """One weight layer: ``sources`` are those whose outputs reach it with no other in between, and through what.

    ``to_output`` is what lies between it and the model's output; None where another weight layer comes first always.
    """

    name: str
    op: str  # "linear", "convolution", "recurrent" or "embedding"
    sources: Mapping[str, frozenset[Kind]] = field(default_factory=dict)
    from_input: frozenset[Kind] | None = None  # through what the model's input comes in, None: it does not
    to_output: frozenset[Kind] | None = None
    after: frozenset[Kind] = frozenset()  # what its output meets first on all ways, but for what is linear

    @property
    def is_normalized(self) -> bool:
        """Whether a norm takes the size of its output away before anything else depends on it."""
        return self.after == {Kind.NORM}

    def to_data(self) -> dict[str, Value]:
        """Return the data of a fact."""
        return {
            "op": self.op,
            "sources": json.dumps({name: sorted(kinds) for name, kinds in self.sources.items()}),
            "from_input": _written(self.from_input),
            "to_output": _written(self.to_output),
            "after": _written(self.after),
        }

    @classmethod
    def from_fact(cls, fact: Fact) -> WeightLayer:
        """Undo `to_data`."""
        sources = {name: _kinds(kinds) for name, kinds in json.loads(fact.text("sources") or "{}").items()}
        ends = _read(fact.text("from_input")), _read(fact.text("to_output"))
        after = _read(fact.text("after")) or frozenset()
        return cls(fact.subject, fact.text("op"), sources, *ends, after)


@dataclass(frozen=True)
class Flow:
    """The weight layers of a run's models, those in front first."""

    layers: tuple[WeightLayer, ...] = ()

    @classmethod
    def of(cls, facts: FactView) -> Flow:
        """Read it from a run's facts; empty where it was not seen."""
        return cls(tuple(WeightLayer.from_fact(fact) for fact in facts.of(FactKind.FLOW)))

    def __len__(self) -> int:
        return len(self.layers)

    def consumers(self, name: str) -> dict[str, frozenset[Kind]]:
        """Return who takes a layer's output, `OUTPUT` for the model's own, and through what."""
        found = {layer.name: layer.sources[name] for layer in self.layers if name in layer.sources}
        own = next((layer.to_output for layer in self.layers if layer.name == name), None)
        return found if own is None else {**found, OUTPUT: own}

    @property
    def heads(self) -> tuple[WeightLayer, ...]:
        """The layers that make the model's output: nobody else takes theirs."""
        return tuple(
            layer
            for layer in self.layers
            if layer.to_output is not None and set(self.consumers(layer.name)) == {OUTPUT}
        )

    @property
    def between(self) -> list[frozenset[Kind]]:
        """What lies between each two layers of which one feeds the other."""
        return [kinds for layer in self.layers for kinds in layer.sources.values()]

    def from_on(self, name: str) -> list[WeightLayer]:
        """Return a layer and all that depend on it."""
        reached = {name}
        for layer in self.layers:  # those in front come first
            if reached & set(layer.sources):
                reached.add(layer.name)
        return [layer for layer in self.layers if layer.name in reached]

    def chain_to(self, name: str) -> list[str]:
        """Return the layers that lead to one in a single file, front first, itself last: each has one source."""
        by_name = {layer.name: layer for layer in self.layers}
        chain = [name]
        while chain[0] in by_name and len(by_name[chain[0]].sources) == 1:
            (front,) = by_name[chain[0]].sources
            if front in chain:
                break
            chain.insert(0, front)
        return chain


def _written(kinds: Iterable[Kind] | None) -> str:
    return "" if kinds is None else json.dumps(sorted(kinds))


def _read(text: str) -> frozenset[Kind] | None:
    return _kinds(json.loads(text)) if text else None


def _kinds(names: Iterable[str]) -> frozenset[Kind]:
    return frozenset(Kind(name) for name in names)
