"""`LayerHooks`: forward hooks on the leaves of one model that write rows into a block.

No idea of steps, files or training. Whether a forward is measured is asked of ``gate`` once, at the outermost forward;
the hooks themselves stay where they are. They add nothing to a copy of the model: in a deepcopy or a pickle a hook turns
into a function that does nothing.

The gradient by an output is seen by a hook on that tensor, which goes with the graph. It belongs to the value that the
module returned, also where a later module changes the tensor in place. A forward that autograd runs inside a backward
(activation checkpointing) repeats one that was measured: only gradients are taken from it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actograph.hooks.channels import ChannelAxes
from actograph.hooks.flat_region import flat_region
from actograph.hooks.leaves import Select, leaf_modules, tensors_of
from actograph.hooks.lineage import Kinship, Lineage, kinship
from actograph.layout.layer import LayerInfo, Quantity, Side
from actograph.sketch.block import Block
from actograph.sketch.links import Slot
from actograph.sketch.observe import is_measurable, observe_input, observe_output

DERIVE_FROM = (
    4096  # values: measuring fewer takes less than an active link does (they are even at about 2,000)
)
MAX_CALLS = 4  # of one module in one forward that are told apart; later ones share "name[4+]"

NO_BACKWARD = -1  # torch's number for "no backward is running"

Gate = Callable[[nn.Module], bool]
OnError = Callable[[Exception], None]


class Listener(Protocol):
    """Who wants to know of a model's forwards; those that autograd repeats and that are traced are none."""

    def enter(self, model: nn.Module, inputs: object, *, is_measured: bool) -> None:
        """Note that an outermost forward begins with these inputs."""

    def leave(self, model: nn.Module, output: object) -> None:
        """Note that it has ended."""


class LayerHooks:
    """Hooks on one model's leaves. Use as a context manager, or `attach` and `detach`.

    Args:
        model: the model; its leaves are looked up once.
        block: where rows go; several models may share it.
        on_layer: told of each layer when its first output is seen, in the block's order.
        gate: asked at each outermost forward whether to measure it.
        select: which layers (`leaves.Select`); None means all.
        prefix: put before every layer name, for runs with several models.
        clock: seconds; what the hooks take adds up in ``elapsed_s``.
        derive_from: values in a tensor from which on its row is derived from another where it follows from it (docs/design
            /0003): the row is the same, and smaller ones are measured faster. None: measure all.
        outputs: False measures no leaf; forwards are noticed all the same.
        gradients: give each output that requires a gradient a second layer for it.
        on_error: told of an error of ours in a hook, so that the forward goes on; None lets it through.
        listener: told of the model's outermost forwards.

    """

    def __init__(
        self,
        model: nn.Module,
        block: Block,
        on_layer: Callable[[LayerInfo], None],
        gate: Gate,
        select: Select | None = None,
        prefix: str = "",
        clock: Callable[[], float] = time.perf_counter,
        *,
        derive_from: int | None = DERIVE_FROM,
        outputs: bool = True,
        gradients: bool = False,
        on_error: OnError | None = None,
        listener: Listener | None = None,
    ) -> None:
        self.listener = listener
        self.model = model
        self.block = block
        self.on_layer = on_layer
        self.gate = gate
        self.axes = ChannelAxes()
        self.lineage = None if derive_from is None else Lineage(block, derive_from)
        self.depth = 0  # of forwards of the model that are open (a model may call itself)
        self.forward_number = 0  # tells a module's hook that its call index starts again
        self.is_measuring = False
        self.is_heard = False  # the open forward, by the listener
        self.clock = clock
        self.elapsed_s = 0.0  # spent in hooks; whoever reads it resets it
        self.gradients = gradients
        self.on_error = on_error
        self.loss_scale = 1.0  # gradients are divided by it before they are measured
        leaves = leaf_modules(model, select) if outputs else {}
        self._leaves = [_LeafHook(self, prefix + name, leaf) for name, leaf in leaves.items()]
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Register the hooks; does nothing when they are registered."""
        if self._handles:
            return
        self._handles = [
            self.model.register_forward_pre_hook(_Enter(self), prepend=True, with_kwargs=True),
            *[handle for leaf in self._leaves for handle in leaf.register()],
            self.model.register_forward_hook(_Leave(self), always_call=True),
        ]

    def detach(self) -> None:
        """Remove the hooks; does nothing when there are none."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self.depth, self.is_measuring = 0, False
        self.forget_tensors()

    @property
    def is_attached(self) -> bool:
        """Whether the hooks are registered."""
        return bool(self._handles)

    def __enter__(self) -> LayerHooks:
        self.attach()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.detach()

    def fail(self, error: Exception) -> None:
        """Tell of an error in a hook, or let it through if nobody wants to know."""
        if self.on_error is None:
            raise error
        self.on_error(error)

    def forget_tensors(self) -> None:
        """Take no tensor seen so far for one that was measured."""
        if self.lineage is not None:
            self.lineage.clear()

    def begin_forward(self, inputs: object) -> None:
        """Open an outermost forward."""
        self.forward_number += 1
        self.forget_tensors()
        self.is_measuring = self.may_measure()
        self.is_heard = self.listener is not None and not is_in_backward() and not _is_tracing()
        if self.is_heard:
            assert self.listener is not None
            start_s = self.clock()
            try:
                self.listener.enter(self.model, inputs, is_measured=self.is_measuring)
            except Exception as error:
                self.fail(error)
            self.elapsed_s += self.clock() - start_s

    def end_forward(self, output: object) -> None:
        """Close an outermost forward."""
        self.forget_tensors()
        if self.is_heard and self.listener is not None:
            try:
                self.listener.leave(self.model, output)
            except Exception as error:
                self.fail(error)

    def measures_now(self) -> bool:
        """Tell whether a leaf that is being called is to be measured.

        Outside a forward of the model (its parts are called one by one) the gate is asked for each call.
        """
        # traced as the constant True: no graph break, and nothing is recorded
        if torch.compiler.is_compiling():
            return False
        return self.is_measuring if self.depth else self.may_measure()

    def may_measure(self) -> bool:
        """Ask the gate, but for a forward that repeats another, and one that is written down (``torch.jit.trace``)."""
        return not (_is_tracing() or is_in_backward()) and self.gate(self.model)

    def repeats_now(self) -> bool:
        """Tell whether the leaf that is being called repeats, for its gradients, a forward that was to be measured."""
        return not torch.compiler.is_compiling() and is_in_backward() and self.gate(self.model)


def _is_tracing() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def hooks_on(model: nn.Module) -> list[LayerHooks]:
    """Return whose hooks are registered on a model."""
    return [hook.hooks for hook in model._forward_pre_hooks.values() if isinstance(hook, _Enter)]


def is_in_backward() -> bool:
    """Tell whether autograd is running a backward on this thread."""
    return torch._C._current_graph_task_id() != NO_BACKWARD


def is_ours(hook: object) -> bool:
    """Tell whether a module's hook is one of these, or what a copy has instead of it."""
    return (
        isinstance(hook, _VanishingHook) or getattr(hook, "__func__", None) is contextlib.nullcontext.__exit__
    )


class _VanishingHook:
    """A hook that a copy of its module does not keep.

    Copies get the exit of a null context: it takes any arguments, does nothing, and is pickled without this package.
    """

    __slots__ = ()

    def __deepcopy__(self, memo: dict[int, Any]) -> Callable[..., None]:
        return contextlib.nullcontext().__exit__

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (contextlib.nullcontext(), "__exit__")


class _Enter(_VanishingHook):
    """Opens a forward of the model; at the outermost one asks the gate."""

    __slots__ = ("hooks",)

    def __init__(self, hooks: LayerHooks) -> None:
        self.hooks = hooks

    def __call__(self, module: nn.Module, args: object, kwargs: object) -> None:
        hooks = self.hooks
        if torch.compiler.is_compiling():
            return
        if hooks.depth == 0:
            hooks.begin_forward((args, kwargs))
        hooks.depth += 1


class _Leave(_VanishingHook):
    """Closes a forward of the model."""

    __slots__ = ("hooks",)

    def __init__(self, hooks: LayerHooks) -> None:
        self.hooks = hooks

    def __call__(self, module: nn.Module, args: object, output: object) -> None:
        if not torch.compiler.is_compiling():
            self.hooks.depth = max(self.hooks.depth - 1, 0)
            if self.hooks.depth == 0:
                self.hooks.end_forward(output)


class _LeafHook(_VanishingHook):
    """Measures one module's outputs; knows its slots by call index and path."""

    __slots__ = (
        "_call", "_forward_number", "_gradient_hooks", "_infos", "_kin", "_name", "_slots", "flat", "hooks", "module",
    )  # fmt: skip

    def __init__(self, hooks: LayerHooks, name: str, module: nn.Module) -> None:
        self.hooks = hooks
        self.module = module
        self.flat = flat_region(module)
        self._kin = kinship(module)
        self._name = name
        self._slots: dict[tuple[int, str], Slot] = {}
        self._infos: dict[tuple[int, str], LayerInfo] = {}
        self._gradient_hooks: dict[tuple[int, str], _GradientHook] = {}
        self._call = 0
        self._forward_number = -1

    def register(self) -> list[RemovableHandle]:
        handles = [self.module.register_forward_hook(self)]
        if self.flat is not None and self.flat.side is Side.INPUT:
            # before the forward: an in-place module leaves no input behind
            handles.append(self.module.register_forward_pre_hook(_InputHook(self)))
        return handles

    def __call__(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        hooks = self.hooks
        if not hooks.measures_now():
            if hooks.gradients and hooks.repeats_now():
                for path, tensor in tensors_of(output):
                    self._watch_gradient(self._peek_call(), path, tensor)
            return
        start_s = hooks.clock()
        try:
            call = self._next_call()
            if isinstance(output, Tensor):
                self._observe(call, "", args, output)
            else:
                for path, tensor in tensors_of(output):
                    self._observe(call, path, args, tensor)
        except Exception as error:
            hooks.fail(error)
        hooks.elapsed_s += hooks.clock() - start_s

    def observe_input(self, x: Tensor) -> None:
        """Look for the flat region in the input of the call that is about to come."""
        hooks = self.hooks
        if not hooks.measures_now():
            return
        start_s = hooks.clock()
        try:
            call = self._peek_call()
            slot = self._slots.get((call, ""))
            if slot is None and is_measurable(x):
                slot = self._add_slot(call, "", (x,), x)
            if slot is not None:
                observe_input(x, slot)
        except Exception as error:
            hooks.fail(error)
        hooks.elapsed_s += hooks.clock() - start_s

    def _peek_call(self) -> int:
        fresh = self.hooks.depth == 0 or self._forward_number != self.hooks.forward_number
        return 0 if fresh else min(self._call, MAX_CALLS)

    def _next_call(self) -> int:
        """Count this call: 0 at the first in an outermost forward, at most `MAX_CALLS`."""
        call = self._peek_call()
        self._forward_number = self.hooks.forward_number
        self._call = call + 1
        return call

    def _observe(self, call: int, path: str, args: tuple[object, ...], output: Tensor) -> None:
        slot = self._slots.get((call, path))
        if slot is None:
            if not is_measurable(output):
                return
            slot = self._add_slot(call, path, args, output)
        lineage = self.hooks.lineage
        # the calls beyond MAX_CALLS share a slot: each may follow from another layer
        if lineage is None or call == MAX_CALLS:
            observe_output(output, slot)
        else:
            kin = self._kin
            if kin is not Kinship.UNKNOWN and next(iter(self.module._forward_hooks.values())) is not self:
                kin = Kinship.UNKNOWN  # another hook came first and may have replaced the output
            lineage.observe(output, args, kin, slot)
        if self.hooks.gradients:
            self._watch_gradient(call, path, output)

    def _watch_gradient(self, call: int, path: str, output: Tensor) -> None:
        """Measure the gradient by an output when it comes; a leaf of the graph (a parameter) would keep the hook."""
        if output.is_leaf:
            return
        hook = self._gradient_hooks.get((call, path))
        if hook is None:
            info = self._infos.get((call, path))
            if info is None:  # its first forward was not measured
                return
            slot = self.hooks.block.add(output.device, None, info.channel_axis, info.num_units)
            hook = self._gradient_hooks[call, path] = _GradientHook(self.hooks, slot)
            self.hooks.on_layer(replace(info, flat=None, quantity=Quantity.GRADIENT))
        output.register_hook(hook)  # type: ignore[no-untyped-call]

    def _add_slot(self, call: int, path: str, args: tuple[object, ...], output: Tensor) -> Slot:
        axis = self.hooks.axes.find(self.module, args, output)
        info = LayerInfo(
            name=self._name + _call_suffix(call) + (f":{path}" if path else ""),
            kind=type(self.module).__name__,
            shape=tuple(output.shape),
            dtype=str(output.dtype).removeprefix("torch."),
            channel_axis=axis,
            num_units=0 if axis is None else output.shape[axis],
            flat=self.flat,
            num_parameters=sum(p.numel() for p in self.module.parameters(recurse=False)),
        )
        slot = self.hooks.block.add(output.device, info.flat, axis, info.num_units)
        self._slots[call, path] = slot
        self._infos[call, path] = info
        self.hooks.on_layer(info)
        return slot


class _GradientHook(_VanishingHook):
    """Measures the gradient by one module's output, divided by the loss scale."""

    __slots__ = ("hooks", "slot")

    def __init__(self, hooks: LayerHooks, slot: Slot) -> None:
        self.hooks = hooks
        self.slot = slot

    def __call__(self, gradient: object) -> None:
        hooks = self.hooks
        if not hooks.is_attached or not isinstance(gradient, Tensor):
            return
        start_s = hooks.clock()
        if hooks.loss_scale != 1.0:
            # in float32 at least: what was scaled to be seen in float16 would underflow there
            wide = torch.promote_types(gradient.dtype, torch.float32)
            gradient = gradient.detach().to(wide) / hooks.loss_scale
        try:
            observe_output(gradient, self.slot)
        except Exception as error:
            hooks.fail(error)
        hooks.elapsed_s += hooks.clock() - start_s


class _InputHook(_VanishingHook):
    __slots__ = ("leaf",)

    def __init__(self, leaf: _LeafHook) -> None:
        self.leaf = leaf

    def __call__(self, module: nn.Module, args: tuple[object, ...]) -> None:
        if args and isinstance(args[0], Tensor):
            self.leaf.observe_input(args[0])


def _call_suffix(call: int) -> str:
    if call == 0:
        return ""
    return f"[{call}]" if call < MAX_CALLS else f"[{MAX_CALLS}+]"
