from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from actograph.layout.layer import Side
from actograph.layout.row import Field, empty_rows
from actograph.sketch import block as block_module
from actograph.sketch import native
from actograph.sketch.block import CHUNK_FLAGS, CHUNK_ROWS, Block
from actograph.sketch.observe import is_measurable, observe_input, observe_output
from actograph.testing.synthetic import RELU

CPU = torch.device("cpu")


@pytest.fixture(params=["C", "reference", "sent"], autouse=True)
def _back_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "reference":
        monkeypatch.setattr(native, "EXTENSION", None)
        monkeypatch.setattr(block_module, "_make_targets", lambda slot: None)
    elif not native.available():
        pytest.skip("not built")
    elif request.param == "sent":  # as from a device
        rows = block_module._DeviceRows
        monkeypatch.setattr(rows, "take", lambda self, step: self.send(step).fetch())


def test_layers_keep_their_order_over_chunks() -> None:
    block = Block()
    num_layers = 2 * CHUNK_ROWS + 3
    slots = [block.add(CPU, None, None, 0) for _ in range(num_layers)]
    for value, slot in enumerate(slots):
        observe_output(torch.tensor([value + 0.5]), slot)
    rows, hist, fired = block.take(0)
    np.testing.assert_array_equal(rows[:, Field.MAX], np.arange(num_layers) + 0.5)
    np.testing.assert_array_equal(hist.sum(axis=1), 1)
    assert fired.size == 0


def test_layers_of_several_devices_keep_their_order() -> None:
    block = Block()
    devices = [CPU, torch.device("cpu:0"), CPU, torch.device("cpu:0")]  # not the same to a block
    for units, device in enumerate(devices, start=7):
        observe_output(torch.full((1, units), float(units)), block.add(device, RELU, 1, units))
    observe_output(torch.ones(1, 2), block.add(CPU, None, 1, 2))
    rows, hist, fired = block.take(0)
    assert rows[:, Field.POS_MEAN].tolist() == [7, 8, 9, 10, 1]
    assert hist.sum(axis=1).tolist() == [7, 8, 9, 10, 2]
    assert fired.tolist() == [0b1111111, 0b11111111, 0b11111111, 0b1, 0b11111111, 0b11]


def test_a_block_without_layers_is_empty() -> None:
    assert [len(part) for part in Block().take(0)] == [0, 0, 0]


@pytest.mark.parametrize("num_layers", [1, CHUNK_ROWS + 1])
def test_taking_a_block_clears_it(num_layers: int) -> None:
    block = Block()
    slots = [block.add(CPU, RELU, 1, 3) for _ in range(num_layers)]
    for slot in slots:
        observe_output(torch.tensor([[1.0, -1.0, math.nan]]), slot)
    assert block.take(0)[2].tolist() == [0b101] * num_layers
    rows, hist, fired = block.take(1)
    np.testing.assert_array_equal(rows, empty_rows(num_layers))
    assert hist.sum() == 0
    assert not fired.any()


def test_layers_that_come_later_have_their_rows_and_flags() -> None:
    block = Block()
    for num_layers in (1, 2, CHUNK_ROWS + 1):
        before = block.num_layers
        for _ in range(num_layers - before):
            observe_output(torch.tensor([[1.0, -1.0, 2.0]]), block.add(CPU, RELU, 1, 3))
        rows, _, fired = block.take(0)
        assert rows[:, Field.POS_COUNT].tolist() == [0.0] * before + [2.0] * (num_layers - before)
        assert fired.tolist() == [0] * before + [0b101] * (num_layers - before)


def test_flags_of_each_layer_fill_whole_bytes() -> None:
    block = Block()
    sizes = [3, 17, CHUNK_FLAGS + 1, 8]
    slots = [block.add(CPU, RELU, 1, size) for size in sizes]
    for slot, size in zip(slots, sizes, strict=True):
        observe_output(torch.ones(1, size), slot)
    fired = block.take(0)[2]
    begin = 0
    for size in sizes:
        num_bytes = (size + 7) // 8
        assert np.unpackbits(fired[begin : begin + num_bytes]).sum() == size
        begin += num_bytes
    assert begin == len(fired)


def test_a_step_with_a_nan_is_noted_as_the_first() -> None:
    block = Block()
    for value in (math.nan, 1.0, math.inf, -math.inf):
        observe_output(torch.tensor([1.0, value]), block.add(CPU, None, None, 0))
    assert block.take(41)[0][:, Field.FIRST_NON_FINITE].tolist() == [41.0, np.inf, 41.0, 41.0]


def test_only_dense_floating_tensors_are_measured() -> None:
    assert is_measurable(torch.ones(2))
    for other in (
        torch.ones(2, dtype=torch.long),
        torch.ones(2, device="meta"),
        torch.eye(2).to_sparse(),
        None,
        3.0,
    ):
        assert not is_measurable(other)


def test_the_flat_region_is_looked_for_on_its_side_only() -> None:
    on_input = type(RELU)(RELU.nonlinearity, Side.INPUT, RELU.intervals)
    block = Block()
    slot = block.add(CPU, on_input, 0, 2)
    observe_output(torch.tensor([-1.0, -2.0]), slot)
    assert slot.values[Field.FLAT] == 0
    observe_input(torch.tensor([-1.0, 2.0]), slot)
    assert slot.values[Field.FLAT] == 1
    assert slot.fired.tolist() == [False, True]
