"""Run a model once and list what every layer call takes, gives and costs.

No idea of training, and it leaves no trace: not in weights, buffers, modes, hooks or random state.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import ParametrizationList
from torch.utils.flop_counter import FlopCounterMode

from actograph.errors import UsageError
from actograph.models.grid import grid_axes, predicted_grid, window_of
from actograph.models.macs import flop_counter, macs_so_far, recurrent_macs
from actograph.models.shapes import LayerShape, LayerTable, Shape
from actograph.models.verdict import describe, number

INPUT_SEED = 0  # of the random input of a run on real memory
MAX_NAMES = 5  # unused modules that the sentence names
MAX_ERROR_LENGTH = 160  # characters; torch's messages run to a page


def layer_table(model: nn.Module, input_size: Sequence[int] | Sequence[Tensor]) -> LayerTable:
    """List the layers of ``model`` with shapes, grids, parameters, multiply-accumulates and memory.

    ``input_size`` is the shape of one sample without the batch axis, such as ``(1, 28, 28)``: the numbers are
    then for a batch of one. For other inputs (token ids, several inputs) give the tuple of tensors to call the
    model with, batch axis included: the numbers are for that call.

    The model is run once in evaluation mode: as a copy on the meta device, which takes neither time nor memory,
    or where that fails (a forward that looks at values) as a copy on its own device. Work that a container does
    outside of its layers gets a row under the container's name. Parameters that are shared count once.

    Raises UsageError when the model cannot be run on such an input.

    >>> from actograph.models import simple_cnn
    >>> table = layer_table(simple_cnn(10), (1, 28, 28))
    >>> table.rows[0].name, table.rows[0].grid, table.rows[0].macs
    ('block1.conv', (14, 14), 39200)
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"model is a {type(model).__name__}; give a torch.nn.Module")
    inputs = _inputs(model, input_size)
    try:
        trace, device = _run(_meta_copy(model), [x.to("meta") for x in inputs]), "meta"
        reason = None
    except Exception as error:  # a model may raise anything; the second run tells whether it matters
        reason = _first_sentence(error)
        trace, device = _run_on_memory(model, inputs), str(_device(model))
    rows = tuple(row for row in trace.rows if row is not None)
    unused = _unused(trace)
    sentences = [*describe(rows), *_say_unused(unused), *_say_device(device, reason)]
    return LayerTable(
        model=type(model).__name__,
        input_shapes=tuple(tuple(x.shape) for x in inputs),
        rows=rows,
        parameters=sum(p.numel() for p in trace.model.parameters()),
        unused=tuple(unused),
        unused_parameters=sum(unused.values()),
        device=device,
        sentences=tuple(sentences),
    )


@dataclass(slots=True)
class _Call:
    """One module call that has begun: what was known when it did."""

    slot: int
    name: str
    macs_before: int
    input_shape: Shape | None
    macs_inside: int = 0
    calls_inside: int = 0


@dataclass(slots=True)
class _Trace:
    """The hooks' notebook: a stack of open calls, and a slot for the row of every call."""

    model: nn.Module
    counter: FlopCounterMode
    rows: list[LayerShape | None] = field(default_factory=list)
    open_calls: list[_Call] = field(default_factory=list)
    times_called: Counter[str] = field(default_factory=Counter)
    counted: set[int] = field(default_factory=set)  # ids of parameters
    storages: dict[int, torch.UntypedStorage] = field(default_factory=dict)  # kept, so that ids stay unique

    def begin(self, name: str, inputs: Sequence[Tensor]) -> None:
        """Open a call and reserve its row's place, so that a container stands before its layers."""
        self._new_bytes(inputs)
        index = self.times_called[name]
        self.times_called[name] += 1
        call = _Call(
            slot=len(self.rows),
            name=f"{name}[{index}]" if index else name,
            macs_before=macs_so_far(self.counter),
            input_shape=tuple(inputs[0].shape) if inputs else None,
        )
        self.rows.append(None)
        self.open_calls.append(call)

    def end(self, module: nn.Module, outputs: Sequence[Tensor]) -> None:
        """Close the innermost call; give it a row if it computed, or holds parameters, itself."""
        call = self.open_calls.pop()
        macs = macs_so_far(self.counter) - call.macs_before
        if self.open_calls:
            self.open_calls[-1].macs_inside += macs
            self.open_calls[-1].calls_inside += 1
        is_leaf = call.calls_inside == 0
        parameters = self._new_parameters(module.parameters() if is_leaf else _direct_parameters(module))
        own_macs = macs - call.macs_inside
        if is_leaf or own_macs or parameters:
            self.rows[call.slot] = self._row(call, module, outputs, own_macs, parameters)

    def _row(
        self, call: _Call, module: nn.Module, outputs: Sequence[Tensor], own_macs: int, parameters: int
    ) -> LayerShape:
        output_shape = tuple(outputs[0].shape) if outputs else None
        positions = prod((call.input_shape or ())[:-1])
        by_formula = recurrent_macs(module, positions)
        axes = grid_axes(module)
        input_grid = _grid(call.input_shape, axes)
        return LayerShape(
            name=call.name,
            kind=type(module).__name__,
            input_shape=call.input_shape,
            output_shape=output_shape,
            parameters=parameters,
            macs=own_macs if by_formula is None else by_formula,
            activation_bytes=self._new_bytes(outputs),
            input_grid=input_grid,
            grid=_grid(output_shape, axes),
            predicted_grid=None if input_grid is None else predicted_grid(module, input_grid),
            window=window_of(module),
            is_own_work=call.calls_inside > 0,
        )

    def _new_parameters(self, parameters: Iterable[nn.Parameter]) -> int:
        new = {id(p): p.numel() for p in parameters if id(p) not in self.counted}
        self.counted |= new.keys()
        return sum(new.values())

    def _new_bytes(self, tensors: Sequence[Tensor]) -> int:
        """Sum the bytes of the tensors whose memory no earlier tensor of this run had."""
        size_bytes = 0
        for x in tensors:
            if x.layout == torch.strided:  # sparse tensors have no single storage and are never views here
                storage = x.untyped_storage()
                if id(storage) in self.storages:
                    continue
                self.storages[id(storage)] = storage
            size_bytes += x.numel() * x.element_size()
        return size_bytes


def _run_on_memory(model: nn.Module, inputs: Sequence[Tensor]) -> _Trace:
    """Run a copy on the model's own device; the model itself, restored afterwards, if it cannot be copied."""
    try:
        subject = _without_forward_hooks(copy.deepcopy(model))
    except Exception:  # locks, open files, tensors with a history: any class may refuse to be copied
        subject = model
    try:
        return _run(subject, [x.to(_device(model), copy=True) for x in inputs])
    except Exception as error:
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        raise UsageError(
            f"{type(model).__name__} cannot be run on an input of shape {shapes} "
            f"(a batch of 1 where you gave no batch): {_first_sentence(error)}. Give another input_size, or the "
            "tuple of tensors to call it with"
        ) from error


def _run(model: nn.Module, inputs: Sequence[Tensor]) -> _Trace:
    """Run the model once, in evaluation mode and without gradients, and restore whatever that changes."""
    with _preserved(model), torch.no_grad(), flop_counter() as counter:
        trace = _Trace(model, counter)
        with _traced(model, trace):
            model.eval()(*inputs)
    return trace


@contextmanager
def _traced(model: nn.Module, trace: _Trace) -> Iterator[None]:
    """Put hooks on every module but the parametrizations of a weight, which belong to their layer."""
    hidden = {id(part) for m in model.modules() if isinstance(m, ParametrizationList) for part in m.modules()}
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if id(module) in hidden:
                continue

            def begin(_: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
                trace.begin(name or "(model)", list(_tensors((args, kwargs))))

            def end(module: nn.Module, _: Any, output: Any) -> None:
                trace.end(module, list(_tensors(output)))

            stack.callback(module.register_forward_pre_hook(begin, with_kwargs=True).remove)
            stack.callback(module.register_forward_hook(end).remove)
        yield


@contextmanager
def _preserved(model: nn.Module) -> Iterator[None]:
    """Restore training modes, buffers, random state and the attention fast path."""
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(m, name, b, b.clone()) for m in model.modules() for name, b in m.named_buffers(recurse=False)]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(value=False)  # it would skip the layers inside, and their hooks
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(value=fast_path)
        for module, name, buffer, values in buffers:
            buffer.copy_(values)
            setattr(module, name, buffer)
        for module, training in modes:
            module.training = training


def _meta_copy(model: nn.Module) -> nn.Module:
    """Copy the model with meta tensors for parameters and buffers: no memory is copied."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in model.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return _without_forward_hooks(copy.deepcopy(model, memo))


def _without_forward_hooks(model: nn.Module) -> nn.Module:
    """Drop a copy's forward hooks, which may write to the user's logs; pre-hooks may make weights, and stay."""
    for module in model.modules():
        module._forward_hooks.clear()
    return model


def _inputs(model: nn.Module, input_size: Iterable[int] | Iterable[Tensor]) -> list[Tensor]:
    """Return the given tensors, or a random batch of one sample of the given shape."""
    values: list[object] = list(input_size)
    tensors = [value for value in values if isinstance(value, Tensor)]
    if tensors and len(tensors) == len(values):
        return tensors
    sizes = [
        value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0
    ]
    if not sizes or len(sizes) != len(values):
        raise UsageError(
            f"input_size is {tuple(values)!r}; give the shape of one sample without the batch axis, such as "
            "(1, 28, 28), or a tuple of tensors"
        )
    generator = torch.Generator().manual_seed(INPUT_SEED)
    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return [torch.rand(1, *sizes, generator=generator).to(dtype)]


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors in nested tuples (a PackedSequence is one), lists and dicts, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _tensors(part)
    elif isinstance(value, dict):
        yield from _tensors(tuple(value.values()))


def _direct_parameters(module: nn.Module) -> Iterator[nn.Parameter]:
    """Yield what the module holds itself or in lists, which are never called."""
    yield from module.parameters(recurse=False)
    for child in module.children():
        if isinstance(child, nn.ParameterList | nn.ParameterDict):
            yield from child.parameters()


def _unused(trace: _Trace) -> dict[str, int]:
    """Return name -> parameters of the modules whose parameters no row has counted."""
    unused: dict[str, int] = {}
    for name, module in trace.model.named_modules():
        left = sum(p.numel() for p in module.parameters(recurse=False) if id(p) not in trace.counted)
        if left:
            unused[name] = left
    return unused


def _say_unused(unused: dict[str, int]) -> Iterator[str]:
    if unused:
        names = ", ".join(list(unused)[:MAX_NAMES]) + (", ..." if len(unused) > MAX_NAMES else "")
        yield f"{number(sum(unused.values()))} parameters are in modules that this input never called: {names}."


def _say_device(device: str, reason: str | None) -> Iterator[str]:
    if reason is not None:
        yield f"The model was run on {device}, because a copy on the meta device could not be run ({reason})."


def _grid(shape: Shape | None, axes: int | None) -> Shape | None:
    return None if shape is None or axes is None else shape[-axes:]


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _first_sentence(error: Exception) -> str:
    line = (str(error).strip().splitlines() or [""])[0]
    sentence = line.split(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {shorten(sentence, MAX_ERROR_LENGTH, placeholder=' ...')}"
