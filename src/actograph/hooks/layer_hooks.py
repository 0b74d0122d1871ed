"""`LayerHooks`: forward hooks on the leaves of one model that write rows into a block.

No idea of steps, files or training. Whether a forward is measured is asked of ``gate`` once, at the outermost forward;
the hooks themselves stay where they are. They add nothing to a copy of the model: in a deepcopy or a pickle a hook turns
into a function that does nothing.

The gradient by an output is seen by a hook on that tensor, which goes with the graph. It belongs to the value that the
module returned, also where a later module changes the tensor in place. A forward that autograd runs inside a backward
(activation checkpointing) repeats one that was measured: only gradients are taken from it. In code that is being compiled
a hook only leaves an operator behind (`compiled`), which brings it what it asks for whenever that code runs.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol, cast
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actograph.hooks import compiled
from actograph.hooks.channels import ChannelAxes
from actograph.hooks.flat_region import flat_region
from actograph.hooks.hiding import VanishingHook, hidden
from actograph.hooks.leaves import Select, leaf_modules, own_parameters, scripted_modules, tensors_of
from actograph.hooks.lineage import Kinship, Lineage, kinship
from actograph.hooks.recomputation import is_in_backward, knows_backward
from actograph.layout.layer import LayerInfo, Quantity, Side
from actograph.sketch.block import Block
from actograph.sketch.links import Slot
from actograph.sketch.observe import is_measurable, observe_input, observe_output

DERIVE_FROM = (
    4096  # values: measuring fewer takes less than an active link does (they are even at about 2,000)
)
MAX_CALLS = 4  # of one module in one forward that are told apart; later ones share "name[4+]"

NO_GRADIENTS = (
    "gradients by the outputs of layers in compiled code are not recorded: train without compile to see them"
)

SCRIPTED = "{name} is not recorded: TorchScript does not call hooks"

Gate = Callable[[nn.Module], bool]
OnError = Callable[[Exception], None]
OnRemark = Callable[[str, bool], None]


class Listener(Protocol):
    """Who wants to know of a model's forwards; those that autograd repeats and that are traced are none."""

    def enter(self, model: nn.Module, inputs: object, *, is_measured: bool) -> None:
        """Note that an outermost forward begins with these inputs."""

    def leave(self, model: nn.Module, output: object) -> None:
        """Note that it has ended."""


class LayerHooks:
    """Hooks on one model's leaves, which keep neither it nor them alive. Use as a context manager, or `attach` and `detach`.

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
        on_remark: told, once, what is not recorded, and whether somebody has asked for it; None: then there is a warning.

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
        on_remark: OnRemark | None = None,
    ) -> None:
        self.listener = listener
        # may be gone before its parts: a wrapper that is made anew for each batch
        self._model = ref(model)
        self.block = block
        self.on_layer = on_layer
        self.gate = gate
        self.axes = ChannelAxes()
        self.lineage = None if derive_from is None else Lineage(block, derive_from)
        self.depth = 0  # of forwards of the model that are open (a model may call itself)
        self.forward_number = 0  # tells a module's hook that its call index starts again
        self.is_measuring = False
        self.is_heard = False  # the open forward, by the listener
        self.has_mode = (
            False  # somebody watches torch's functions: not ours, each would cost some microseconds more
        )
        self.clock = clock
        self.elapsed_s = 0.0  # spent in hooks; whoever reads it resets it
        self.gradients = gradients
        self.on_error = on_error
        self.on_remark = on_remark
        self.turn = compiled.register_forwards(self)  # operators that write to it keep their order
        self.step_number = 0  # of the steps that whoever records has ended
        self._step_entered = -1  # in which the model was measured last
        self._num_graphs = 0  # compiled when the hooks came off
        self._remarks: set[str] = set()
        self.has_seen_compiled = False  # a layer in compiled code was measured
        self.missing_when_compiled = {NO_GRADIENTS: True} if gradients else {}  # whether it was asked for
        self.loss_scale = 1.0  # gradients are divided by it before they are measured
        leaves = leaf_modules(model, select) if outputs else {}
        self._leaves = [LeafHook(self, prefix + name, leaf) for name, leaf in leaves.items()]
        self._scripted = scripted_modules(model) if outputs else []
        self._fast_paths = [
            ref(one)
            for one in model.modules()
            if isinstance(one, nn.TransformerEncoderLayer) and one is not model
        ]
        self._hidden: contextlib.ExitStack | None = None  # hooks of such layers, in the open forward
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Register the hooks; does nothing when they are registered."""
        if self._handles:
            return
        for name in self._scripted:
            self.remark(SCRIPTED.format(name=name), is_asked_for=True)
        compiled.forget_graphs(self._num_graphs)
        self._handles = [
            self.model.register_forward_pre_hook(_Enter(self), prepend=True, with_kwargs=True),
            *[handle for leaf in self._leaves for handle in leaf.register()],
            self.model.register_forward_hook(_Leave(self), always_call=True),
        ]

    def detach(self) -> None:
        """Remove the hooks; does nothing when there are none."""
        self._show_hidden()  # else it would come back
        for handle in self._handles:
            handle.remove()
        if self._handles:
            self._num_graphs = compiled.num_graphs()
        self._handles = []
        self.close_forward()

    @property
    def model(self) -> nn.Module:
        """The model, while somebody keeps it."""
        model = self._model()
        assert model is not None, "the model is gone"
        return model

    @property
    def is_gone(self) -> bool:
        """Whether the model and all its leaves are gone, so that nothing calls these hooks any more."""
        return self._model() is None and all(leaf.is_gone for leaf in self._leaves)

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

    def remark(self, line: str, *, is_asked_for: bool) -> None:
        """Say once what is not recorded."""
        if line in self._remarks:
            return
        self._remarks.add(line)
        if self.on_remark is not None:
            self.on_remark(line, is_asked_for)
        elif is_asked_for:
            warnings.warn(line, stacklevel=2)

    def enter(self, inputs: object = None) -> None:
        """Open a forward of the model; at the outermost one ask the gate. Compiled code does not tell its inputs."""
        if self.depth == 0:
            self.forward_number += 1
            self.forget_tensors()
            self.is_measuring = self.may_measure() and self._is_first(self._step_entered)
            if self.is_measuring:
                self._step_entered = self.step_number
            if self.listener is not None and inputs is not None:
                self._tell_listener(self.listener, inputs)
            if self._fast_paths and inputs is not None and not torch.is_grad_enabled():
                self._hide_from_fast_paths()
        self.depth += 1

    def _hide_from_fast_paths(self) -> None:
        """Take the hooks off torch's encoder layers for this forward: with hooks they evaluate more slowly, to other bits.

        In training mode they have no fast path, and reentrant checkpointing measures without gradients.
        """
        self._hidden = contextlib.ExitStack()
        for known in self._fast_paths:
            layer = known()
            if layer is not None and not layer.training:
                self._hidden.enter_context(hidden(layer))

    def _show_hidden(self) -> None:
        if self._hidden is not None:
            self._hidden.close()
            self._hidden = None

    def leave(self, output: object = None) -> None:
        """Close a forward of the model."""
        self.depth = max(self.depth - 1, 0)
        if self.depth:
            return
        if self._hidden is not None:
            self._show_hidden()
        self.forget_tensors()
        if self.is_heard and self.listener is not None:
            self.is_heard = False
            try:
                self.listener.leave(self.model, output)
            except Exception as error:
                self.fail(error)

    def _tell_listener(self, listener: Listener, inputs: object) -> None:
        model = self._model()
        self.is_heard = not is_in_backward() and not _is_tracing() and model is not None
        if model is None or not self.is_heard:
            return
        start_s = self.clock()
        try:
            listener.enter(model, inputs, is_measured=self.is_measuring)
        except Exception as error:
            self.fail(error)
        self.elapsed_s += self.clock() - start_s

    def end_step(self) -> None:
        """Note that a step has ended; a forward that is open still was left by Ctrl-C or by an error in compiled code."""
        self.step_number += 1
        self.close_forward()

    def close_forward(self) -> None:
        """Take no forward for open any more."""
        self.depth, self.is_measuring, self.is_heard = 0, False, False
        if self._hidden is not None:
            self._show_hidden()
        self.forget_tensors()

    def _is_first(self, step_counted: int) -> bool:
        """Tell whether something counts that was counted in this step: where repeats cannot be told, only the first does."""
        return knows_backward() or step_counted != self.step_number

    def forget_tensors(self) -> None:
        """Take no tensor seen so far for one that was measured."""
        if self.lineage is not None:
            self.lineage.clear()

    def measures_now(self, step_counted: int = -1, part: nn.Module | None = None) -> bool:
        """Tell whether a leaf that is being called, and was counted last in that step, is to be measured.

        Outside a forward of the model (its parts are called one by one) the gate is asked for each call.
        """
        return self.is_measuring if self.depth else self.may_measure(part) and self._is_first(step_counted)

    def may_measure(self, part: nn.Module | None = None) -> bool:
        """Ask the gate, but for a forward that repeats another, and one that is written down (``torch.jit.trace``).

        The mode that counts is that of the model, and where it is gone that of the part that is called.
        """
        model = self._model()
        model = part if model is None else model
        return not (_is_tracing() or is_in_backward()) and model is not None and self.gate(model)

    def repeats_now(self, part: nn.Module) -> bool:
        """Tell whether the leaf that is being called repeats, for its gradients, a forward that was to be measured."""
        model = self._model()
        return is_in_backward() and self.gate(part if model is None else model)


def _is_tracing() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


def hooks_on(model: nn.Module) -> list[LayerHooks]:
    """Return whose hooks are registered on a model."""
    return [hook.hooks for hook in model._forward_pre_hooks.values() if isinstance(hook, _Enter)]


class _Enter(VanishingHook):
    """Opens a forward of the model."""

    __slots__ = ("hooks",)

    def __init__(self, hooks: LayerHooks) -> None:
        self.hooks = hooks

    def __call__(self, module: nn.Module, args: object, kwargs: object) -> None:
        if torch.compiler.is_compiling():
            compiled.enter(self.hooks.turn)
        else:
            self.hooks.enter((args, kwargs))


class _Leave(VanishingHook):
    """Closes a forward of the model."""

    __slots__ = ("hooks",)

    def __init__(self, hooks: LayerHooks) -> None:
        self.hooks = hooks

    def __call__(self, module: nn.Module, args: object, output: object) -> None:
        if torch.compiler.is_compiling():
            compiled.leave(self.hooks.turn)
        else:
            self.hooks.leave(output)


class LeafHook(VanishingHook):
    """Measures one module's outputs; knows its slots by call index and path."""

    __slots__ = (
        "__weakref__", "_call", "_forward_number", "_gradient_hooks", "_infos", "_kin", "_module", "_name", "_slots",
        "_step_counted", "flat", "hooks", "key",
    )  # fmt: skip

    max_calls = MAX_CALLS

    def __init__(self, hooks: LayerHooks, name: str, module: nn.Module) -> None:
        self.hooks = hooks
        self._module: Callable[[], nn.Module] = ref(module)  # type: ignore[assignment]  # alive while it is called
        self.flat = flat_region(module)
        self._kin = kinship(module)
        self._name = name
        self._slots: dict[tuple[int, str], Slot] = {}
        self._infos: dict[tuple[int, str], LayerInfo] = {}
        self._gradient_hooks: dict[tuple[int, str], _GradientHook] = {}
        self._call = 0
        self._forward_number = -1
        self._step_counted = -1
        self.key = compiled.register_leaf(self)

    @property
    def module(self) -> nn.Module:
        """The module, while somebody keeps it."""
        return self._module()

    @property
    def is_gone(self) -> bool:
        """Whether nobody keeps the module any more."""
        return cast("nn.Module | None", self._module()) is None

    @property
    def kind(self) -> str:
        """What the layer is called by class."""
        return type(self.module).__name__

    def register(self) -> list[RemovableHandle]:
        handles = [self.module.register_forward_hook(self)]
        if self.flat is not None and self.flat.side is Side.INPUT:
            # before the forward: an in-place module leaves no input behind
            handles.append(self.module.register_forward_pre_hook(_InputHook(self)))
        return handles

    def __call__(self, module: nn.Module, args: tuple[object, ...], output: object) -> None:
        hooks = self.hooks
        if torch.compiler.is_compiling():
            compiled.outputs(hooks.turn, self.key, output)
            return
        if not hooks.measures_now(self._step_counted, module):
            if hooks.gradients and hooks.repeats_now(module):
                for path, tensor in tensors_of(output):
                    self._watch_gradient(self._peek_call(), path, tensor)
            return
        start_s = hooks.clock()
        try:
            if hooks.has_mode:
                with torch._C.DisableTorchFunction():
                    self._observe_output(args, output)
            else:
                self._observe_output(args, output)
        except Exception as error:
            hooks.fail(error)
        hooks.elapsed_s += hooks.clock() - start_s

    def _observe_output(self, args: tuple[object, ...], output: object) -> None:
        call = self._next_call()
        if isinstance(output, Tensor):
            self._observe(call, "", args, output)
        else:
            for path, tensor in tensors_of(output):
                self._observe(call, path, args, tensor)

    def observe_compiled(self, tensors: Sequence[Tensor], paths: Sequence[str]) -> None:
        """Measure what a call in compiled code has returned: tensors that have nothing to do with others."""
        hooks = self.hooks
        if not (hooks.is_attached and hooks.measures_now(self._step_counted, self._module())):
            return
        hooks.has_seen_compiled = True
        for line, is_asked_for in hooks.missing_when_compiled.items():
            hooks.remark(line, is_asked_for=is_asked_for)
        start_s = hooks.clock()
        try:
            call = self._next_call()
            for path, tensor in zip(paths, tensors, strict=True):
                slot = self._slots.get((call, path))
                if slot is None and is_measurable(tensor):
                    slot = self._add_slot(call, path, (), tensor)
                if slot is not None:
                    slot.calls += 1
                    slot.output = None
                    observe_output(tensor, slot)
                    hooks.axes.note_latest(tensor, slot.channel_axis)
        except Exception as error:
            hooks.fail(error)
        hooks.elapsed_s += hooks.clock() - start_s

    def observe_input(self, x: Tensor) -> None:
        """Look for the flat region in the input of the call that is about to come."""
        hooks = self.hooks
        if not (hooks.is_attached and hooks.measures_now(self._step_counted, self._module())):
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
        return 0 if fresh else min(self._call, self.max_calls)

    def _next_call(self) -> int:
        """Count this call: 0 at the first in an outermost forward, at most ``max_calls``."""
        call = self._peek_call()
        self._step_counted = self.hooks.step_number
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
        # the calls beyond max_calls share a slot: each may follow from another layer
        if lineage is None or call == self.max_calls:
            observe_output(output, slot)
        else:
            kin = self._kin
            if kin is not Kinship.UNKNOWN and not self._comes_first():
                kin = Kinship.UNKNOWN  # another hook may have replaced the output
            lineage.observe(output, args, kin, slot)
        if self.hooks.gradients:
            self._watch_gradient(call, path, output)

    def _comes_first(self) -> bool:
        """Tell whether no other hook has seen the output before."""
        return next(iter(self._module()._forward_hooks.values())) is self

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

    def _call_suffix(self, call: int) -> str:
        if call == 0:
            return ""
        return f"[{call}]" if call < self.max_calls else f"[{self.max_calls}+]"

    def _add_slot(self, call: int, path: str, args: tuple[object, ...], output: Tensor) -> Slot:
        axis = self.hooks.axes.find(self.module, args, output)
        info = LayerInfo(
            name=self._name + self._call_suffix(call) + (f":{path}" if path else ""),
            kind=self.kind,
            shape=tuple(output.shape),
            dtype=str(output.dtype).removeprefix("torch."),
            channel_axis=axis,
            num_units=0 if axis is None else output.shape[axis],
            flat=self.flat,
            num_parameters=sum(p.numel() for p in own_parameters(self.module)),
        )
        slot = self.hooks.block.add(output.device, info.flat, axis, info.num_units)
        self._slots[call, path] = slot
        self._infos[call, path] = info
        self.hooks.on_layer(info)
        return slot


class _GradientHook(VanishingHook):
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


class _InputHook(VanishingHook):
    __slots__ = ("leaf",)

    def __init__(self, leaf: LeafHook) -> None:
        self.leaf = leaf

    def __call__(self, module: nn.Module, args: tuple[object, ...]) -> None:
        if not args or not isinstance(args[0], Tensor):
            return
        if torch.compiler.is_compiling():
            compiled.given(self.leaf.hooks.turn, self.leaf.key, args[0])
        else:
            self.leaf.observe_input(args[0])
