"""`Slot`: where one tensor's row is written; `Link`: from which other slot it follows; `Links`: all of a device.

No idea of modules. What follows is filled in on the host once a step, by `Links.fill_in`, not in hooks; of rows that are on
their way from a device when they have come, by the `Filling` that their step left.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from actograph.layout.layer import FlatRegion
from actograph.layout.row import Counts, Floats, empty_rows
from actograph.sketch import cuda, derived, native
from actograph.sketch.native import Bytes

Positions = NDArray[np.intp]


@dataclass(eq=False, slots=True)
class Slot:
    """One tensor's row in the open step: views into a block, and what a back end must know of the layer.

    ``values`` is (NUM_FIELDS,) float64 (float32 on devices without float64), ``hist`` (NUM_BINS,) int64, ``fired``
    (units,) bool, empty where the layer has no flat region or no channel axis. ``rectified`` (units,) bool tells of which
    units a ReLU that follows fires; empty until such a ReLU is linked.
    """

    values: Tensor
    hist: Tensor
    fired: Tensor
    flat: FlatRegion | None
    channel_axis: int | None
    num_units: int
    rectified: Tensor
    index: int  # of its row among those of its device
    fired_bytes: slice  # where its flags are among the packed ones of its device
    rectified_bytes: slice = field(default_factory=lambda: slice(0))
    target: native.Target | None = None  # the same for the C back end; None where it cannot serve
    cuda_target: cuda.Target | None = None  # the same for the Triton back end
    calls: int = 0  # measured or derived, since the slot was made
    link: Link | None = None  # to the slot whose row this one's follows from
    is_followed: bool = False  # has been the parent of a link
    output: weakref.ref[Tensor] | None = None  # the tensor of the last call, if somebody may follow
    version: int = 0  # of that tensor, when it was measured or derived


@dataclass(eq=False, slots=True)
class Link:
    """Says that the row of ``slot`` follows from that of ``parent``: the same values, or these after a ReLU.

    A link is on trial for one step, in which the slot is measured as well. If every call of the slot had its call of the
    parent and the other way round, it is active from the next step on and nothing is measured. A call that cannot be
    derived is measured; if others of the step were derived before it, or the parent was called more often, the step's row
    of the slot is not known (it is empty), and the slot is measured for good.
    """

    slot: Slot
    parent: Slot
    rectifies: bool
    base: int  # calls of the slot when the step began
    lead: int  # calls of the parent beyond those of the slot when the step began
    num_derived: int = 0  # calls of the slot in the open step that followed from the parent's
    is_active: bool = False

    def admits(self, x: Tensor, changes: int) -> bool:
        """Tell whether ``x``, which the slot's next call took and changed in place so many times, is the parent's output.

        Only in step: the n-th call of one in the step takes the output of the n-th of the other, and so did all before.
        """
        parent, calls = self.parent, self.slot.calls
        return (
            parent.output is not None
            and parent.output() is x
            and parent.version + changes == x._version
            and parent.calls == calls + self.lead + 1
            and calls == self.base + self.num_derived
        )

    def is_whole(self) -> bool:
        """Tell whether all calls of the slot since the step began were derived, and from all calls of the parent."""
        calls = self.slot.calls
        return calls == self.base + self.num_derived and self.parent.calls == calls + self.lead

    def begin_step(self) -> None:
        """Count anew."""
        self.base, self.num_derived = self.slot.calls, 0
        self.lead = self.parent.calls - self.slot.calls


class _Plan(NamedTuple):
    """What to copy from where."""

    followers: NDArray[np.int64]  # (links, 3), as `derived.derive` takes them
    slot_bytes: Positions  # flags of the slots
    parent_bytes: Positions  # and where their parents have them

    def fill_in(self, rows: Floats, hist: Counts, packed: Bytes) -> None:
        if not native.derive(rows, hist, self.followers):
            derived.derive(rows, hist, self.followers)
        packed[self.slot_bytes] = packed[self.parent_bytes]


class Filling(NamedTuple):
    """What is to be done with one step's rows: fill in those that follow from others, empty those that are not known."""

    plan: _Plan | None
    unknown: set[Slot]

    def fill_in(self, rows: Floats, hist: Counts, packed: Bytes) -> None:
        """Do it; arguments as of `Links.fill_in`, of the step that had ended."""
        if self.plan is not None:
            self.plan.fill_in(rows, hist, packed)
        for slot in self.unknown:
            rows[slot.index], hist[slot.index] = empty_rows(), 0
            packed[slot.fired_bytes] = 0


def _plan_for(links: list[Link]) -> _Plan:
    """Return what the links, parents before their heirs, ask for."""
    rectified = [link for link in links if len(link.slot.fired)]  # an alias has no flat region, so no flags
    followers = [(link.slot.index, link.parent.index, link.rectifies) for link in links]
    return _Plan(
        np.array(followers, np.int64).reshape(-1, 3),
        positions_of([link.slot.fired_bytes for link in rectified]),
        positions_of([link.parent.rectified_bytes for link in rectified]),
    )


def positions_of(slices: list[slice]) -> Positions:
    """Return all positions in the slices, one after the other."""
    none = np.zeros(0, np.intp)
    return np.concatenate([none, *(np.arange(one.start, one.stop) for one in slices)])


@dataclass(eq=False)
class Links:
    """The links between slots of one device. ``look_for_rectified`` gives a slot its ``rectified`` flags."""

    look_for_rectified: Callable[[Slot], None]
    _active: list[Link] = field(default_factory=list)  # parents before their heirs
    _on_trial: list[Link] = field(default_factory=list)
    _plan: _Plan = field(default_factory=lambda: _plan_for([]))  # of the active ones

    def add(self, slot: Slot, parent: Slot, *, rectifies: bool) -> Link:
        """Put a link on trial for the open step."""
        link = Link(slot, parent, rectifies, base=slot.calls, lead=parent.calls - 1 - slot.calls)
        slot.link = link
        parent.is_followed = True
        self._on_trial.append(link)
        return link

    def fill_in(self, rows: Floats, hist: Counts, packed: Bytes) -> None:
        """Fill in the rows that follow from others, empty those that are not known, and begin the next step.

        ``rows`` is (slots, NUM_FIELDS), ``hist`` (slots, NUM_BINS), ``packed`` the flags, of all slots of the device.
        """
        self.end_step().fill_in(rows, hist, packed)

    def end_step(self) -> Filling:
        """Return what is to be done with the step's rows, now or when they are on the host, and begin the next step."""
        unknown: set[Slot] = set()
        known = [link for link in self._active if _follows(link, unknown)]
        plan = None
        if known:
            plan = self._plan if len(known) == len(self._active) else _plan_for(known)
        for link in self._active:
            link.begin_step()
        if unknown or self._on_trial:
            self._settle()
        return Filling(plan, unknown)

    def _settle(self) -> None:
        """Part with what is broken, and take into service what held on trial."""
        self._active = [link for link in self._active if link.is_active]
        for link in self._on_trial:
            link.is_active = link.is_whole() and self._can_serve(link)
            if link.is_active:
                self._active.append(link)
                link.begin_step()
            else:
                link.slot.link = None  # may try again, with another parent
        self._on_trial = []
        self._active.sort(key=lambda link: len(_ancestors(link.parent)))
        self._plan = _plan_for(self._active)

    def _can_serve(self, link: Link) -> bool:
        """Tell whether the slot's flags can be had as well; have the parent look for them from now on."""
        slot, parent = link.slot, link.parent
        if slot in _ancestors(parent):
            return False
        if not link.rectifies:
            return not slot.rectified.numel()  # else another one needs this one measured
        if parent.link is not None and parent.link.is_active:
            return False  # it is not measured, so it cannot tell which units fire
        if (slot.channel_axis, slot.num_units) != (parent.channel_axis, parent.num_units):
            return False
        if not parent.rectified.numel():
            self.look_for_rectified(parent)
        return True


def _ancestors(slot: Slot) -> list[Slot]:
    """Return the slot and those that it follows from, one from the other."""
    found = [slot]
    while found[-1].link is not None and found[-1].link.is_active:
        found.append(found[-1].link.parent)
    return found


def _follows(link: Link, unknown: set[Slot]) -> bool:
    """Tell whether the slot's row follows from its parent's; note it where it is not known."""
    if not link.num_derived:
        return False  # not called, or measured at each call
    if link.is_whole() and link.parent not in unknown:
        return True
    unknown.add(link.slot)
    link.is_active = False
    return False
