"""The Triton kernels against float64 numpy: on the CUDA device where there is one, else in Triton's interpreter."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from actograph.layout.bins import NUM_BINS
from actograph.layout.layer import FlatRegion, Nonlinearity, Side
from actograph.layout.row import NUM_FIELDS, Field, empty_rows
from actograph.sketch import cuda
from actograph.sketch.block import Block
from actograph.testing.reference import in_flat_region, numpy_fired, numpy_histogram, numpy_row

pytest.importorskip("triton", reason="triton is not installed: `make test-gpu` installs it")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("no CUDA device, and no TRITON_INTERPRET=1: run `make test-gpu`", allow_module_level=True)

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
RELU = FlatRegion(Nonlinearity.RECTIFIER, Side.OUTPUT, ((-math.inf, 0.0),))
LEAKY = FlatRegion(Nonlinearity.LOW_SLOPE, Side.OUTPUT, ((-math.inf, -1.2e-38),))
TANH = FlatRegion(Nonlinearity.SATURATING, Side.OUTPUT, ((-math.inf, -0.9746), (0.9746, math.inf)))
GELU = FlatRegion(Nonlinearity.SOFT_RECTIFIER, Side.INPUT, ((-math.inf, -2.17), (-0.76, -0.74)))
SMALL = cuda.Tuning(block=256, num_warps=4)  # several programs, and some with several blocks, for few values
EXACT = [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS, Field.NEAR_ZERO, Field.NAN, Field.INF, Field.FLAT]
EXACT += [Field.MIN, Field.MAX, Field.FIRST_NON_FINITE, Field.NEAR_ZERO_NEG, Field.INF_NEG]


class Memory:
    """A target and what it writes to."""

    def __init__(
        self, flat: FlatRegion | None = None, axis: int | None = None, units: int = 0, rectified: int = 0
    ) -> None:
        self.values = torch.from_numpy(empty_rows()).to(DEVICE)
        self.hist = torch.zeros(NUM_BINS, dtype=torch.int64, device=DEVICE)
        self.fired = torch.zeros(units if flat is not None else 0, dtype=torch.bool, device=DEVICE)
        self.rectified = torch.zeros(rectified, dtype=torch.bool, device=DEVICE)
        self.target = cuda.Target(self.values, self.hist, self.fired, flat, axis, self.rectified)

    def observe(self, *tensors: Tensor, tuning: cuda.Tuning = SMALL) -> Memory:
        for x in tensors:
            assert cuda.observe(x, self.target, tuning)
        return self

    @property
    def row(self) -> np.ndarray:
        return self.values.cpu().numpy()


def exact(x: Tensor) -> np.ndarray:
    return x.detach().cpu().to(torch.float64).numpy()


def assert_rows_equal(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(got[EXACT], expected[EXACT])
    for first in (Field.NEG_COUNT, Field.POS_COUNT):
        num, mean, m2 = expected[first : first + 3]
        std = np.sqrt(m2 / max(num, 1))
        assert abs(got[first + 1] - mean) <= 1e-6 * max(std, 1e-6 * abs(mean))
        assert abs(np.sqrt(got[first + 2] / max(num, 1)) - std) <= 1e-6 * std + 1e-12 * abs(mean)


def assert_equals_numpy(
    *parts: Tensor, flat: FlatRegion | None = None, axis: int = 1, tuning: cuda.Tuning = SMALL
) -> None:
    axis = min(axis, parts[0].ndim - 1)
    units = parts[0].shape[axis]
    got = Memory(flat, axis, units, units).observe(*(part.to(DEVICE) for part in parts), tuning=tuning)
    x = torch.cat(parts)
    on_output = flat if flat is not None and flat.side is Side.OUTPUT else None
    assert_rows_equal(got.row, numpy_row(exact(x), flat=on_output))
    np.testing.assert_array_equal(got.hist.cpu().numpy(), numpy_histogram(x.detach().float().numpy()))
    if on_output is not None:
        np.testing.assert_array_equal(got.fired.cpu().numpy(), numpy_fired(exact(x), on_output, axis))
    passes = np.moveaxis(~(exact(x) <= 0), axis, 0).reshape(units, -1).any(1)
    np.testing.assert_array_equal(got.rectified.cpu().numpy(), passes)


def with_everything(dtype: torch.dtype = torch.float32, *shape: int) -> Tensor:
    x = torch.randn(*(shape or (6, 8, 5, 5)))
    x[0, 0, 0, :5] = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0])
    x[1, 1, 0, :3] = torch.tensor([1e-40, -1e-40, 1e30])  # denormals and a huge value
    x[:, 3] = -x[:, 3].abs()  # a unit that never fires
    x[:, 4] = 0.05
    x[:, 5, 1] = torch.tensor(0.05).nextafter(torch.tensor(0.0))  # near zero in float32 as in float64
    x[:, 6, 2, :2] = -0.05
    return x.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("flat", [None, RELU, LEAKY, TANH, GELU])
def test_rows_equal_float64_numpy(dtype: torch.dtype, flat: FlatRegion | None) -> None:
    assert_equals_numpy(with_everything(dtype), flat=flat)


LAYOUTS: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "channels last": (lambda x: x.contiguous(memory_format=torch.channels_last), 1),
    "units last": (lambda x: x.movedim(1, 3), 3),
    "units first": (lambda x: x, 0),
    "transposed": (lambda x: x.transpose(2, 3), 1),
    "every second": (lambda x: x[:, :, ::2], 1),
    "a part": (lambda x: x[::2, :, 1:4], 1),
    "expanded": (lambda x: x[:, :, :1].expand(6, 8, 9, 7), 1),
    "one unit": (lambda x: x[:, :1], 1),
    "one row": (lambda x: x[:1], 1),
    "odd address": (lambda x: x.flatten()[1:].reshape(1, -1), 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_strides_give_the_same_row(layout: str) -> None:
    view, axis = LAYOUTS[layout]
    x = with_everything(torch.float32, 6, 8, 9, 7)
    assert_equals_numpy(view(x.to(DEVICE)).cpu() if DEVICE.type == "cpu" else view(x), flat=RELU, axis=axis)


@pytest.mark.parametrize("num", [1, 2, 255, 256, 257, 1000])
def test_any_number_of_values(num: int) -> None:
    x = torch.randn(num)
    x[num // 2] = 0.0
    assert_equals_numpy(x, flat=RELU)


@pytest.mark.parametrize(
    "values", [[math.nan], [math.inf], [-math.inf, 1.0], [0.0], [3.0e38] * 9, [-3.4e38, 3.4e38], [1e-45]]
)
def test_extreme_values(values: list[float]) -> None:
    assert_equals_numpy(torch.tensor(values), flat=TANH)


def test_an_empty_tensor_adds_nothing() -> None:
    got = Memory(RELU, 1, 3).observe(torch.zeros(0, 3, device=DEVICE))
    np.testing.assert_array_equal(got.row, empty_rows())


@pytest.mark.parametrize(
    ("mean", "std"),
    [(1e4, 1e-2), (-1e4, 1e-2), (0.0, 1.0), (3.0, 1e3), (0.0, 1e-25), (1e-30, 1e-33), (0.0, 1e25)],
)
def test_moments_hold_far_from_zero_and_in_any_unit(mean: float, std: float) -> None:
    x = (mean + std * torch.randn(9_000, dtype=torch.float64)).float()
    assert_equals_numpy(x, tuning=cuda.Tuning(1024, 4))


def test_moments_of_blocks_that_differ_widely() -> None:
    x = torch.cat([1e4 + 1e-2 * torch.randn(256), 5 + 1e-2 * torch.randn(1000), 1e-6 * torch.rand(300)])
    assert_equals_numpy(x)


@pytest.mark.parametrize("num_programs", [1, 3])
def test_more_blocks_than_programs(num_programs: int) -> None:
    x = with_everything(torch.float32, 2, 8, 9, 7)
    assert_equals_numpy(x, flat=RELU, tuning=cuda.Tuning(64, 2, num_programs))


def test_micro_batches_merge_into_one_row() -> None:
    x = with_everything()
    assert_equals_numpy(x[:1], x[1:3], x[3:], flat=RELU)


def test_one_tensor_gives_one_row_to_the_bit() -> None:
    x = with_everything().to(DEVICE)
    first, second = (Memory(RELU, 1, 8).observe(x) for _ in range(2))
    assert torch.equal(first.values, second.values)
    assert torch.equal(first.hist, second.hist)


def test_deterministic_mode_has_no_objection() -> None:
    torch.use_deterministic_algorithms(True)
    try:
        assert_equals_numpy(with_everything()[:, :, ::2], flat=RELU)
    finally:
        torch.use_deterministic_algorithms(False)


def test_only_the_flat_region_is_looked_for_in_an_input() -> None:
    x = with_everything(torch.float32, 6, 8, 9, 7)
    got = Memory(GELU, 1, 8)
    for part in (x[:2], x[2:]):
        assert cuda.observe_flat(part.to(DEVICE), got.target, SMALL)
    expected = empty_rows()
    expected[Field.FLAT] = in_flat_region(exact(x), GELU).sum()
    np.testing.assert_array_equal(got.row, expected)
    np.testing.assert_array_equal(got.fired.cpu().numpy(), numpy_fired(exact(x), GELU, 1))
    assert not got.hist.any()


def test_units_of_another_number_leave_the_flags_alone() -> None:
    got = Memory(RELU, 1, 8, rectified=8).observe(
        torch.ones(2, 5, device=DEVICE), torch.ones(3, device=DEVICE)
    )
    assert not got.fired.any()
    assert not got.rectified.any()
    assert got.row[Field.POS_COUNT] == 13


def test_other_types_are_left_to_the_reference() -> None:
    memory = Memory()
    for other in (torch.ones(2, dtype=torch.float64, device=DEVICE), torch.ones(2, device="meta")):
        assert not cuda.observe(other, memory.target)
        assert not cuda.observe_flat(other, memory.target)
    np.testing.assert_array_equal(memory.row, empty_rows())


def test_what_a_launch_needs_for_itself_is_clear_afterwards() -> None:
    got = Memory(RELU, 1, 8).observe(with_everything().to(DEVICE))
    assert not got.target.counts.any()
    assert not got.target.ticket.any()


def test_a_block_hands_out_targets_of_its_own_memory() -> None:
    slot = Block().add(DEVICE, RELU, 1, 8)
    target = slot.cuda_target
    if DEVICE.type == "cpu":
        assert target is None  # the interpreter is for tests only
        return
    assert target is not None
    assert target.values.data_ptr() == slot.values.data_ptr()
    assert target.values.shape == (NUM_FIELDS,)
