"""`observe`: measure one tensor into its slot, by the best back end that takes it.

No idea of modules or steps.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from actograph.layout.layer import Side
from actograph.sketch import cuda, native, reference
from actograph.sketch.links import Slot


def is_measurable(x: object) -> bool:
    """Tell whether a module's output is something to measure: a dense floating-point tensor with values of its own.

    Not those inside a transform of ``torch.func``, nor tensors that stand for something else (fake, nested, distributed).
    """
    return (
        isinstance(x, Tensor)
        and x.is_floating_point()
        and x.layout is torch.strided
        and not (x.is_meta or x.is_quantized or x.is_nested or is_functorch_wrapped_tensor(x))
        and type(x).__torch_dispatch__ is Tensor.__torch_dispatch__
    )


def observe_output(x: Tensor, slot: Slot) -> None:
    """Merge a layer's output (any shape) into its slot; nothing where it is not measurable."""
    if (slot.target is not None and native.observe(x, slot.target)) or not is_measurable(x):
        return
    if slot.cuda_target is None or not cuda.observe(x, slot.cuda_target):
        reference.observe(x, slot, look_for_flat=slot.flat is not None and slot.flat.side is Side.OUTPUT)


def observe_input(x: Tensor, slot: Slot) -> None:
    """Merge into a slot what only the layer's input tells: the share in the flat region, and which units left it."""
    if (slot.target is not None and native.observe_flat(x, slot.target)) or not is_measurable(x):
        return
    if slot.cuda_target is None or not cuda.observe_flat(x, slot.cuda_target):
        reference.observe_flat(x, slot)
