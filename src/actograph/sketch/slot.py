"""Where measurements land: `Slot` for one tensor, `Block` for all layers of the open step.

No idea of modules. Memory is allocated in chunks that never move, on the device of the tensor that is measured, so a back
end may keep addresses, and one step's rows come to the host in a handful of copies.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actograph.layout.bins import NUM_BINS
from actograph.layout.layer import FlatRegion
from actograph.layout.row import Counts, Field, Floats, empty_rows
from actograph.sketch import native

CHUNK_ROWS = 64  # about what a small network has; a chunk is 64 x 349 x 8 B = 180 KB
CHUNK_FLAGS = 1 << 12
BYTE = 8  # flags of a slot begin at a multiple of 8, so that each layer's bits fill whole bytes


@dataclass(eq=False, slots=True)
class Slot:
    """One tensor's row in the open step: views into a block, and what a back end must know of the layer.

    ``values`` is (NUM_FIELDS,) float64 (float32 on devices without float64), ``hist`` (NUM_BINS,) int64, ``fired``
    (units,) bool, empty where the layer has no flat region or no channel axis.
    """

    values: Tensor
    hist: Tensor
    fired: Tensor
    flat: FlatRegion | None
    channel_axis: int | None
    target: native.Target | None = None  # the same for the C back end; None where it cannot serve


def row_dtype(device: torch.device) -> torch.dtype:
    """Return float64 where the device has it (MPS does not)."""
    return torch.float32 if device.type == "mps" else torch.float64


@dataclass(eq=False)
class _DeviceRows:
    """The chunks of one device and which layer each row and each run of flags belongs to."""

    device: torch.device
    values: list[Tensor] = field(default_factory=list)  # of (CHUNK_ROWS, NUM_FIELDS)
    hist: list[Tensor] = field(default_factory=list)  # of (CHUNK_ROWS, NUM_BINS)
    flags: list[Tensor] = field(default_factory=list)  # of (CHUNK_FLAGS or more,)
    positions: list[int] = field(default_factory=list)  # layer position of each row
    flag_spans: list[tuple[int, int]] = field(default_factory=list)  # per row (start in all flags, length)
    flags_used: int = 0  # in the last chunk of flags
    empty: Tensor = field(init=False)

    def __post_init__(self) -> None:
        dtype = row_dtype(self.device)
        self.empty = torch.from_numpy(empty_rows(CHUNK_ROWS)).to(device=self.device, dtype=dtype)

    def add(self, position: int, num_flags: int) -> tuple[Tensor, Tensor, Tensor]:
        chunk, index = divmod(len(self.positions), CHUNK_ROWS)
        if chunk == len(self.values):
            self.values.append(self.empty.clone())
            self.hist.append(torch.zeros(CHUNK_ROWS, NUM_BINS, dtype=torch.int64, device=self.device))
        self.positions.append(position)
        return self.values[chunk][index], self.hist[chunk][index], self._add_flags(num_flags)

    def _add_flags(self, num_flags: int) -> Tensor:
        padded = -(-num_flags // BYTE) * BYTE
        if not self.flags or self.flags_used + padded > len(self.flags[-1]):
            size = max(CHUNK_FLAGS, padded)
            self.flags.append(torch.zeros(size, dtype=torch.bool, device=self.device))
            self.flags_used = 0
        start = sum(len(chunk) for chunk in self.flags[:-1]) + self.flags_used
        self.flag_spans.append((start, padded))
        begin, self.flags_used = self.flags_used, self.flags_used + padded
        return self.flags[-1][begin : begin + num_flags]

    def take(self) -> tuple[Floats, Counts, NDArray[np.bool_]]:
        """Return copies on the host of the rows and flags used, and clear them."""
        left = len(self.positions)
        values = np.concatenate([_host(chunk) for chunk in self.values])[:left].astype(np.float64, copy=False)
        hist = np.concatenate([_host(chunk) for chunk in self.hist])[:left].astype(np.uint32)
        flags = np.concatenate([_host(chunk) for chunk in self.flags])
        for rows, counts in zip(self.values, self.hist, strict=True):
            rows[:left] = self.empty[:left]
            counts[:left] = 0
            left -= CHUNK_ROWS
        for chunk in self.flags:
            chunk.zero_()
        return values, hist, flags

    def packed(self, flags: NDArray[np.bool_]) -> list[NDArray[np.uint8]]:
        """Return each layer's flags as whole bytes."""
        return [
            np.packbits(flags[start : start + size], bitorder="little") for start, size in self.flag_spans
        ]


def _host(chunk: Tensor) -> NDArray[Any]:
    return chunk.numpy() if chunk.device.type == "cpu" else chunk.cpu().numpy()


def _c_serves(device: torch.device) -> bool:
    if device.type == "cpu" and not native.available():
        warnings.warn(
            "actograph was installed without its C back end (no compiler was found): recording on the CPU is slow. "
            "Install a C compiler and install actograph again.",
            RuntimeWarning,
            stacklevel=2,
        )
    return device.type == "cpu" and native.available()


class Block:
    """Rows of all layers of the open step, on their devices."""

    def __init__(self) -> None:
        self._devices: dict[torch.device, _DeviceRows] = {}
        self.num_layers = 0

    def add(
        self, device: torch.device, flat: FlatRegion | None, channel_axis: int | None, num_units: int
    ) -> Slot:
        """Append a layer and return its slot."""
        rows = self._devices.setdefault(device, _DeviceRows(device))
        num_flags = num_units if flat is not None and channel_axis is not None else 0
        values, hist, fired = rows.add(self.num_layers, num_flags)
        self.num_layers += 1
        target = native.Target(values, hist, fired, flat, channel_axis) if _c_serves(device) else None
        return Slot(values, hist, fired, flat, channel_axis, target)

    def take(self, step: int) -> tuple[Floats, Counts, NDArray[np.uint8]]:
        """Return (rows, hist, packed fired flags) of all layers in order, as `runlog.Bucket` holds them, and clear.

        ``step`` is written as first non-finite step where there is a NaN or Inf.
        """
        if len(self._devices) == 1:
            (device_rows,) = self._devices.values()
            rows, hist, flags = device_rows.take()
            fired = np.concatenate(device_rows.packed(flags))
        else:
            rows, hist, fired = self._take_from_all()
        bad = rows[:, Field.NAN] + rows[:, Field.INF] > 0
        rows[bad, Field.FIRST_NON_FINITE] = step
        return rows, hist, fired

    def _take_from_all(self) -> tuple[Floats, Counts, NDArray[np.uint8]]:
        """Put the rows of several devices (or of none) into the layers' order."""
        rows, hist = empty_rows(self.num_layers), np.zeros((self.num_layers, NUM_BINS), np.uint32)
        fired = [np.zeros(0, np.uint8)] * (self.num_layers + 1)
        for device_rows in self._devices.values():
            positions = device_rows.positions
            rows[positions], hist[positions], flags = device_rows.take()
            for position, layer_flags in zip(positions, device_rows.packed(flags), strict=True):
                fired[position] = layer_flags
        return rows, hist, np.concatenate(fired)
