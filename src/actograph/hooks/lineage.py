"""`Lineage`: finds the outputs whose rows follow from another row of the same step, and measures the others.

No idea of modules' names or of steps. It keeps no tensor alive: a tensor is known by a weak reference and its version, so
one that was freed, replaced or changed in place since a hook saw it is not taken for the one measured. What changes
values without counting a version (`x.data`, other libraries) is not noticed.
"""

from __future__ import annotations

import enum
import weakref

from torch import Tensor, nn

from actograph.sketch.block import Block
from actograph.sketch.links import Link, Slot
from actograph.sketch.observe import observe_output


class Kinship(enum.Enum):
    """What a module's output is to its input, by the module's class."""

    SAME = "same"  # the same values, perhaps in another shape
    RECTIFIED = "rectified"  # max(x, 0)
    UNKNOWN = "unknown"  # the same only if it returns its input itself, unchanged: dropout in evaluation


KINSHIPS = {
    nn.Identity: Kinship.SAME,
    nn.Flatten: Kinship.SAME,
    nn.Unflatten: Kinship.SAME,
    nn.ReLU: Kinship.RECTIFIED,
}


def kinship(module: nn.Module) -> Kinship:
    """Return what is known of the module; subclasses and instances with a forward of their own may do anything."""
    return Kinship.UNKNOWN if "forward" in vars(module) else KINSHIPS.get(type(module), Kinship.UNKNOWN)


class Lineage:
    """Measures outputs, but for those whose row follows from another row of the same step."""

    def __init__(self, block: Block, derive_from: int) -> None:
        self._block = block
        self._derive_from = derive_from  # values in a tensor
        self._makers: dict[int, Slot] = {}  # by id of this forward's tensors, while the block explores

    def clear(self) -> None:
        """Forget the tensors of the forward."""
        self._makers.clear()

    def observe(self, output: Tensor, args: tuple[object, ...], kin: Kinship, slot: Slot) -> None:
        """Bring the output's values into the slot's row: now, by measuring, or when the block is taken."""
        x, link = args[0] if args else None, slot.link
        if isinstance(x, Tensor) and (output is x or kin is not Kinship.UNKNOWN):
            if link is None and self._block.is_exploring:
                link = self._find_link(x, kin, slot)
            changes = 1 if kin is Kinship.RECTIFIED and output is x else 0  # in place
            if link is not None and link.admits(x, changes):
                link.num_derived += 1
                if not link.is_active:
                    observe_output(output, slot)
                slot.calls += 1
                if (slot.is_followed or self._block.is_exploring) and (output is not x or changes):
                    # (where the output is the input itself, unchanged, heirs ask the parent for it)
                    self._remember(output, slot)
                return
        slot.calls += 1
        observe_output(output, slot)
        if slot.is_followed or self._block.is_exploring:
            self._remember(output, slot)

    def _remember(self, output: Tensor, slot: Slot) -> None:
        """Let the rows of layers that take this output follow from the slot's."""
        try:
            slot.version = output._version
        except RuntimeError:  # inference tensors have none: a change would not be noticed
            slot.output = None
            return
        slot.output = weakref.ref(output)
        if self._block.is_exploring:
            self._makers[id(output)] = slot

    def _find_link(self, x: Tensor, kin: Kinship, slot: Slot) -> Link | None:
        """Link the slot with the one whose output it takes, if a row can follow at all."""
        if x.numel() < self._derive_from:
            return None
        parent = self._makers.get(id(x))
        if parent is None or parent.output is None or parent.output() is not x:
            return None
        if parent.values.device != slot.values.device:
            return None
        rectifies = kin is Kinship.RECTIFIED
        if slot.flat is not None and not rectifies:
            return None  # it is looked for in other values than the parent's
        return self._block.link(slot, parent, rectifies=rectifies)
