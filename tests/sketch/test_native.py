"""The C back end against float64 numpy, with every kernel this processor can run."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses import FakeTensorMode

from actograph.layout.bins import NUM_BINS
from actograph.layout.layer import FlatRegion, Nonlinearity, Side
from actograph.layout.row import Field, empty_rows
from actograph.sketch import native
from actograph.testing.reference import in_flat_region, numpy_fired, numpy_histogram, numpy_row

if native.EXTENSION is None:
    pytest.skip("the C back end was not built", allow_module_level=True)
EXTENSION = native.EXTENSION

RELU = FlatRegion(Nonlinearity.RECTIFIER, Side.OUTPUT, ((-np.inf, 0.0),))
TANH = FlatRegion(Nonlinearity.SATURATING, Side.OUTPUT, ((-np.inf, -0.9746), (0.9746, np.inf)))
GELU = FlatRegion(Nonlinearity.SOFT_RECTIFIER, Side.INPUT, ((-np.inf, -2.17), (-0.76, -0.74)))
DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
BLOCK = 2048  # as in _observe.c
CHUNK = 8 * BLOCK
EXACT = [Field.NEG_COUNT, Field.POS_COUNT, Field.ZEROS, Field.NEAR_ZERO, Field.NAN, Field.INF, Field.FLAT]
EXACT += [Field.MIN, Field.MAX, Field.FIRST_NON_FINITE, Field.NEAR_ZERO_NEG, Field.INF_NEG]


class Measured(NamedTuple):
    values: np.ndarray
    hist: np.ndarray
    fired: np.ndarray


class Memory:
    """A target and what it writes to."""

    def __init__(self, flat: FlatRegion | None = None, axis: int | None = None, units: int = 0) -> None:
        self.values = torch.from_numpy(empty_rows())
        self.hist = torch.zeros(NUM_BINS, dtype=torch.int64)
        self.fired = torch.zeros(units, dtype=torch.bool)
        self.target = native.Target(self.values, self.hist, self.fired, flat, axis)

    def observe(self, *tensors: Tensor) -> Measured:
        for x in tensors:
            assert native.observe(x, self.target)
        return self.read()

    def read(self) -> Measured:
        return Measured(*(np.array(part.numpy()) for part in (self.values, self.hist, self.fired)))


@pytest.fixture(params=EXTENSION.kernels())
def _kernel(request: pytest.FixtureRequest) -> Iterator[None]:
    before = EXTENSION.use(request.param)
    yield
    EXTENSION.use(before)


@pytest.fixture
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


every_kernel = pytest.mark.usefixtures("_kernel")


def exact(x: Tensor) -> np.ndarray:
    return x.detach().to(torch.float64).numpy()


def assert_rows_equal(got: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(got[EXACT], expected[EXACT])
    for first in (Field.NEG_COUNT, Field.POS_COUNT):
        num, mean, m2 = expected[first : first + 3]
        std = np.sqrt(m2 / max(num, 1))
        assert abs(got[first + 1] - mean) <= 1e-6 * np.hypot(mean, std)
        assert abs(np.sqrt(got[first + 2] / max(num, 1)) - std) <= 1e-5 * std + 1e-14 * abs(mean)


def assert_equals_reference(x: Tensor, flat: FlatRegion | None = None, axis: int | None = None) -> None:
    units = 0 if axis is None else x.shape[axis]
    got = Memory(flat, axis, units).observe(x)
    on_output = flat if flat is not None and flat.side is Side.OUTPUT else None
    assert_rows_equal(got.values, numpy_row(exact(x), flat=on_output))
    expected = numpy_histogram(x.detach().numpy() if x.dtype == torch.float64 else x.detach().float().numpy())
    np.testing.assert_array_equal(got.hist, expected)
    if axis is not None and on_output is not None:
        np.testing.assert_array_equal(got.fired, numpy_fired(exact(x), on_output, axis))


def activations(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Return normal values with exact zeros and, along axis 1, some channels that are never positive."""
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    x[x.abs() < 0.1] = 0
    if x.ndim > 1:
        x[:, 1::3] = -x[:, 1::3].abs()
    return x.to(dtype)


LAYOUTS: dict[str, tuple[Callable[[torch.dtype], Tensor], int]] = {
    "contiguous": (lambda dtype: activations(5, 7, 31, 29, dtype=dtype), 1),
    "channels last": (
        lambda dtype: activations(5, 7, 31, 29, dtype=dtype).to(memory_format=torch.channels_last),
        1,
    ),
    "channels last 3d": (
        lambda dtype: activations(3, 7, 5, 11, 13, dtype=dtype).to(memory_format=torch.channels_last_3d),
        1,
    ),
    "last axis": (lambda dtype: activations(3, 41, 67, dtype=dtype).transpose(0, 1), -1),
    "rows": (lambda dtype: activations(1000, 13, dtype=dtype), 1),
    "transposed": (lambda dtype: activations(333, 101, dtype=dtype).t(), 0),
    "every second": (lambda dtype: activations(4, 6, 40, 41, dtype=dtype)[:, ::2, ::2, 1::2], 1),
    "part of each row": (lambda dtype: activations(64, 90, dtype=dtype)[:, 3:77], 1),
    "expanded": (lambda dtype: activations(1, 50, 1, dtype=dtype).expand(40, 50, 30), 1),
    "unfolded": (lambda dtype: activations(5000, dtype=dtype).unfold(0, 50, 7), 1),
    "odd address": (lambda dtype: activations(70_001, dtype=dtype)[1:], 0),
    "six axes": (lambda dtype: activations(3, 4, 5, 6, 7, 8, dtype=dtype).permute(5, 1, 3, 0, 2, 4)[1:], 3),
    "one value": (lambda dtype: torch.tensor([[-1.5]], dtype=dtype), 1),
}


@every_kernel
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_agrees_with_numpy_in_every_type_and_layout(dtype: torch.dtype, layout: str) -> None:
    make, axis = LAYOUTS[layout]
    x = make(dtype)
    for flat in (None, RELU, TANH, GELU):
        assert_equals_reference(x, flat, axis if flat else None)


@every_kernel
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_finds_the_units_that_fired_along_any_axis(dtype: torch.dtype, axis: int) -> None:
    x = -activations(40, 9, 133, dtype=dtype).abs()
    x[35, 4, 100] = 0.5
    x[39, 8, 132] = float("nan")
    x[0, 0, 0] = float("-inf")
    assert_equals_reference(x, RELU, axis)
    assert_equals_reference(x[:, ::2], TANH, axis)
    assert_equals_reference(x.transpose(1, 2), RELU, axis)


@every_kernel
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("flat", [None, TANH, GELU])
def test_tells_which_units_a_relu_fires(dtype: torch.dtype, layout: str, flat: FlatRegion | None) -> None:
    make, axis = LAYOUTS[layout]
    x = (
        make(dtype).contiguous()
        if layout == "unfolded"
        else make(dtype).clone(memory_format=torch.preserve_format)
    )
    units = x.shape[axis]
    x.select(axis, 0).fill_(float("-inf"))  # a ReLU makes zeros of them
    if units > 3:
        x.movedim(axis, 0)[(2, *[0] * (x.ndim - 1))] = float("nan")
    memory = Memory(flat, axis, units if flat is not None else 0)
    rectified = torch.zeros(units, dtype=torch.bool)
    target = native.Target(memory.values, memory.hist, memory.fired, flat, axis, rectified)
    assert native.observe(x, target)
    np.testing.assert_array_equal(rectified.numpy(), numpy_fired(exact(x.relu()), RELU, axis))
    if flat is TANH:
        np.testing.assert_array_equal(memory.fired.numpy(), numpy_fired(exact(x), flat, axis))
    before = rectified.clone()
    assert native.observe_flat(-x, target)
    assert torch.equal(before, rectified)  # the input is another tensor


def special_values(dtype: torch.dtype) -> Tensor:
    info = torch.finfo(dtype)
    edges = [
        0.05,
        -0.05,
        2.0**-26,
        2.0**-27,
        2.0**17,
        2.0**17 * 0.999,
        1.25,
        1.2499999,
        0.9746,
        -0.9746,
        -2.17,
    ]
    magnitudes = [0.0, info.tiny, info.tiny / 2, info.smallest_normal / 4, info.max, info.eps, 1.0, *edges]
    if dtype == torch.float64:
        magnitudes += [1e300, 1e-300, 3.5e38, 1e-46, 5e-324]
    signed = torch.tensor([*magnitudes, *(-m for m in magnitudes)], dtype=torch.float64).to(dtype)
    signed = signed[signed.isfinite()]
    around = torch.cat([signed.nextafter(torch.full_like(signed, side)) for side in (-np.inf, np.inf)])
    return torch.cat([signed, around[around.isfinite()]])


@every_kernel
@pytest.mark.parametrize("dtype", DTYPES)
def test_agrees_with_numpy_on_edges_denormals_and_the_largest_numbers(dtype: torch.dtype) -> None:
    for x in special_values(dtype):
        if x.abs() < 1e150:  # squares beyond overflow in float64
            assert_equals_reference(x.repeat(50), TANH)  # each alone, in vectors and tail
    together = special_values(dtype)
    together = together[together.abs() < 1e18]  # beyond, squares swallow all others
    assert_equals_reference(together.repeat(100), TANH)


def test_numbers_whose_sum_overflows_have_a_mean() -> None:
    x = torch.full((3 * CHUNK + 5,), 1.5e308, dtype=torch.float64)
    got = Memory().observe(x)
    np.testing.assert_array_equal(got.hist, numpy_histogram(x.numpy()))
    assert got.values[Field.POS_MEAN] == pytest.approx(1.5e308)
    assert not np.isnan(got.values).any()


@every_kernel
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [1, 15, 50, BLOCK, 3 * CHUNK + 5])
def test_counts_nan_and_infinity_and_leaves_them_out(dtype: torch.dtype, size: int) -> None:
    x = activations(size, dtype=dtype)
    x[:: max(1, size // 7)] = float("nan")
    x[3 :: max(1, size // 5)] = float("inf")
    x[4 :: max(1, size // 3)] = float("-inf")
    assert_equals_reference(x, RELU)
    for value in (float("nan"), float("inf"), float("-inf"), -float("nan")):
        assert_equals_reference(torch.full((size,), value, dtype=dtype), RELU)


@every_kernel
@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 0.1, -0.1, 1e-25, -1e-40, 1e30, 3e38, 0.05])
def test_equal_values_have_no_spread(value: float) -> None:
    x = torch.full((3 * CHUNK + 5,), value)
    assert_equals_reference(x)
    spread = Memory().observe(x).values[[Field.NEG_M2, Field.POS_M2]]
    assert (np.sqrt(spread / len(x)) <= 1e-14 * abs(value)).all()


SPREADS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean 1e4, spread 1e-2": lambda x: 1e4 + 1e-2 * x,
    "mean -1e4, spread 1e-2": lambda x: -1e4 + 1e-2 * x,
    "two far clusters": lambda x: torch.where(
        torch.arange(len(x)) < len(x) // 2, 1e4 + x * 1e-2, -1e-3 * x.abs()
    ),
    "one far value": lambda x: torch.where(torch.arange(len(x)) == 0, -1e6, -1 + x * 1e-3),
    "a sign that comes late": lambda x: torch.where(torch.arange(len(x)) % CHUNK < 16, -1.0, 1e4 + 1e-2 * x),
    "clusters that take turns": lambda x: torch.where(
        torch.arange(len(x)) // BLOCK % 2 == 0, 1e3 + x, 1e-3 * x
    ),
    "sorted": lambda x: x.exp().sort().values,
    "heavy tails": lambda x: torch.sinh(4 * x),
    "tiny": lambda x: 1e-25 * x,
    "huge": lambda x: 1e30 * x,
    "tiny about a small mean": lambda x: 1e-9 + 1e-15 * x,
}


@every_kernel
@pytest.mark.parametrize("spread", SPREADS)
def test_moments_hold_where_float32_sums_would_not(spread: str) -> None:
    x = SPREADS[spread](torch.randn(5 * CHUNK + 77, generator=torch.Generator().manual_seed(1)))
    assert_equals_reference(x)


def test_measures_a_hundred_million_values() -> None:
    part = torch.randn(1_000_000, generator=torch.Generator().manual_seed(0)) * 0.7 + 0.3
    got = Memory(RELU).observe(part.repeat(100))
    one = numpy_row(exact(part), flat=RELU)
    times = one.copy()
    times[[f for f in EXACT if f not in (Field.MIN, Field.MAX)]] *= 100
    times[[Field.NEG_M2, Field.POS_M2]] *= 100
    assert_rows_equal(got.values, times)
    np.testing.assert_array_equal(got.hist, 100 * numpy_histogram(part.numpy()))
    np.testing.assert_array_equal(got.hist, Memory().observe(part.expand(100, -1)).hist)


@every_kernel
def test_an_empty_tensor_changes_nothing() -> None:
    memory = Memory(RELU, 1, 3)
    before = memory.observe(activations(4, 3, 5))
    for shape in [(0,), (0, 3), (4, 3, 0)]:
        after = memory.observe(torch.empty(shape))
        for a, b in zip(before, after, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_scalar_is_measured() -> None:
    assert_equals_reference(torch.tensor(0.3))


@settings(max_examples=60, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 5 * CHUNK), max_size=5),
    seed=st.integers(0, 99),
    dtype=st.sampled_from(DTYPES),
    offset=st.sampled_from([0.0, 0.5, 100.0]),
)
def test_parts_merge_to_the_whole(cuts: list[int], seed: int, dtype: torch.dtype, offset: float) -> None:
    x = (activations(5 * CHUNK, seed=seed) + offset).to(dtype)
    bounds = [0, *sorted(cuts), len(x)]
    parts = [x[low:high] for low, high in itertools.pairwise(bounds)]
    in_parts, whole = Memory(TANH).observe(*parts), Memory(TANH).observe(x)
    assert_rows_equal(in_parts.values, whole.values)
    np.testing.assert_array_equal(in_parts.hist, whole.hist)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 9999), size=st.integers(1, 2 * CHUNK))
def test_order_does_not_matter(seed: int, size: int) -> None:
    x = activations(size, seed=seed) * 3 + 1
    mixed = x[torch.randperm(size, generator=torch.Generator().manual_seed(seed))]
    one, other = Memory(RELU).observe(x), Memory(RELU).observe(mixed)
    assert_rows_equal(one.values, other.values)
    np.testing.assert_array_equal(one.hist, other.hist)


def test_units_are_flagged_over_several_tensors_and_never_unflagged() -> None:
    memory = Memory(RELU, 1, 3)
    assert memory.observe(torch.tensor([[1.0, -1.0, 0.0]])).fired.tolist() == [True, False, False]
    assert memory.observe(torch.tensor([[-1.0, -1.0, 2.0]])).fired.tolist() == [True, False, True]
    assert memory.observe(torch.tensor([[-1.0, -1.0, -2.0]])).fired.tolist() == [True, False, True]


def test_units_are_left_alone_where_the_channel_axis_does_not_fit() -> None:
    for shape in [(4, 5), (3,)]:
        memory = Memory(RELU, 1, 3)
        got = memory.observe(torch.ones(shape))
        assert not got.fired.any()
        assert got.values[Field.POS_COUNT] == np.prod(shape)


@every_kernel
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_flat_region_of_an_input_is_counted_apart(dtype: torch.dtype, layout: str) -> None:
    make, axis = LAYOUTS[layout]
    x = make(dtype)
    memory = Memory(GELU, axis, x.shape[axis])
    assert native.observe_flat(x, memory.target)
    got, expected = memory.read(), empty_rows()
    expected[Field.FLAT] = in_flat_region(exact(x), GELU).sum()
    np.testing.assert_array_equal(got.values, expected)
    assert not got.hist.any()
    np.testing.assert_array_equal(got.fired, numpy_fired(exact(x), GELU, axis))


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [300_000, 1_000_003])
def test_two_threads_give_the_same_bits_as_one(dtype: torch.dtype, size: int) -> None:
    x = activations(size, dtype=dtype) + 0.25
    for source in (x, x[: size // 7 * 7].reshape(-1, 7)[:, :6]):
        two = [Memory(RELU).observe(source) for _ in range(20)]
        torch.set_num_threads(1)
        one = Memory(RELU).observe(source)
        torch.set_num_threads(2)
        for again in two:
            assert again.values.tobytes() == one.values.tobytes()
            np.testing.assert_array_equal(again.hist, one.hist)


@pytest.mark.usefixtures("_two_threads")
def test_several_python_threads_may_measure_at_once() -> None:
    tensors = [activations(300_000, seed=seed) for seed in range(4)]
    memories = [Memory(RELU) for _ in tensors]

    def measure(index: int) -> None:
        for _ in range(10):
            memories[index].observe(tensors[index])

    threads = [threading.Thread(target=measure, args=(index,)) for index in range(len(tensors))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for x, memory in zip(tensors, memories, strict=True):
        expected = Memory(RELU).observe(*[x] * 10)
        assert memory.read().values.tobytes() == expected.values.tobytes()
        np.testing.assert_array_equal(memory.read().hist, expected.hist)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.usefixtures("_two_threads")
def test_measures_with_two_threads_after_a_fork() -> None:
    x = activations(1_000_000)
    expected = Memory().observe(x)  # the worker runs in the parent
    child = os.fork()
    if child == 0:  # no assert here: nothing of pytest may run in the child
        got = [Memory().observe(x) for _ in range(5)]
        same = all(one.values.tobytes() == expected.values.tobytes() for one in got)
        has_worker = sys.platform != "linux" or len(os.listdir("/proc/self/task")) == 2  # noqa: PTH208
        os._exit(0 if same and has_worker else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert Memory().observe(x).values.tobytes() == expected.values.tobytes()


def test_other_python_threads_run_meanwhile() -> None:
    x = activations(1_000_000).expand(30, -1)
    memory, gate, ran = Memory(), threading.Lock(), []
    # straight to C: torch's own methods let other threads run too
    arguments = (memory.target.handle, x.data_ptr(), 0, x.size(), x.stride(), 1)
    before = sys.getswitchinterval()
    gate.acquire()

    def wait_for_gate() -> None:
        with gate:
            ran.append(True)

    thread = threading.Thread(target=wait_for_gate)
    thread.start()
    sys.setswitchinterval(1000.0)  # seconds: the other thread runs only where this one lets go by itself
    try:
        gate.release()
        for _ in range(50):  # a busy machine may need more than one
            EXTENSION.observe(*arguments)
            if ran:
                break
        assert ran
    finally:
        sys.setswitchinterval(before)
        thread.join()


def test_flushing_denormals_in_torch_changes_nothing() -> None:
    x = torch.tensor([1e-40, -1e-40, 0.0, 1e-39] * 100)
    expected = Memory(RELU).observe(x)
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush denormals")
    try:
        got = Memory(RELU).observe(x)
    finally:
        torch.set_flush_denormal(False)
    assert got.values.tobytes() == expected.values.tobytes()
    np.testing.assert_array_equal(got.hist, expected.hist)


class Marked(Tensor):
    pass


def refused() -> dict[str, Tensor]:
    with FakeTensorMode():
        fake = torch.ones(3)
    unstored = torch.ones(3)
    unstored.untyped_storage().resize_(0)
    return {
        "int": torch.ones(3, dtype=torch.int64),
        "complex": torch.ones(3, dtype=torch.complex64),
        "negated view": torch.ones(3, dtype=torch.complex64).conj().imag,
        "zero tensor": torch._efficientzerotensor(3),
        "meta": torch.ones(3, device="meta"),
        "fake": fake,
        "sparse": torch.ones(3).to_sparse(),
        "subclass": torch.ones(3).as_subclass(Marked),
        "without storage": unstored,
        "too many axes": torch.ones((1,) * 20),
    }


@pytest.mark.parametrize("kind", refused())
def test_leaves_to_the_reference_what_is_not_plain_memory(kind: str) -> None:
    memory = Memory(RELU)
    before = memory.read()
    x = refused()[kind]
    assert not native.observe(x, memory.target)
    assert not native.observe_flat(x, memory.target)
    np.testing.assert_array_equal(memory.read().values, before.values)
    assert not memory.read().hist.any()
    if kind in ("int", "complex", "meta", "fake", "sparse", "subclass"):
        assert not native.accepts(x)


def test_leaves_tensors_inside_function_transforms_to_the_reference() -> None:
    memory, taken = Memory(), []

    def look(x: Tensor) -> Tensor:
        taken.append(native.observe(x, memory.target))
        return x.sum()

    torch.func.vmap(look)(torch.ones(2, 3))
    torch.func.grad(look)(torch.ones(3))
    torch.func.functionalize(look)(torch.ones(3))
    assert taken == [False, False, False]


def test_takes_parameters_and_tensors_with_gradients() -> None:
    assert native.accepts(torch.nn.Parameter(torch.ones(3)))
    assert_equals_reference(torch.nn.Parameter(activations(3, 4)) * 2, RELU, 1)


def test_a_target_of_the_wrong_type_is_refused() -> None:
    values, hist, fired = (
        torch.from_numpy(empty_rows()),
        torch.zeros(NUM_BINS),
        torch.zeros(0, dtype=torch.bool),
    )
    with pytest.raises(ValueError, match=r"hist is \(349,\) torch.float32 on cpu; C writes to contiguous"):
        native.Target(values, hist, fired, None, None)


def chunks(
    num_rows: int = 4, num_flags: int = 16
) -> tuple[tuple[np.ndarray], tuple[np.ndarray], tuple[np.ndarray]]:
    hist, flags = np.zeros((num_rows, NUM_BINS), np.int64), np.zeros(num_flags, np.bool_)
    return (empty_rows(num_rows),), (hist,), (flags,)


@pytest.mark.parametrize(("num_rows", "num_counts", "num_bytes"), [(5, 5, 2), (3, 4, 2), (4, 4, 3)])
def test_arrays_that_do_not_fit_together_are_refused(num_rows: int, num_counts: int, num_bytes: int) -> None:
    rows, hist = empty_rows(num_rows), np.zeros((num_counts, NUM_BINS), np.uint32)
    with pytest.raises((ValueError, IndexError)):
        native.collect(*chunks(), rows, hist, np.zeros(num_bytes, np.uint8), 0)
    with pytest.raises(ValueError, match="contiguous"):
        native.derive(np.asfortranarray(rows), hist, np.zeros((0, 3), np.int64))
    if num_rows == num_counts:
        for slot, parent in [(num_rows, 0), (0, num_rows), (-1, 0), (0, -1), (1, 1)]:
            with pytest.raises(ValueError, match="do not fit together"):
                native.derive(rows, hist, np.array([[slot, parent, 0]]))
    else:
        with pytest.raises(ValueError, match="do not fit together"):
            native.derive(rows, hist, np.zeros((0, 3), np.int64))
