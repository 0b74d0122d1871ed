"""Links by themselves: calls are counted by hand, and what a slot has measured is one value."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from actograph.layout.layer import FlatRegion
from actograph.layout.row import Field
from actograph.sketch.block import Block
from actograph.sketch.links import Link, Slot
from actograph.sketch.observe import observe_output
from actograph.testing.synthetic import RELU

CPU = torch.device("cpu")
UNITS = 4


class Steps:
    """A block whose slots are called, measured or derived, by hand."""

    def __init__(self) -> None:
        self.block = Block()
        self.step = 0

    def slot(self, flat: FlatRegion | None = None, axis: int | None = 1, units: int = UNITS) -> Slot:
        return self.block.add(CPU, flat, axis, units)

    def measure(self, slot: Slot, value: float = 1.0) -> None:
        slot.calls += 1
        observe_output(torch.full((2, UNITS), value), slot)

    def follow(self, link: Link) -> None:
        """Call the slot with its parent's output."""
        link.num_derived += 1
        link.slot.calls += 1

    def try_link(self, slot: Slot, parent: Slot, *, rectifies: bool = False) -> Link:
        """Put on trial what has called the parent once and calls the slot now."""
        link = self.block.link(slot, parent, rectifies=rectifies)
        self.follow(link)
        return link

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        """Return of each slot the number of values, and the flags of all."""
        rows, hist, fired = self.block.take(self.step)
        self.step += 1
        counts = rows[:, [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS]].sum(axis=1)
        np.testing.assert_array_equal(hist.sum(axis=1), counts)
        return counts, fired


@pytest.fixture
def steps() -> Steps:
    return Steps()


def test_two_that_follow_from_each_other_are_not_both_derived(steps: Steps) -> None:
    one, other = steps.slot(), steps.slot()
    steps.measure(one)
    steps.measure(other)
    there = steps.block.link(one, other, rectifies=False)
    back = steps.block.link(other, one, rectifies=False)
    for link in (there, back):  # both whole, as if each had taken what the other gave
        link.base, link.lead = link.slot.calls, 0
    steps.take()
    assert (there.is_active, back.is_active) == (True, False)


def test_a_longer_ring_is_not_closed(steps: Steps) -> None:
    one, two, three = steps.slot(), steps.slot(), steps.slot()
    for slot in (one, two, three):
        steps.measure(slot)
    pairs = [(two, one), (three, two), (one, three)]
    links = [steps.block.link(slot, parent, rectifies=False) for slot, parent in pairs]
    for link in links:
        link.base, link.lead = link.slot.calls, 0
    steps.take()
    assert [link.is_active for link in links] == [True, True, False]


def test_a_slot_that_tells_a_relu_which_units_fire_is_measured_itself(steps: Steps) -> None:
    source, slot, act = steps.slot(), steps.slot(), steps.slot(RELU)
    steps.measure(slot)
    rectified = steps.try_link(act, slot, rectifies=True)
    steps.take()
    steps.measure(source)
    slot.calls += 1
    alias = steps.block.link(slot, source, rectifies=False)
    alias.base, alias.lead, alias.num_derived = slot.calls - 1, source.calls - slot.calls, 1
    assert alias.is_whole()
    observe_output(torch.ones(2, UNITS), slot)
    steps.follow(rectified)
    counts, fired = steps.take()
    assert not alias.is_active
    assert rectified.is_active
    assert counts.tolist() == [2 * UNITS] * 3
    assert fired.tolist() == [0b1111]


@pytest.mark.parametrize(("axis", "units"), [(0, UNITS), (1, UNITS + 1), (None, UNITS)])
def test_a_relu_whose_units_lie_elsewhere_is_measured(steps: Steps, axis: int | None, units: int) -> None:
    parent, act = steps.slot(axis=axis, units=units), steps.slot(RELU)
    steps.measure(parent)
    link = steps.try_link(act, parent, rectifies=True)
    steps.take()
    assert not link.is_active
    assert act.link is None  # it may follow from another one


def test_two_relus_share_the_flags_of_their_parent(steps: Steps) -> None:
    parent, acts = steps.slot(), [steps.slot(RELU), steps.slot(RELU), steps.slot()]
    steps.measure(parent)
    links = [steps.try_link(act, parent, rectifies=True) for act in acts]
    before = steps.block._devices[CPU].num_flags
    steps.take()
    assert steps.block._devices[CPU].num_flags - before == 8  # one byte, packed
    steps.measure(parent)
    for link in links:
        steps.follow(link)
    counts, fired = steps.take()
    assert counts.tolist() == [2 * UNITS] * 4
    assert fired.tolist() == [0b1111, 0b1111]  # the last has no flat region, so no flags


def chain(steps: Steps) -> list[Link]:
    """Return active links of three slots that follow, one from the other, from a first one."""
    slots = [steps.slot() for _ in range(4)]
    steps.measure(slots[0])
    # heirs first: the order in which links are found says nothing
    links = [steps.block.link(slots[n], slots[n - 1], rectifies=False) for n in (3, 2, 1)]
    for link in links:
        link.lead = 0
        link.num_derived = link.slot.calls = 1
    steps.take()
    assert all(link.is_active for link in links)
    return links[::-1]


def test_heirs_of_heirs_get_the_row(steps: Steps) -> None:
    links = chain(steps)
    steps.measure(links[0].parent)
    for link in links:
        steps.follow(link)
    assert steps.take()[0].tolist() == [2 * UNITS] * 4


def test_the_heir_of_an_unknown_row_is_unknown_too(steps: Steps) -> None:
    links = chain(steps)
    steps.measure(links[0].parent)
    for link in links:
        steps.follow(link)
    steps.measure(links[0].parent)  # once more, and nobody follows
    assert steps.take()[0].tolist() == [4 * UNITS, 0, 0, 0]
    assert not any(link.is_active for link in links)


def test_those_that_are_not_called_are_left_empty_and_go_on_later(steps: Steps) -> None:
    links = chain(steps)
    steps.measure(links[0].parent)
    steps.follow(links[0])
    assert steps.take()[0].tolist() == [2 * UNITS, 2 * UNITS, 0, 0]
    steps.measure(links[0].parent)
    for link in links:
        steps.follow(link)
    assert steps.take()[0].tolist() == [2 * UNITS] * 4


def test_a_slot_measured_at_a_call_of_its_own_is_not_overwritten(steps: Steps) -> None:
    first, *_ = chain(steps)
    steps.measure(first.parent)
    steps.measure(first.slot)
    steps.measure(first.slot)
    assert steps.take()[0].tolist() == [2 * UNITS, 4 * UNITS, 0, 0]
    assert first.is_active


def test_an_unknown_row_has_no_flags(steps: Steps) -> None:
    parent, act = steps.slot(), steps.slot(RELU)
    steps.measure(parent)
    link = steps.try_link(act, parent, rectifies=True)
    steps.take()
    steps.measure(parent)
    steps.follow(link)
    steps.measure(act)  # what it took came from elsewhere
    counts, fired = steps.take()
    assert counts.tolist() == [2 * UNITS, 0]
    assert fired.tolist() == [0]
    steps.measure(parent, -1.0)
    link.num_derived += 1  # it would follow again, but stays measured
    steps.measure(act)
    counts, fired = steps.take()
    assert counts.tolist() == [2 * UNITS, 2 * UNITS]
    assert fired.tolist() == [0b1111]
