"""`CutFacts`: where the graph is cut, once parameters with an optimizer are found without gradients.

No idea of optimizers. It costs nothing while all parameters get gradients; when some do not, one forward of their model is
looked at call by call, then no more. A head whose output is not used is no cut; nor is a second input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actograph.hooks.leaves import leaf_modules, tensors_of
from actograph.runlog.facts import FactKind, FactTable


@dataclass(frozen=True)
class _Call:
    """One call of a leaf: what came in and went out, by address of its storage, and whether a graph was written."""

    name: str
    module: nn.Module
    is_graph_on: bool
    comes_in: frozenset[int]
    is_input_in_graph: bool
    goes_out: frozenset[int]
    is_output_in_graph: bool


@dataclass
class _Search:
    """What is looked for in the next forward of a model."""

    missing: frozenset[int]  # ids of parameters without a gradient
    since: int


class CutFacts:
    """Told of parameters without gradients and of forwards."""

    def __init__(self, table: FactTable) -> None:
        self._table = table
        self._prefixes: dict[int, str] = {}
        self._searches: dict[int, _Search] = {}
        self._searched: dict[int, frozenset[int]] = {}
        self._handles: list[RemovableHandle] = []
        self._calls: list[_Call] = []
        self._inputs: frozenset[int] = frozenset()

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model into account."""
        self._prefixes[id(model)] = prefix

    def forget_model(self, key: int) -> None:
        """Let go of a model that is gone."""
        for table in (self._prefixes, self._searches, self._searched):
            table.pop(key, None)

    def look_for(self, key: int, missing: Sequence[Tensor], step: int) -> None:
        """Look into the next forward of a model, by id: since ``step`` these parameters have no gradients."""
        ids = frozenset(id(p) for p in missing)
        if key in self._prefixes and self._searched.get(key) != ids:
            self._searched[key] = ids
            self._searches[key] = _Search(ids, step)

    def enter(self, model: nn.Module, inputs: object) -> None:
        """Begin to look, if that was asked for."""
        if id(model) in self._searches and torch.is_grad_enabled():
            self._inputs = _addresses(inputs)
            self._calls = []
            for name, leaf in leaf_modules(model).items():
                self._handles.append(leaf.register_forward_hook(_LeafHook(self._calls, name)))

    def leave(self, model: nn.Module) -> None:
        """Conclude."""
        if not self._handles:
            return
        self.forget()
        search = self._searches.pop(id(model), None)
        if search is None:
            return
        for call, before, way in _cuts(self._calls, search.missing, self._inputs):
            prefix = self._prefixes[id(model)]
            self._table.note(
                FactKind.CUT_GRAPH, prefix + call.name, search.since, before=prefix + before.name, way=way
            )
        self._calls = []

    def forget(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self._handles = []


class _LeafHook:
    __slots__ = ("_calls", "_name")

    def __init__(self, calls: list[_Call], name: str) -> None:
        self._calls = calls
        self._name = name

    def __call__(self, module: nn.Module, args: tuple[Any, ...], output: object) -> None:
        inputs, outputs = list(tensors_of(args)), list(tensors_of(output))
        self._calls.append(
            _Call(
                self._name,
                module,
                torch.is_grad_enabled(),
                _addresses(args),
                any(tensor.requires_grad for _, tensor in inputs),
                _addresses(output),
                any(tensor.requires_grad for _, tensor in outputs),
            )
        )


def _cuts(
    calls: Sequence[_Call], missing: frozenset[int], inputs: frozenset[int]
) -> Iterator[tuple[_Call, _Call, str]]:
    """Yield the last call before a cut, the first one behind it, and how it is cut."""
    without = [call for call in calls if any(id(p) in missing for p in call.module.parameters())]
    behind = [
        call
        for call in calls
        if any(p.requires_grad and id(p) not in missing for p in call.module.parameters())
        and call.is_output_in_graph
    ]
    if not without or not behind:
        return
    outside = [call for call in without if not call.is_graph_on]
    if outside:
        last = calls.index(outside[-1])
        after = next((call for call in behind if calls.index(call) > last), None)
        if after is not None:
            yield outside[-1], after, "no_grad"
            return
    for call in calls:
        if call.is_input_in_graph or not call.comes_in:
            continue
        sources = [
            one
            for one in calls[: calls.index(call)]
            if one.is_output_in_graph and one.goes_out & call.comes_in
        ]
        before = [one for one in without if sources and calls.index(one) <= calls.index(sources[-1])]
        if (before and call in behind) or (before and _is_before(call, behind, calls)):
            yield sources[-1], call, "detach"
            return
    first = calls.index(behind[0])
    is_prefix = all(calls.index(call) < first for call in without)
    if (
        is_prefix
        and not behind[0].is_input_in_graph
        and behind[0].comes_in
        and not behind[0].comes_in & inputs
    ):
        yield without[-1], behind[0], "detach"


def _is_before(call: _Call, behind: Sequence[_Call], calls: Sequence[_Call]) -> bool:
    """Tell whether a layer without parameters, such as an activation, leads to one that gets gradients."""
    return any(calls.index(one) > calls.index(call) for one in behind)


def _addresses(value: object) -> frozenset[int]:
    return frozenset(
        tensor.untyped_storage().data_ptr()
        for _, tensor in tensors_of(value)
        if tensor.layout is torch.strided and not tensor.is_meta and tensor.numel()
    )
