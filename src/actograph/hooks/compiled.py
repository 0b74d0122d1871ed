"""Operators that hooks leave in compiled code, and that call them back, in order, whenever that code runs.

No idea of what is measured. A compiler sees an opaque operator that writes to a tensor of one number, ``turn``: so it keeps
all of them, in their order, once for each run of the forward, and never repeats one when it recomputes a forward for the
backward. Everything that can differ between two steps (is this one measured, which call of the module is it, has the
recorder gone) is decided by the hook when the operator runs, so nothing here has to be compiled again.

Hooks are told apart by the number in a tensor: as a Python number it would be a constant of the compiled code, and blocks of
one kind could not share it.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Protocol
from weakref import WeakValueDictionary

import torch
from torch import Tensor

from actograph.hooks.leaves import tensors_of


class Forwards(Protocol):
    """The hooks of a model."""

    def enter(self) -> None:
        """Open a forward."""

    def leave(self) -> None:
        """Close a forward."""


class Leaf(Protocol):
    """The hook of one module."""

    def observe_input(self, x: Tensor, /) -> None:
        """See the first argument of the call that is about to come."""

    def observe_compiled(self, tensors: Sequence[Tensor], paths: Sequence[str], /) -> None:
        """See the tensors that a call has returned."""


# What operators find by number. Operators are global: a hook cannot be handed to one.
_NUMBERS = itertools.count(1)
_FORWARDS = WeakValueDictionary[int, Forwards]()
_LEAVES = WeakValueDictionary[int, Leaf]()


def register_forwards(hooks: Forwards) -> Tensor:
    """Return the tensor (1,) by which operators find a model's hooks as long as they live."""
    number = next(_NUMBERS)
    _FORWARDS[number] = hooks
    return _as_tensor(number)


def register_leaf(leaf: Leaf) -> Tensor:
    """Return the tensor (1,) by which operators find a module's hook as long as it lives."""
    number = next(_NUMBERS)
    _LEAVES[number] = leaf
    return _as_tensor(number)


def _as_tensor(number: int) -> Tensor:
    # on the host whatever the default device, and writable outside of inference mode
    with torch.inference_mode(mode=False):
        return torch.tensor([number], dtype=torch.int64, device="cpu")


def num_graphs() -> int:
    """Return how many graphs torch has compiled in this process."""
    utils = sys.modules.get("torch._dynamo.utils")  # importing it takes seconds
    return 0 if utils is None else int(utils.counters["stats"]["unique_graphs"])


def forget_graphs(num_known: int) -> None:
    """Have everything compiled again, on its next call, if more than so many graphs were compiled.

    Compiled code does not ask whether a module without hooks has got some. Torch offers no way to forget less.
    """
    if num_graphs() != num_known:
        torch.compiler.reset()


# What hooks call while a compiler traces them. A graph that is exported belongs to somebody else: nothing is left in it.


def enter(turn: Tensor) -> None:
    """Leave an operator that opens a forward of the model."""
    if not torch.compiler.is_exporting():
        torch.ops.actograph.enter(turn, torch.is_grad_enabled())


def leave(turn: Tensor) -> None:
    """Leave an operator that closes a forward of the model."""
    if not torch.compiler.is_exporting():
        torch.ops.actograph.leave(turn)


def given(turn: Tensor, leaf: Tensor, x: Tensor) -> None:
    """Leave an operator that shows a module's input to its hook."""
    if not torch.compiler.is_exporting():
        torch.ops.actograph.given(turn, leaf, x.detach(), torch.is_grad_enabled())


def outputs(turn: Tensor, leaf: Tensor, output: object) -> None:
    """Leave an operator that shows the tensors of a module's (nested) output to its hook."""
    if torch.compiler.is_exporting():
        return
    named = list(tensors_of(output))
    if named:
        tensors, paths = [tensor.detach() for _, tensor in named], [path for path, _ in named]
        torch.ops.actograph.outputs(turn, leaf, tensors, paths, torch.is_grad_enabled())


# The operators. Compiled code runs with gradients off; whether they were on where it was called is known when it is traced.


def _run_enter(turn: Tensor, grad: bool) -> None:  # noqa: FBT001  positional in the schema
    hooks = _FORWARDS.get(int(turn))
    if hooks is not None:
        with torch.set_grad_enabled(grad):
            hooks.enter()


def _run_leave(turn: Tensor) -> None:
    hooks = _FORWARDS.get(int(turn))
    if hooks is not None:
        hooks.leave()


def _run_given(turn: Tensor, leaf: Tensor, x: Tensor, grad: bool) -> None:  # noqa: FBT001
    hook = _LEAVES.get(int(leaf))
    if hook is not None:
        with torch.set_grad_enabled(grad):
            hook.observe_input(x)


def _run_outputs(turn: Tensor, leaf: Tensor, tensors: list[Tensor], paths: list[str], grad: bool) -> None:  # noqa: FBT001
    hook = _LEAVES.get(int(leaf))
    if hook is not None:
        with torch.set_grad_enabled(grad):
            hook.observe_compiled(tensors, paths)


def _run_nothing(*_: object) -> None:
    pass


_LIBRARY = torch.library.Library("actograph", "DEF")  # type: ignore[no-untyped-call]
_OPERATORS = {
    "enter(Tensor(a!) turn, bool grad) -> ()": _run_enter,
    "leave(Tensor(a!) turn) -> ()": _run_leave,
    "given(Tensor(a!) turn, Tensor leaf, Tensor x, bool grad) -> ()": _run_given,
    "outputs(Tensor(a!) turn, Tensor leaf, Tensor[] tensors, str[] paths, bool grad) -> ()": _run_outputs,
}


def _define_operators() -> None:
    tags = (
        torch.Tag.pt2_compliant_tag,
        torch.Tag.flexible_layout,
    )  # any strides will do: copy nothing for us
    for schema, run in _OPERATORS.items():
        name = _LIBRARY.define(schema, tags=tags)  # type: ignore[no-untyped-call]
        _LIBRARY.impl(name, run, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]
        _LIBRARY.impl(name, _run_nothing, "Meta")  # type: ignore[no-untyped-call]  # what a tracer runs


_define_operators()
