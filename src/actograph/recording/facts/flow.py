"""`FlowFacts`: which weight layer feeds which and through what, read once off the graph that autograd has written.

No idea of values. Functions count like modules, as the graph has both. Code that autograd does not see into (compiled, one's
own `torch.autograd.Function`) is of unknown kind. One forward of each model is looked at, and no tensor is kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.autograd.graph import Node

from actograph.hooks.leaves import ROOT_NAME, tensors_of
from actograph.recording.facts.operations import PASSING_WEIGHTS, WEIGHT_OPS, kind_of, op_name
from actograph.runlog.facts import FactKind, FactTable
from actograph.runlog.flow import Kind, WeightLayer

MAX_NODES = 20_000  # of a graph that is looked at: a walk over so many takes about a tenth of a second, once
INPUT = "(input)"


class FlowFacts:
    """Told of models and of what their forwards return."""

    def __init__(self, table: FactTable) -> None:
        self._table = table
        self._waiting: dict[int, str] = {}  # models that are not known yet, by id, with their prefix

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model into account."""
        self._waiting[id(model)] = prefix

    def forget_model(self, key: int) -> None:
        """Let go of a model that is gone."""
        self._waiting.pop(key, None)

    def leave(self, model: nn.Module, output: object, step: int) -> None:
        """Look at the graph of the first forward in training that has one."""
        prefix = self._waiting.get(id(model))
        if prefix is None or not torch.is_grad_enabled() or not model.training:
            return
        ends = [x.grad_fn for _, x in tensors_of(output) if x.grad_fn is not None]
        if not ends:
            return
        del self._waiting[id(model)]
        self._table.look(FactKind.FLOW, step)
        for layer in _in_order(_Walk(_names_of(model)).layers(ends)):
            named = WeightLayer(
                prefix + layer.name,
                layer.op,
                {prefix + name: kinds for name, kinds in layer.sources.items()},
                layer.from_input,
                layer.to_output,
                layer.after,
            )
            self._table.note(FactKind.FLOW, named.name, step, **named.to_data())


@dataclass
class _Found:
    op: str
    inputs: list[Node | None] = field(default_factory=list)  # what comes in besides the weights


@dataclass(frozen=True)
class _Way:
    """What all ways from somewhere up to a place go through; ``nearest`` is what they met last, but for what is linear."""

    kinds: frozenset[Kind] = frozenset()
    nearest: frozenset[Kind] = frozenset()

    def through(self, kind: Kind) -> _Way:
        return _Way(self.kinds | {kind}, self.nearest if kind is Kind.LINEAR else frozenset({kind}))

    def join(self, other: _Way | None) -> _Way:
        return self if other is None else _Way(self.kinds | other.kinds, self.nearest | other.nearest)


class _Walk:
    """One graph, walked from its ends to its beginnings."""

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._is_weight: dict[Node, str | None] = {}
        self._found: dict[str, _Found] = {}
        self._num_nodes = 0

    def layers(self, ends: Sequence[Node]) -> list[WeightLayer]:
        """Return the weight layers; none where the graph is too large."""
        to_output = self._reach(ends)
        reached: dict[str, dict[str, _Way]] = {}
        while missing := [name for name in self._found if name not in reached]:
            for name in missing:
                reached[name] = self._reach(self._found[name].inputs)
        if self._num_nodes > MAX_NODES:
            return []
        all_ways = [to_output, *reached.values()]
        return [
            WeightLayer(
                name,
                found.op,
                {front: way.kinds for front, way in reached[name].items() if front not in (INPUT, name)},
                reached[name][INPUT].kinds if INPUT in reached[name] else None,
                to_output[name].kinds if name in to_output else None,
                frozenset[Kind]().union(*(ways[name].nearest for ways in all_ways if name in ways)),
            )
            for name, found in self._found.items()
        ]

    def _reach(self, starts: Sequence[Node | None]) -> dict[str, _Way]:
        """Return the weight layers that are met first on all ways up, and what lies in between."""
        met: dict[str, _Way] = {}
        seen: dict[Node, _Way] = {}
        queue: list[tuple[Node | None, _Way]] = [(start, _Way()) for start in starts]
        while queue and self._num_nodes <= MAX_NODES:
            node, way = queue.pop()
            if node is None:
                met[INPUT] = way.join(met.get(INPUT))
                continue
            old = seen.get(node)
            if old is not None and way.kinds <= old.kinds and way.nearest <= old.nearest:
                continue
            self._num_nodes += 1
            seen[node] = way = way.join(old)
            name = self._weight_layer(node)
            if name is not None:
                met[name] = way.join(met.get(name))
                continue
            kind, above = self._step(node)
            queue += [(one, way if kind is None else way.through(kind)) for one in above]
        return met

    def _step(self, node: Node) -> tuple[Kind | None, list[Node | None]]:
        """Return what an operation is, and what of its inputs depends on data."""
        inputs = [one for one, _ in node.next_functions]
        if not inputs or _is_parameter(node):
            return None, []
        data = [one for one in inputs if one is not None and self._weight_of(one) is None]
        kind = kind_of(op_name(node), len(data))
        if data:
            return kind, list(data)
        # nothing that needs a gradient comes in but parameters: the model's input, or a constant
        is_open = any(one is None for one in inputs)
        return kind, [None] if is_open else []

    def _weight_layer(self, node: Node) -> str | None:
        """Return the name of the module whose weights this operation takes, and remember what else comes in."""
        op = WEIGHT_OPS.get(op_name(node))
        if op is None:
            return None
        inputs = [one for one, _ in node.next_functions]
        owners = [self._weight_of(one) for one in inputs if one is not None]
        name = next((owner for owner in owners if owner), None)
        if name is None:
            return None
        found = self._found.setdefault(name, _Found(op))
        data = [one for one in inputs if one is not None and self._weight_of(one) is None]
        if op != "embedding":
            found.inputs += data or [None]
        return name

    def _weight_of(self, node: Node) -> str | None:
        """Return whose weights a value is made of, empty where it is other parameters'; None where it is data."""
        if node not in self._is_weight:
            self._is_weight[node] = self._look_for_weight(node)
        return self._is_weight[node]

    def _look_for_weight(self, node: Node) -> str | None:
        if _is_parameter(node):
            return self._names.get(id(node.variable), "")  # type: ignore[attr-defined]
        if op_name(node) not in PASSING_WEIGHTS:
            return None
        above = [None if one is None else self._weight_of(one) for one, _ in node.next_functions]
        if not above or any(one is None for one in above):
            return None
        return next((one for one in above if one), "")


def _is_parameter(node: Node) -> bool:
    return op_name(node) == "AccumulateGrad"


def _names_of(model: nn.Module) -> dict[int, str]:
    """Return the modules' names by id of their matrices and kernels; vectors (gains, biases) are none."""
    return {id(parameter): _owner(name) for name, parameter in model.named_parameters() if parameter.ndim > 1}


def _owner(parameter: str) -> str:
    """Return the module of a parameter; what stands for one (``parametrizations.weight.original0``) is its."""
    before, mark, _ = parameter.partition("parametrizations.")
    module = before.rstrip(".") if mark else parameter.rpartition(".")[0]
    return module or ROOT_NAME


def _in_order(layers: Sequence[WeightLayer]) -> Iterator[WeightLayer]:
    """Yield layers after those they are fed by; in a circle (recurrence) as they come."""
    waiting = list(reversed(layers))
    done: set[str] = set()
    while waiting:
        ready = [one for one in waiting if set(one.sources) <= done] or waiting[:1]
        for one in ready:
            waiting.remove(one)
            done.add(one.name)
            yield one
