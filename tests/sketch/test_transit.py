from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from actograph.layout.row import Field
from actograph.sketch import block as block_module
from actograph.sketch import native, reference
from actograph.sketch.block import Block
from actograph.sketch.transit import HostCopy
from actograph.testing.reference import numpy_histogram, numpy_row
from actograph.testing.synthetic import RELU

CPU = torch.device("cpu")


def test_what_is_sent_is_what_would_have_been_taken() -> None:
    blocks = [Block(), Block()]
    for block in blocks:
        generator = torch.Generator().manual_seed(0)
        for units in [3, 11] * 40:  # more than a chunk of rows
            x = torch.randn(5, units, generator=generator)
            x[0, 0] = math.nan
            reference.observe(x, block.add(CPU, RELU, 1, units))
    (rows,) = blocks[0]._devices.values()
    sent = rows.send(7)
    taken = blocks[1].take(7)
    np.testing.assert_array_equal(sent.fetch().rows, taken[0])
    np.testing.assert_array_equal(sent.fetch().hist, taken[1])
    np.testing.assert_array_equal(rows.joined_flags(sent.fetch().packed), taken[2])
    for block in blocks:  # both are clear now
        assert block.take(8)[0][:, Field.POS_COUNT].sum() == 0
        assert not block.take(8)[2].any()


def test_a_copy_is_of_the_moment_it_was_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Block()
    slot = block.add(CPU, RELU, 1, 3)
    reference.observe(torch.ones(2, 3), slot)
    (rows,) = block._devices.values()
    first = rows.send(0)
    reference.observe(-torch.ones(2, 3), slot)
    second = rows.send(1)
    assert [sent.fetch().rows[0, Field.POS_COUNT] for sent in (first, second)] == [6, 0]
    assert [sent.fetch().packed.tolist() for sent in (first, second)] == [[0b111], [0]]


def test_a_device_without_float64_measures_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_module, "row_dtype", lambda device: torch.float32)
    monkeypatch.setattr(reference, "row_dtype", lambda device: torch.float32)
    monkeypatch.setattr(native, "EXTENSION", None)
    monkeypatch.setattr(block_module, "_make_targets", lambda slot: None)
    x = (100 + torch.randn(50, 40)).to(torch.float16)
    x[0] = torch.randn(40)
    x[1, :2] = torch.tensor([math.inf, math.nan])
    block = Block()
    slot = block.add(CPU, RELU, 1, 40)
    for part in (x[:20], x[20:]):
        reference.observe(part, slot)
    assert slot.values.dtype == torch.float32
    (rows,) = block._devices.values()
    row, hist, _ = rows.send(3).fetch()
    expected = numpy_row(x.double().numpy(), flat=RELU)
    expected[Field.FIRST_NON_FINITE] = 3
    np.testing.assert_allclose(row[0], expected, rtol=1e-5)
    np.testing.assert_array_equal(hist[0], numpy_histogram(x.float().numpy()))


def test_the_mps_device_is_known_to_have_no_float64() -> None:
    assert block_module.row_dtype(torch.device("mps")) == torch.float32
    assert block_module.row_dtype(torch.device("cuda")) == torch.float64


def test_a_copy_on_the_host_is_there_at_once() -> None:
    source = torch.arange(3)
    copy = HostCopy(source)
    assert copy.has_arrived()
    assert copy.wait().tolist() == [0, 1, 2]
