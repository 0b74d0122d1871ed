"""The C back end: `observe` for plain CPU tensors, in one pass at a good part of the speed of reading memory.

No idea of modules or steps. The extension is optional: `available` tells whether it was built. A tensor that it does not
take (`observe` returns False) is left to the reference.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actograph.layout import bins
from actograph.layout.layer import FlatRegion, Side
from actograph.layout.row import NUM_FIELDS, Counts, Floats

Bytes = NDArray[np.uint8]
Chunks = tuple[NDArray[Any], ...]


class _Extension(Protocol):
    """What `_observe.c` offers; see there."""

    NUM_BINS: int
    KEY_LOW: int
    NUM_FIELDS: int

    def target(
        self,
        values: int,
        hist: int,
        fired: int,
        rectified: int,
        units: int,
        channel_axis: int,
        flat_on_output: bool,  # noqa: FBT001  positional in C
        intervals: tuple[tuple[float, float], ...],
        /,
    ) -> object: ...
    def observe(
        self,
        target: object,
        address: int,
        kind: int,
        sizes: tuple[int, ...],
        strides: tuple[int, ...],
        threads: int,
        /,
    ) -> bool: ...
    def observe_flat(
        self, target: object, address: int, kind: int, sizes: tuple[int, ...], strides: tuple[int, ...], /
    ) -> bool: ...
    def collect(
        self,
        values: Chunks,
        hists: Chunks,
        flags: Chunks,
        rows: Floats,
        hist: Counts,
        packed: Bytes,
        step: float,
        /,
    ) -> None: ...
    def derive(self, rows: Floats, hist: Counts, followers: NDArray[np.int64], /) -> None: ...
    def kernels(self) -> list[str]: ...
    def use(self, kernel: str, /) -> str: ...


def _load() -> _Extension | None:
    try:
        extension = cast(_Extension, importlib.import_module("actograph.sketch._observe"))
    except ImportError:  # not built: there was no compiler
        return None
    here = (bins.NUM_BINS, bins.KEY_OFFSET, NUM_FIELDS)
    there = tuple(getattr(extension, name, None) for name in ("NUM_BINS", "KEY_LOW", "NUM_FIELDS"))
    if here != there:
        raise ImportError(f"_observe was built for another layout: {there}, not {here}; build it again")
    return extension


EXTENSION = _load()
_PLAIN = frozenset(
    {Tensor, torch.nn.Parameter}
)  # no subclass: FakeTensor, DTensor and the like are not memory
_KINDS = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float64: 3}  # `Type` in _observe.c


class Target:
    """Where the numbers of one layer go, made once per layer: addresses and the flat region, as C wants them.

    ``values`` is (NUM_FIELDS,) float64, ``hist`` (NUM_BINS,) int64, ``fired`` (units,) bool, empty where firing is not
    recorded; all on the CPU, and they must not be resized. ``channel_axis`` is where the units are. ``rectified``
    (units,) bool, where given, says of which units a ReLU that follows would fire.
    """

    __slots__ = ("_memory", "handle")

    def __init__(
        self,
        values: Tensor,
        hist: Tensor,
        fired: Tensor,
        flat: FlatRegion | None,
        channel_axis: int | None,
        rectified: Tensor | None = None,
    ) -> None:
        if EXTENSION is None:
            raise RuntimeError("the C back end was not built; test native.available() first")
        _check(values, "values", torch.float64, NUM_FIELDS)
        _check(hist, "hist", torch.int64, bins.NUM_BINS)
        _check(fired, "fired", torch.bool, fired.numel())
        rectified = fired[:0] if rectified is None else rectified
        _check(rectified, "rectified", torch.bool, rectified.numel())
        self._memory = (values, hist, fired, rectified)  # keeps the addresses valid
        records_fired = flat is not None and channel_axis is not None and len(fired) > 0
        self.handle = EXTENSION.target(
            values.data_ptr(),
            hist.data_ptr(),
            fired.data_ptr() if records_fired else 0,
            rectified.data_ptr() if len(rectified) else 0,
            len(fired) if records_fired else len(rectified),
            channel_axis or 0,
            flat is not None and flat.side is Side.OUTPUT,
            () if flat is None else flat.intervals,
        )


def available() -> bool:
    """Tell whether the extension was built."""
    return EXTENSION is not None


def accepts(x: Tensor) -> bool:
    """Tell whether ``x`` is of the kind that C takes: a plain dense CPU tensor of a floating-point type.

    `observe` checks by itself, and some wrappers only show when their address is asked for.
    """
    return type(x) in _PLAIN and x.dtype in _KINDS and x.is_cpu and x.layout is torch.strided


def observe(x: Tensor, target: Target) -> bool:
    """Merge the row of ``x`` (any shape) into the target; False, and nothing done, where C cannot take it.

    The flat region is looked for where it is on the layer's output. Uses two threads where torch has them.
    """
    kind = _KINDS.get(x.dtype) if type(x) in _PLAIN and x.is_cpu and not x.is_neg() else None
    if kind is None or EXTENSION is None:
        return False
    try:
        return EXTENSION.observe(
            target.handle, x.data_ptr(), kind, x.size(), x.stride(), torch.get_num_threads()
        )
    except RuntimeError:  # no address or no strides: sparse, nested, MKL-DNN, functorch wrappers
        return False


def observe_flat(x: Tensor, target: Target) -> bool:
    """Merge only the flat count and the units that fired, of a layer's input ``x``; False where C cannot take it."""
    kind = _KINDS.get(x.dtype) if type(x) in _PLAIN and x.is_cpu and not x.is_neg() else None
    if kind is None or EXTENSION is None:
        return False
    try:
        return EXTENSION.observe_flat(target.handle, x.data_ptr(), kind, x.size(), x.stride())
    except RuntimeError:  # as in `observe`
        return False


def collect(
    values: Chunks, hists: Chunks, flags: Chunks, rows: Floats, hist: Counts, packed: Bytes, step: int
) -> bool:
    """Move what a block's chunks hold to ``rows``, ``hist`` and ``packed``, as much as they have room for, and clear it.

    The chunks are of (rows, NUM_FIELDS) float64, (rows, NUM_BINS) int64 and of bool; ``rows`` is (layers, NUM_FIELDS)
    float64, ``hist`` (layers, NUM_BINS) uint32, ``packed`` has a bit a flag. All contiguous. Rows with a NaN or Inf get
    ``step`` as the first such step. False, and nothing done, where the extension was not built.
    """
    if EXTENSION is None:
        return False
    EXTENSION.collect(values, hists, flags, rows, hist, packed, step)
    return True


def derive(rows: Floats, hist: Counts, followers: NDArray[np.int64]) -> bool:
    """Do what `derived.derive` does; False, and nothing done, where the extension was not built."""
    if EXTENSION is None:
        return False
    EXTENSION.derive(rows, hist, followers)
    return True


def _check(tensor: Tensor, name: str, dtype: torch.dtype, size: int) -> None:
    if tensor.dtype != dtype or tensor.shape != (size,) or not tensor.is_cpu or not tensor.is_contiguous():
        raise ValueError(
            f"{name} is {tuple(tensor.shape)} {tensor.dtype} on {tensor.device}; "
            f"C writes to contiguous ({size},) {dtype} on the CPU"
        )
