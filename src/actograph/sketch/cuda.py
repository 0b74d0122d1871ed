"""The Triton back end: `observe` for CUDA tensors, one launch a tensor and no wait for the device.

No idea of modules or steps. Triton is imported when the first layer on such a device is seen, and tried there once: where it
is missing or cannot compile, `make_target` warns and the reference measures instead. A tensor that it does not take
(`observe` returns False) is left to the reference.
"""

from __future__ import annotations

import functools
import importlib
import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from actograph.layout.bins import NUM_BINS
from actograph.layout.layer import FlatRegion, Side
from actograph.layout.row import NUM_FIELDS

DTYPES = frozenset({torch.float32, torch.float16, torch.bfloat16})
LARGE = 1 << 30  # values from which positions need 64 bits; the last block may reach beyond the end
ALIGNED = 16  # values: sizes and addresses that are multiples of 16 have a kernel of their own, which most tensors share
NOWHERE = (math.inf, -math.inf)  # an interval with nothing in it


class Tuning(NamedTuple):
    """How a kernel is launched: values in a block (at most 32,768, a power of two), warps of a program, and programs.

    The same for every card, so that a row does not depend on it.
    """

    block: int
    num_warps: int
    num_programs: int = 512  # at most; about what 132 processors run at once
    num_registers: int | None = None  # of a thread, at most: fewer let more programs run at once


TUNING = Tuning(block=2048, num_warps=4, num_registers=128)  # of 24 tried on an H200 (benchmarks/LOG.md)


class Target:
    """Where the numbers of one layer go, made once per layer, with the memory that a launch needs for itself.

    ``values`` is (NUM_FIELDS,) float64, ``hist`` (NUM_BINS,) int64, ``fired`` and ``rectified`` (units,) bool, empty where
    they are not recorded; all on one device, and they must not be resized. Two launches that write to one target must be
    on one stream.
    """

    __slots__ = ("axis", "bounds", "counts", "fired", "flat_on_output", "hist", "num_intervals", "partials", "rectified",
                 "ticket", "values")  # fmt: skip

    def __init__(
        self,
        values: Tensor,
        hist: Tensor,
        fired: Tensor,
        flat: FlatRegion | None,
        channel_axis: int | None,
        rectified: Tensor | None = None,
    ) -> None:
        kernels = _kernels()
        device = values.device
        self.values, self.hist = values, hist
        self.fired = fired.view(torch.uint8)
        self.rectified = (fired[:0] if rectified is None else rectified).view(torch.uint8)
        self.axis = channel_axis
        self.num_intervals = 0 if flat is None else len(flat.intervals)
        self.flat_on_output = flat is not None and flat.side is Side.OUTPUT
        self.bounds = () if flat is None else _bounds(flat)
        self.partials = torch.zeros(
            kernels.PARTIALS * kernels.MAX_PROGRAMS, dtype=torch.float64, device=device
        )
        self.counts = torch.zeros(kernels.TABLE, dtype=torch.int64, device=device)
        self.ticket = torch.zeros(1, dtype=torch.int32, device=device)


def make_target(
    values: Tensor,
    hist: Tensor,
    fired: Tensor,
    flat: FlatRegion | None,
    channel_axis: int | None,
    rectified: Tensor | None = None,
) -> Target | None:
    """Return a `Target`; None where Triton does not serve the device of ``values``."""
    if values.device.type != "cuda" or not _serves(values.device):
        return None
    return Target(values, hist, fired, flat, channel_axis, rectified)


def observe(x: Tensor, target: Target, tuning: Tuning = TUNING) -> bool:
    """Merge the row of ``x`` (any shape) into the target; False, and nothing done, where the kernel cannot take it.

    The flat region is looked for where it is on the layer's output. A tensor with gaps or overlaps between its values is
    copied first.
    """
    if x.dtype not in DTYPES or x.device != target.values.device:
        return False
    if not x.numel():
        return True
    x = _dense(x.detach())
    marks_fired, marks_rectified = (_marks(x, target, flags) for flags in (target.fired, target.rectified))
    inner, units = _units(x, target.axis) if marks_fired or marks_rectified else (1, 1)
    num_intervals = target.num_intervals if target.flat_on_output else 0
    kernels = _kernels()
    _launch(
        kernels.observe_kernel, x, tuning,
        (x, x.numel(), target.values, target.hist, target.fired, target.rectified, target.partials, target.counts,
         target.ticket, inner, units, *(target.bounds or 2 * NOWHERE)),
        {"NUM_INTERVALS": num_intervals, "MARKS_FIRED": marks_fired and num_intervals > 0,
         "MARKS_RECTIFIED": marks_rectified},
    )  # fmt: skip
    return True


def observe_flat(x: Tensor, target: Target, tuning: Tuning = TUNING) -> bool:
    """Merge only the flat count and the units that fired, of a layer's input ``x``; False where it cannot be taken."""
    if x.dtype not in DTYPES or x.device != target.values.device:
        return False
    if not x.numel() or not target.num_intervals:
        return True
    x = _dense(x.detach())
    marks_fired = _marks(x, target, target.fired)
    inner, units = _units(x, target.axis) if marks_fired else (1, 1)
    _launch(
        _kernels().observe_flat_kernel, x, tuning,
        (x, x.numel(), target.values, target.fired, inner, units, *target.bounds),
        {"NUM_INTERVALS": target.num_intervals, "MARKS_FIRED": marks_fired},
    )  # fmt: skip
    return True


def _launch(kernel: Any, x: Tensor, tuning: Tuning, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    num_programs = min(-(-x.numel() // tuning.block), tuning.num_programs)
    options = {
        **options,
        "IS_LARGE": x.numel() >= LARGE,
        "BLOCK": tuning.block,
        "num_warps": tuning.num_warps,
        "enable_fp_fusion": True,  # versions differ in what they take for granted
    }
    if tuning.num_registers is not None:
        options["maxnreg"] = tuning.num_registers
    if not x.is_cuda or x.device.index == torch.cuda.current_device():
        kernel[num_programs,](*args, **options)
    else:  # Triton launches on the current device
        with torch.cuda.device(x.device):
            kernel[num_programs,](*args, **options)


def _dense(x: Tensor) -> Tensor:
    """Return the values of ``x`` one after the other in memory, in any order: itself wherever that is so."""
    if x.is_neg():
        x = x.resolve_neg()
    if x.is_contiguous():
        return x
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size != 1:
            if stride != expected:
                return x.contiguous()
            expected *= size
    return x


def _marks(x: Tensor, target: Target, flags: Tensor) -> bool:
    """Tell whether the units of ``x`` are those that the flags stand for."""
    axis = target.axis
    return len(flags) > 0 and axis is not None and axis < x.ndim and x.shape[axis] == len(flags)


def _units(x: Tensor, axis: int | None) -> tuple[int, int]:
    """Return inner and units: the unit of a value of the dense ``x`` is its position // inner % units."""
    assert axis is not None
    return max(x.stride(axis), 1), x.shape[axis]


def _bounds(flat: FlatRegion) -> tuple[float, ...]:
    """Return low and high of two intervals, rounded inwards to float32: comparing with them equals comparing in float64."""
    intervals = [*flat.intervals, NOWHERE][:2]
    return tuple(bound for low, high in intervals for bound in (-_rounded_down(-low), _rounded_down(high)))


def _rounded_down(value: float) -> float:
    """Return the largest float32 that is not above the value."""
    rounded = np.float32(value)
    return float(np.nextafter(rounded, np.float32(-np.inf)) if float(rounded) > value else rounded)


@functools.cache
def _kernels() -> Any:
    """Return the module of the kernels; Triton takes half a second to be imported."""
    return importlib.import_module("actograph.sketch.triton_kernel")


@functools.cache
def _serves(device: torch.device) -> bool:
    """Tell whether the kernel runs on the device; warn where it does not."""
    try:
        values = torch.zeros(NUM_FIELDS, dtype=torch.float64, device=device)
        hist = torch.zeros(NUM_BINS, dtype=torch.int64, device=device)
        target = Target(values, hist, torch.zeros(0, dtype=torch.bool, device=device), None, None)
        observe(torch.zeros(ALIGNED, device=device), target)
    except (
        Exception
    ) as error:  # not installed, no compiler for its launcher, a card it does not know: all the same here
        warnings.warn(
            f"Triton does not measure on {device} ({type(error).__name__}: {error}): recording there is slow. "
            "Install the triton that belongs to this torch, and a C compiler.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
