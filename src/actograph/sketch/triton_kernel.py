"""The two Triton kernels that measure one tensor: `observe_kernel` its row, `observe_flat_kernel` what an input tells.

No idea of slots, strides or torch: they get addresses. Host side: cuda.py. What a row is: layout/row.py and layout/bins.py.

How it goes. Each program takes every so-manieth block of the tensor, at fixed places. A block is in registers, so it can be
looked at twice: its mean first, then the deviations from it (the corrected two-pass algorithm, Chan et al. 1983), in
float32 scaled by a power of two so that no square overflows or vanishes, for x < 0 and x > 0 apart. Blocks merge in float64
(Chan et al. 1979). One histogram counts everything that is a count: beside the bins of the row there are bins for NaN, the
infinities, and the near-zero part of the two bins that 0.05 lies in. The program that finishes last (an atomic ticket)
merges what all have left in memory, always in the order of the programs, into the row. Sums of programs are integers or
go by that fixed order, so one tensor gives one row, bit for bit, on any card.

The module needs Triton to be imported; nobody imports it before there is a CUDA tensor.
"""

from __future__ import annotations

import numpy as np
import triton
import triton.language as tl

from actograph.layout import bins
from actograph.layout.row import NEAR_ZERO, Field

MAX_PROGRAMS = (
    512  # enough for 128 processors with four each; a constant, so that rows do not depend on the card
)
PARTIALS = 9  # numbers that each program leaves: see `_leave`
TABLE = 512  # counters of the histogram in the kernel, a power of two


def _largest_float_below(limit: float) -> np.float32:
    rounded = np.float32(limit)
    return np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > limit else rounded


_near_zero_bits = int(_largest_float_below(NEAR_ZERO).view(np.int32))
_near_zero_key = (_near_zero_bits >> bins.KEY_SHIFT) - bins.KEY_OFFSET  # 0.05 is no edge: its bin is split

NUM_BINS = tl.constexpr(bins.NUM_BINS)
ZERO_BIN = tl.constexpr(bins.ZERO_BIN)
KEY_SHIFT = tl.constexpr(bins.KEY_SHIFT)
KEY_OFFSET = tl.constexpr(bins.KEY_OFFSET)
KEY_HIGH = tl.constexpr(bins.MAGNITUDES - 1)
NEAR_ZERO_BITS = tl.constexpr(_near_zero_bits)
NEAR_ZERO_KEY = tl.constexpr(_near_zero_key)
NAN_BIN = tl.constexpr(bins.NUM_BINS)
POS_INF_BIN = tl.constexpr(bins.NUM_BINS + 1)
NEG_INF_BIN = tl.constexpr(bins.NUM_BINS + 2)
NEG_NEAR_BIN = tl.constexpr(bins.NUM_BINS + 3)  # of the bin that -0.05 lies in, what is near zero
POS_NEAR_BIN = tl.constexpr(bins.NUM_BINS + 4)
NO_BIN = tl.constexpr(bins.NUM_BINS + 5)  # beyond the end of the tensor
NUM_COUNTERS = tl.constexpr(TABLE)
NUM_PROGRAMS = tl.constexpr(MAX_PROGRAMS)

ABS_MASK = tl.constexpr(0x7FFFFFFF)  # all of a float32 but its sign
INF_BITS = tl.constexpr(0x7F800000)
MANTISSA = tl.constexpr(23)  # bits of a float32's mantissa
LARGEST_EXPONENT = tl.constexpr(253)  # so that 254 less it is the exponent of a normal number
MANTISSA64 = tl.constexpr(52)
BIAS_DIFFERENCE = tl.constexpr(1023 - 127)  # exponents of float64 and float32
HALF_WORD = tl.constexpr(16)  # bits: two counts of a block, both below 2^16, in one sum; a bfloat16
HALF_MASK = tl.constexpr(0xFFFF)

NEG_COUNT = tl.constexpr(int(Field.NEG_COUNT))
POS_COUNT = tl.constexpr(int(Field.POS_COUNT))
ZEROS = tl.constexpr(int(Field.ZEROS))
NEAR = tl.constexpr(int(Field.NEAR_ZERO))
NAN = tl.constexpr(int(Field.NAN))
INF = tl.constexpr(int(Field.INF))
FLAT = tl.constexpr(int(Field.FLAT))
MIN = tl.constexpr(int(Field.MIN))
MAX = tl.constexpr(int(Field.MAX))
NEAR_NEG = tl.constexpr(int(Field.NEAR_ZERO_NEG))
INF_NEG = tl.constexpr(int(Field.INF_NEG))


@triton.jit
def _load(x_ptr, position, inside):
    """Load values as float32; zeros beyond the end."""
    x = tl.load(x_ptr + position, mask=inside, other=0.0)
    if x.dtype == tl.bfloat16:  # by its bits: a conversion may make zeros of the smallest
        x = (x.to(tl.uint16, bitcast=True).to(tl.uint32) << HALF_WORD).to(tl.float32, bitcast=True)
    return x.to(tl.float32)


@triton.jit
def _in_region(x, low0, high0, low1, high1, NUM_INTERVALS: tl.constexpr):
    """Tell of each value whether it is in one of the closed intervals; NaN is in none."""
    inside = (x >= low0) & (x <= high0)
    if NUM_INTERVALS > 1:
        inside = inside | ((x >= low1) & (x <= high1))
    return inside


@triton.jit
def _mark(flags_ptr, unit, chosen):
    """Set the flags of the units of the chosen values. All write a 1; looking first saves nearly all of the writing."""
    seen = tl.load(flags_ptr + unit, mask=chosen, other=1)
    tl.store(flags_ptr + unit, tl.full(unit.shape, 1, tl.uint8), mask=chosen & (seen == 0))


@triton.jit
def _counter_of(bits, magnitude, inside):
    """Return which counter each value belongs to."""
    key = tl.minimum(tl.maximum((magnitude >> KEY_SHIFT) - KEY_OFFSET, 0), KEY_HIGH)
    is_negative = bits < 0
    index = ZERO_BIN + tl.where(is_negative, -1 - key, 1 + key)
    is_split = (key == NEAR_ZERO_KEY) & (magnitude <= NEAR_ZERO_BITS)
    index = tl.where(is_split, tl.where(is_negative, NEG_NEAR_BIN, POS_NEAR_BIN), index)
    index = tl.where(magnitude == 0, ZERO_BIN, index)
    index = tl.where(magnitude == INF_BITS, tl.where(is_negative, NEG_INF_BIN, POS_INF_BIN), index)
    index = tl.where(magnitude > INF_BITS, NAN_BIN, index)
    return tl.where(inside, index, NO_BIN)


@triton.jit
def _moments_of_block(x, chosen, num, extreme):
    """Return mean and M2 (float64) of the chosen values; ``num`` are chosen, ``extreme`` is their largest magnitude."""
    exponent = tl.minimum(extreme.to(tl.int32, bitcast=True) >> MANTISSA, LARGEST_EXPONENT)
    scale = ((254 - exponent) << MANTISSA).to(
        tl.float32, bitcast=True
    )  # 2^(127 - exponent): largest becomes 1 to 4
    unit = ((exponent + BIAS_DIFFERENCE).to(tl.int64) << MANTISSA64).to(tl.float64, bitcast=True)  # 1 / scale
    at_least_one = tl.maximum(num, 1)
    scaled = tl.where(chosen, x, 0.0) * scale
    center = tl.sum(scaled, axis=0) / at_least_one.to(tl.float32)
    deviation = tl.where(chosen, scaled - center, 0.0)
    rest = tl.sum(deviation, axis=0).to(tl.float64)
    squares = tl.sum(deviation * deviation, axis=0).to(tl.float64)
    rest_mean = rest / at_least_one.to(tl.float64)
    m2 = tl.maximum(squares - rest * rest_mean, 0.0)
    return (center.to(tl.float64) + rest_mean) * unit, m2 * unit * unit


@triton.jit
def _merged(num, mean, m2, other_num, other_mean, other_m2):
    """Join two moments (Chan et al. 1979, eq. 2.1)."""
    total = num + other_num
    share = other_num / tl.maximum(total, 1.0)
    delta = other_mean - mean
    return total, mean + delta * share, m2 + other_m2 + delta * delta * num * share


@triton.jit
def _partial(partials_ptr, which: tl.constexpr, num_programs, other):
    """Load one of the numbers that each program has left; past the first-level cache, where they may be old."""
    program = tl.arange(0, NUM_PROGRAMS)
    address = partials_ptr + which * NUM_PROGRAMS + program
    return tl.load(address, mask=program < num_programs, other=other, cache_modifier=".cg")


@triton.jit
def _merge_moments(partials_ptr, first: tl.constexpr, num_programs, row_ptr, field: tl.constexpr):
    """Merge the programs' moments, in their order, into the row's."""
    nums = _partial(partials_ptr, first, num_programs, 0.0)
    means = _partial(partials_ptr, first + 1, num_programs, 0.0)
    m2s = _partial(partials_ptr, first + 2, num_programs, 0.0)
    total = tl.sum(nums, axis=0)
    mean = tl.sum(nums * means, axis=0) / tl.maximum(total, 1.0)
    away = means - mean
    m2 = tl.sum(m2s + nums * away * away, axis=0)
    at = row_ptr + field
    num, mean, m2 = _merged(tl.load(at), tl.load(at + 1), tl.load(at + 2), total, mean, m2)
    tl.store(at, num)
    tl.store(at + 1, mean)
    tl.store(at + 2, m2)


@triton.jit
def _add(row_ptr, field: tl.constexpr, count):
    tl.store(row_ptr + field, tl.load(row_ptr + field) + count.to(tl.float64))


@triton.jit
def _merge_counts(counts_ptr, row_ptr, hist_ptr):
    """Add all programs' counts to the row and its histogram, and clear them for the next tensor."""
    index = tl.arange(0, NUM_COUNTERS)
    counts = tl.load(counts_ptr + index, cache_modifier=".cg")
    neg_near = tl.sum(tl.where(index == NEG_NEAR_BIN, counts, 0), axis=0)
    pos_near = tl.sum(tl.where(index == POS_NEAR_BIN, counts, 0), axis=0)
    infs = (index == POS_INF_BIN) | (index == NEG_INF_BIN)
    _add(row_ptr, NAN, tl.sum(tl.where(index == NAN_BIN, counts, 0), axis=0))
    _add(row_ptr, INF, tl.sum(tl.where(infs, counts, 0), axis=0))
    _add(row_ptr, INF_NEG, tl.sum(tl.where(index == NEG_INF_BIN, counts, 0), axis=0))
    _add(row_ptr, ZEROS, tl.sum(tl.where(index == ZERO_BIN, counts, 0), axis=0))
    is_near = (index > ZERO_BIN - 1 - NEAR_ZERO_KEY) & (index < ZERO_BIN + 1 + NEAR_ZERO_KEY)
    near = tl.sum(tl.where(is_near, counts, 0), axis=0) + neg_near + pos_near
    below = tl.sum(tl.where(is_near & (index < ZERO_BIN), counts, 0), axis=0) + neg_near
    _add(row_ptr, NEAR, near)
    _add(row_ptr, NEAR_NEG, below)
    counts += tl.where(index == ZERO_BIN - 1 - NEAR_ZERO_KEY, neg_near, 0)
    counts += tl.where(index == ZERO_BIN + 1 + NEAR_ZERO_KEY, pos_near, 0)
    is_bin = index < NUM_BINS
    tl.store(hist_ptr + index, tl.load(hist_ptr + index, mask=is_bin, other=0) + counts, mask=is_bin)
    tl.debug_barrier()  # all have read before any clears
    tl.store(counts_ptr + index, tl.zeros((NUM_COUNTERS,), tl.int64))


@triton.jit
def _merge_programs(partials_ptr, num_programs, row_ptr, NUM_INTERVALS: tl.constexpr):
    """Merge what the programs have left into the row, but for the counts."""
    _merge_moments(partials_ptr, 0, num_programs, row_ptr, NEG_COUNT)
    _merge_moments(partials_ptr, 3, num_programs, row_ptr, POS_COUNT)
    lowest = tl.min(_partial(partials_ptr, 6, num_programs, float("inf")), axis=0)
    highest = tl.max(_partial(partials_ptr, 7, num_programs, float("-inf")), axis=0)
    tl.store(row_ptr + MIN, tl.minimum(tl.load(row_ptr + MIN), lowest))
    tl.store(row_ptr + MAX, tl.maximum(tl.load(row_ptr + MAX), highest))
    if NUM_INTERVALS > 0:
        _add(row_ptr, FLAT, tl.sum(_partial(partials_ptr, 8, num_programs, 0.0), axis=0))


_SIZES = ["inner", "units"]


@triton.jit(
    do_not_specialize=_SIZES, do_not_specialize_on_alignment=["hist_ptr", "fired_ptr", "rectified_ptr"]
)
def observe_kernel(
    x_ptr,
    num,
    row_ptr,
    hist_ptr,
    fired_ptr,
    rectified_ptr,
    partials_ptr,
    counts_ptr,
    ticket_ptr,
    inner,
    units,
    low0: tl.float32,
    high0: tl.float32,
    low1: tl.float32,
    high1: tl.float32,
    NUM_INTERVALS: tl.constexpr,
    MARKS_FIRED: tl.constexpr,
    MARKS_RECTIFIED: tl.constexpr,
    IS_LARGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Merge the row of ``num`` values that lie one after the other into a row, a histogram and flags.

    The unit of a value is its position divided by ``inner``, modulo ``units``. ``partials`` (PARTIALS, MAX_PROGRAMS)
    float64 is for use within the launch; ``counts`` (TABLE,) int64 and ``ticket`` int32 are zero before it and after it.
    """
    program = tl.program_id(0)
    num_programs = tl.num_programs(0)
    first = program
    step = num_programs
    if IS_LARGE:
        first = program.to(tl.int64)
        step = num_programs.to(tl.int64)
    lane = tl.arange(0, BLOCK)
    counts = tl.zeros((NUM_COUNTERS,), tl.int32)
    flat = tl.full((), 0, tl.int64)
    lowest = tl.full((), float("inf"), tl.float32)
    highest = tl.full((), float("-inf"), tl.float32)
    neg_num = tl.full((), 0.0, tl.float64)
    neg_mean = tl.full((), 0.0, tl.float64)
    neg_m2 = tl.full((), 0.0, tl.float64)
    pos_num = tl.full((), 0.0, tl.float64)
    pos_mean = tl.full((), 0.0, tl.float64)
    pos_m2 = tl.full((), 0.0, tl.float64)
    for start in range(first * BLOCK, num, step * BLOCK):
        position = start + lane
        inside = position < num
        x = _load(x_ptr, position, inside)
        bits = x.to(tl.int32, bitcast=True)
        magnitude = bits & ABS_MASK
        counts += tl.histogram(_counter_of(bits, magnitude, inside), NUM_COUNTERS)

        finite = inside & (magnitude < INF_BITS)
        positive = finite & (bits > 0)
        negative = finite & (bits < 0) & (magnitude > 0)
        both = tl.sum(positive.to(tl.int32) + (negative.to(tl.int32) << HALF_WORD), axis=0)
        low = tl.min(tl.where(finite, x, float("inf")), axis=0)
        high = tl.max(tl.where(finite, x, float("-inf")), axis=0)
        lowest = tl.minimum(lowest, low)
        highest = tl.maximum(highest, high)
        num_pos = both & HALF_MASK
        num_neg = both >> HALF_WORD
        mean, m2 = _moments_of_block(x, positive, num_pos, tl.maximum(high, 0.0))
        pos_num, pos_mean, pos_m2 = _merged(pos_num, pos_mean, pos_m2, num_pos.to(tl.float64), mean, m2)
        mean, m2 = _moments_of_block(x, negative, num_neg, tl.maximum(-low, 0.0))
        neg_num, neg_mean, neg_m2 = _merged(neg_num, neg_mean, neg_m2, num_neg.to(tl.float64), mean, m2)

        if MARKS_FIRED or MARKS_RECTIFIED:
            unit = (position // inner) % units
        if NUM_INTERVALS > 0:
            in_region = finite & _in_region(x, low0, high0, low1, high1, NUM_INTERVALS)
            flat += tl.sum(in_region.to(tl.int32), axis=0)
            if MARKS_FIRED:
                _mark(fired_ptr, unit, inside & (in_region == 0))
        if MARKS_RECTIFIED:  # a NaN passes a ReLU, minus infinity does not
            _mark(rectified_ptr, unit, inside & ((x <= 0.0) == 0))

    mine = partials_ptr + program
    tl.store(mine, neg_num)
    tl.store(mine + NUM_PROGRAMS, neg_mean)
    tl.store(mine + 2 * NUM_PROGRAMS, neg_m2)
    tl.store(mine + 3 * NUM_PROGRAMS, pos_num)
    tl.store(mine + 4 * NUM_PROGRAMS, pos_mean)
    tl.store(mine + 5 * NUM_PROGRAMS, pos_m2)
    tl.store(mine + 6 * NUM_PROGRAMS, lowest.to(tl.float64))
    tl.store(mine + 7 * NUM_PROGRAMS, highest.to(tl.float64))
    tl.store(mine + 8 * NUM_PROGRAMS, flat.to(tl.float64))
    index = tl.arange(0, NUM_COUNTERS)
    tl.atomic_add(counts_ptr + index, counts.to(tl.int64), mask=counts > 0, sem="relaxed")
    tl.debug_barrier()  # all threads have written before one of them draws the ticket, which releases it all
    if tl.atomic_add(ticket_ptr, 1) == num_programs - 1:
        _merge_programs(partials_ptr, num_programs, row_ptr, NUM_INTERVALS)
        _merge_counts(counts_ptr, row_ptr, hist_ptr)
        tl.store(ticket_ptr, 0)


@triton.jit(do_not_specialize=_SIZES, do_not_specialize_on_alignment=["fired_ptr"])
def observe_flat_kernel(
    x_ptr,
    num,
    row_ptr,
    fired_ptr,
    inner,
    units,
    low0: tl.float32,
    high0: tl.float32,
    low1: tl.float32,
    high1: tl.float32,
    NUM_INTERVALS: tl.constexpr,
    MARKS_FIRED: tl.constexpr,
    IS_LARGE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Add to a row how many of ``num`` values lie in the flat region, and mark the units that left it."""
    first = tl.program_id(0)
    step = tl.num_programs(0)
    if IS_LARGE:
        first = first.to(tl.int64)
        step = step.to(tl.int64)
    lane = tl.arange(0, BLOCK)
    flat = tl.full((), 0, tl.int64)
    for start in range(first * BLOCK, num, step * BLOCK):
        position = start + lane
        inside = position < num
        x = _load(x_ptr, position, inside)
        finite = inside & ((x.to(tl.int32, bitcast=True) & ABS_MASK) < INF_BITS)
        in_region = finite & _in_region(x, low0, high0, low1, high1, NUM_INTERVALS)
        flat += tl.sum(in_region.to(tl.int32), axis=0)
        if MARKS_FIRED:
            _mark(fired_ptr, (position // inner) % units, inside & (in_region == 0))
    # whole numbers far below 2^53: their sum does not depend on the order
    tl.atomic_add(row_ptr + FLAT, flat.to(tl.float64), sem="relaxed")
