from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actograph.layout.layer import FlatRegion, Nonlinearity, Side
from actograph.layout.row import Field, moments
from actograph.sketch import block as block_module
from actograph.sketch import native, reference
from actograph.sketch.block import Block
from actograph.testing.reference import numpy_fired, numpy_histogram, numpy_row

RELU = FlatRegion(Nonlinearity.RECTIFIER, Side.OUTPUT, ((-math.inf, 0.0),))
BAND = FlatRegion(Nonlinearity.SATURATING, Side.OUTPUT, ((-math.inf, -0.9), (0.9, math.inf)))
COUNTS = [
    Field.NEG_COUNT,
    Field.POS_COUNT,
    Field.ZEROS,
    Field.NEAR_ZERO,
    Field.NAN,
    Field.INF,
    Field.NEAR_ZERO_NEG,
    Field.INF_NEG,
    Field.FLAT,
    Field.MIN,
    Field.MAX,
]
MOMENTS = [Field.NEG_MEAN, Field.NEG_M2, Field.POS_MEAN, Field.POS_M2]


def observed(
    *parts: Tensor, flat: FlatRegion | None = None, axis: int = 1
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    block = Block()
    units = parts[0].shape[axis] if parts[0].ndim > axis else 0
    slot = block.add(parts[0].device, flat, axis, units)
    for part in parts:
        reference.observe(part, slot)
    fired = slot.fired.numpy().copy()
    rows, hist, _ = block.take(0)
    rows[0, Field.FIRST_NON_FINITE] = np.inf
    return rows[0], hist[0], fired


def assert_equal_to_numpy(*parts: Tensor, flat: FlatRegion | None = None) -> None:
    row, hist, fired = observed(*parts, flat=flat)
    values = torch.cat([part.detach().double() for part in parts]).numpy()
    expected = numpy_row(values, flat=flat)
    np.testing.assert_array_equal(row[COUNTS], expected[COUNTS])
    np.testing.assert_allclose(row[MOMENTS], expected[MOMENTS], rtol=1e-12, atol=1e-300)
    np.testing.assert_array_equal(hist, numpy_histogram(values))
    if flat is not None:
        np.testing.assert_array_equal(fired, numpy_fired(values, flat, 1))


def with_everything(dtype: torch.dtype = torch.float32) -> Tensor:
    x = torch.randn(6, 8, 5, 5)
    x[0, 0, 0, :] = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0])
    x[1, 1, 0, :3] = torch.tensor([1e-40, -1e-40, 1e30])  # denormals and a huge value
    x[:, 3] = -1.0  # a unit that never fires
    x[:, 4] = 0.05
    return x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("flat", [None, RELU, BAND])
def test_rows_equal_float64_numpy(dtype: torch.dtype, flat: FlatRegion | None) -> None:
    assert_equal_to_numpy(with_everything(dtype), flat=flat)


@pytest.mark.parametrize("flat", [None, RELU])
def test_any_strides_give_the_same_row(flat: FlatRegion | None) -> None:
    x = with_everything()
    for view in (
        x.contiguous(memory_format=torch.channels_last),
        x[:, :, ::2],
        x.transpose(2, 3),
        x[::2, :, 1:4],
    ):
        assert_equal_to_numpy(view, flat=flat)


def test_micro_batches_merge_into_one_row() -> None:
    x = with_everything()
    assert_equal_to_numpy(x[:1], x[1:3], x[3:], flat=RELU)


@pytest.mark.parametrize("values", [[3.0], [2.0] * 50, [math.nan], []])
def test_single_equal_and_missing_values(values: list[float]) -> None:
    row, hist, _ = observed(torch.tensor(values))
    np.testing.assert_array_equal(row[COUNTS], numpy_row(np.array(values))[COUNTS])
    assert hist.sum() == np.isfinite(values).sum()


@pytest.mark.parametrize(("mean", "std"), [(1e4, 1e-2), (-1e4, 1e-2), (0.0, 1.0), (3.0, 1e3)])
def test_mean_and_std_are_as_exact_as_promised(mean: float, std: float) -> None:
    x = (mean + std * torch.randn(40_000, dtype=torch.float64)).float().reshape(100, 400)
    row, _, _ = observed(x)
    exact = x.double().numpy()
    num, ours, m2 = moments(row)
    assert abs(ours - exact.mean()) <= 1e-6 * np.sqrt((exact**2).mean())
    assert np.sqrt(m2 / (num - 1)) == pytest.approx(exact.std(ddof=1), rel=1e-5)


@given(st.lists(st.floats(width=32), min_size=1, max_size=40), st.integers(1, 39))
def test_a_split_anywhere_gives_the_whole(values: list[float], cut: int) -> None:
    x = torch.tensor(values)
    parts = [part for part in (x[:cut], x[cut:]) if part.numel()]
    row, hist, _ = observed(*parts)
    expected = numpy_row(x.numpy())
    np.testing.assert_array_equal(row[COUNTS], expected[COUNTS])
    np.testing.assert_array_equal(hist, numpy_histogram(x.numpy()))


def test_only_the_flat_region_is_looked_for_in_an_input() -> None:
    x = with_everything()
    block = Block()
    slot = block.add(x.device, RELU, 1, 8)
    reference.observe_flat(x, slot)
    fired = slot.fired.numpy().copy()
    rows, hist, _ = block.take(0)
    assert rows[0, Field.FLAT] == numpy_row(x.numpy(), flat=RELU)[Field.FLAT]
    assert hist.sum() == 0
    np.testing.assert_array_equal(fired, numpy_fired(x.numpy(), RELU, 1))


def test_units_of_another_number_leave_the_flags_alone() -> None:
    block = Block()
    slot = block.add(torch.device("cpu"), RELU, 1, 8)
    reference.observe(torch.ones(2, 5), slot)
    assert not slot.fired.any()


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (100.0, 0.1), (-1e4, 0.05)])
def test_a_device_without_float64_measures_in_float32(
    mean: float, std: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert block_module.row_dtype(torch.device("mps")) is torch.float32
    for module in (block_module, reference):
        monkeypatch.setattr(module, "row_dtype", lambda device: torch.float32)
    monkeypatch.setattr(block_module, "_c_serves", lambda device: False)
    monkeypatch.setattr(native, "collect", lambda *_: False)
    x = (mean + std * torch.randn(64, 4, 9, dtype=torch.float64)).float()
    row, hist, _ = observed(x, flat=BAND)
    expected = numpy_row(x.numpy(), x.numpy(), BAND)
    np.testing.assert_array_equal(row[COUNTS], expected[COUNTS].astype(np.float32))
    np.testing.assert_allclose(row[MOMENTS], expected[MOMENTS], rtol=2e-5)
    np.testing.assert_array_equal(hist, numpy_histogram(x.numpy()))
