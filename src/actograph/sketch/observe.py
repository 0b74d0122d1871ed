"""`observe`: measure one tensor into its slot, by the best back end that takes it.

No idea of modules or steps.
"""

from __future__ import annotations

from torch import Tensor

from actograph.layout.layer import Side
from actograph.sketch import native, reference
from actograph.sketch.links import Slot


def is_measurable(x: object) -> bool:
    """Tell whether a module's output is something to measure: a dense floating-point tensor with storage."""
    return (
        isinstance(x, Tensor) and x.is_floating_point() and not (x.is_sparse or x.is_meta or x.is_quantized)
    )


def observe_output(x: Tensor, slot: Slot) -> None:
    """Merge a layer's output (any shape) into its slot."""
    if slot.target is None or not native.observe(x, slot.target):
        reference.observe(x, slot, look_for_flat=slot.flat is not None and slot.flat.side is Side.OUTPUT)


def observe_input(x: Tensor, slot: Slot) -> None:
    """Merge into a slot what only the layer's input tells: the share in the flat region, and which units left it."""
    if slot.target is None or not native.observe_flat(x, slot.target):
        reference.observe_flat(x, slot)
