"""`Block`: the rows of all layers of the open step.

No idea of modules. Memory is allocated in chunks that never move, on the device of the tensor that is measured, so a back
end may keep addresses. One step's rows come to the host in one copy for each device, which nobody needs to wait for.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actograph.layout.bins import NUM_BINS
from actograph.layout.layer import FlatRegion
from actograph.layout.row import NUM_FIELDS, Counts, Field, Floats, empty_rows
from actograph.sketch import cuda, native
from actograph.sketch.links import Link, Links, Positions, Slot, positions_of
from actograph.sketch.native import Bytes, Chunks
from actograph.sketch.transit import Part, Sent, StepRows, Taken

CHUNK_ROWS = 64  # about what a small network has; a chunk is 64 x 349 x 8 B = 180 KB
CHUNK_FLAGS = 1 << 12
BYTE = 8  # flags of a slot begin at a multiple of 8, so that each layer's bits fill whole bytes


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
    flag_bytes: list[slice] = field(default_factory=list)  # of each row, among all flags packed
    joined_bytes: Positions | None = None  # all these, one after the other
    flags_used: int = 0  # in the last chunk of flags
    num_flags: int = 0  # up to there in all
    arrays: tuple[Chunks, Chunks, Chunks] | None = None  # values, hist and flags on the CPU, as C takes them
    empty: Tensor = field(init=False)
    links: Links = field(init=False)

    def __post_init__(self) -> None:
        self.empty = torch.zeros(CHUNK_ROWS, NUM_FIELDS, dtype=row_dtype(self.device), device=self.device)
        for position, value in enumerate(empty_rows()):
            if value:
                self.empty[:, position].fill_(
                    float(value)
                )  # on the device: a copy from the host would wait for it
        self.links = Links(self.look_for_rectified)

    def add(self, position: int, flat: FlatRegion | None, channel_axis: int | None, num_units: int) -> Slot:
        chunk, index = divmod(len(self.positions), CHUNK_ROWS)
        if chunk == len(self.values):
            # values last: another thread that sees them finds the histograms there, too
            self.hist.append(torch.zeros(CHUNK_ROWS, NUM_BINS, dtype=torch.int64, device=self.device))
            self.values.append(self.empty.clone())
        values, hist = self.values[chunk][index], self.hist[chunk][index]
        fired, where = self._add_flags(num_units if flat is not None and channel_axis is not None else 0)
        slot = Slot(values, hist, fired, flat, channel_axis, num_units, fired[:0], len(self.positions), where)
        _make_targets(slot)
        self.positions.append(position)
        self.flag_bytes.append(where)
        self.joined_bytes = None
        return slot

    def look_for_rectified(self, slot: Slot) -> None:
        """Have back ends note, from now on, of which of the slot's units a ReLU that follows fires."""
        slot.rectified, slot.rectified_bytes = self._add_flags(slot.num_units)
        _make_targets(slot)

    def _add_flags(self, num_flags: int) -> tuple[Tensor, slice]:
        """Return new flags, and where they are among all flags packed."""
        padded = -(-num_flags // BYTE) * BYTE
        if not self.flags or self.flags_used + padded > len(self.flags[-1]):
            size = max(CHUNK_FLAGS, padded)
            self.flags.append(torch.zeros(size, dtype=torch.bool, device=self.device))
            self.flags_used = 0
        start = sum(len(chunk) for chunk in self.flags[:-1]) + self.flags_used
        begin, self.flags_used = self.flags_used, self.flags_used + padded
        self.num_flags = start + padded
        self.arrays = None
        return self.flags[-1][begin : begin + num_flags], slice(start // BYTE, (start + padded) // BYTE)

    def take(self, step: int) -> tuple[Floats, Counts, Bytes]:
        """Return copies on the host of rows, histograms and packed flags, those derived filled in, and clear them."""
        num = len(self.positions)
        if self.device.type != "cpu":
            return self.send(step).fetch()
        rows, hist = np.empty((num, NUM_FIELDS)), np.empty((num, NUM_BINS), np.uint32)
        packed = np.empty(self.num_flags // BYTE, np.uint8)
        if not native.collect(*self._arrays(), rows, hist, packed, step):
            self._collect(rows, hist, packed, step)
        self.links.fill_in(rows, hist, packed)
        return rows, hist, packed

    def send(self, step: int) -> Sent:
        """Begin to copy rows, histograms and flags to the host, and clear them, on the device's current stream."""
        values, hist = (
            [
                chunk[: len(self.positions) - begin]
                for chunk, begin in zip(chunks, range(0, len(self.positions), CHUNK_ROWS), strict=True)
            ]
            for chunks in (self.values, self.hist)
        )
        flags = [
            chunk[: self.num_flags - begin]
            for chunk, begin in zip(self.flags, self._flag_begins(), strict=True)
        ]
        sent = Sent(values, hist, flags, self.links.end_step(), step)
        torch._foreach_copy_(values, [self.empty[: len(chunk)] for chunk in values])
        torch._foreach_zero_([*hist, *flags])
        return sent

    def depart(self, step: int) -> Part:
        """Return the step's rows, on their way where they are not on the host, and clear them."""
        content = Taken(*self.take(step)) if self.device.type == "cpu" else self.send(step)
        return Part(content, list(self.positions), list(self.flag_bytes), self.all_flag_bytes())

    def _flag_begins(self) -> list[int]:
        """Return where each chunk's flags begin among all."""
        ends = np.cumsum([0, *(len(chunk) for chunk in self.flags)])
        return [int(end) for end in ends[:-1]]

    def _arrays(self) -> tuple[Chunks, Chunks, Chunks]:
        """Return values, hist and flags as C takes them."""
        if self.arrays is None:
            values, hist, flags = (
                tuple(x.numpy() for x in xs) for xs in (self.values, self.hist, self.flags)
            )
            self.arrays = values, hist, flags
        return self.arrays

    def _collect(self, rows: Floats, hist: Counts, packed: Bytes, step: int) -> None:
        """Do what `native.collect` does."""
        for chunk, begin in enumerate(range(0, len(rows), CHUNK_ROWS)):
            to = slice(begin, min(begin + CHUNK_ROWS, len(rows)))
            values, counts = (one[chunk][: to.stop - begin] for one in (self.values, self.hist))
            rows[to], hist[to] = values.numpy(), counts.numpy()
            values.copy_(self.empty[: len(values)])
            counts.zero_()
        rows[rows[:, Field.NAN] + rows[:, Field.INF] > 0, Field.FIRST_NON_FINITE] = step
        bits = [np.packbits(flags.numpy(), bitorder="little") for flags in self.flags]
        packed[:] = np.concatenate(bits)[: len(packed)]
        for flags in self.flags:
            flags.zero_()

    def joined_flags(self, packed: Bytes) -> Bytes:
        """Return all layers' flags, one layer after the other."""
        return packed[self.all_flag_bytes()]

    def all_flag_bytes(self) -> Positions:
        """Return where these are."""
        if self.joined_bytes is None:
            self.joined_bytes = positions_of(self.flag_bytes)
        return self.joined_bytes


def _make_targets(slot: Slot) -> None:
    """Make the slot known to the back ends that serve its device."""
    memory = (slot.values, slot.hist, slot.fired, slot.flat, slot.channel_axis, slot.rectified)
    slot.target = native.Target(*memory) if _c_serves(slot.values.device) else None
    slot.cuda_target = cuda.make_target(*memory)


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
        self._has_new_layers = False
        self.num_layers = 0
        self.is_exploring = True  # layers came in this step or the one before: look for links

    def add(
        self, device: torch.device, flat: FlatRegion | None, channel_axis: int | None, num_units: int
    ) -> Slot:
        """Append a layer and return its slot."""
        rows = self._devices.setdefault(device, _DeviceRows(device))
        self.num_layers += 1
        self.is_exploring = self._has_new_layers = True
        return rows.add(self.num_layers - 1, flat, channel_axis, num_units)

    def link(self, slot: Slot, parent: Slot, *, rectifies: bool) -> Link:
        """Try, for the step that is open, whether the slot's row follows from that of the parent, on the same device.

        Either it is the same, or, if it ``rectifies``, what a ReLU makes of it.
        """
        return self._devices[parent.values.device].links.add(slot, parent, rectifies=rectifies)

    def take(self, step: int) -> tuple[Floats, Counts, NDArray[np.uint8]]:
        """Return (rows, hist, packed fired flags) of all layers in order, as `runlog.Bucket` holds them, and clear.

        ``step`` is written as first non-finite step where there is a NaN or Inf.
        """
        if len(self._devices) != 1:
            return self.send(step).collect()
        (device_rows,) = self._devices.values()
        rows, hist, packed = device_rows.take(step)
        self._end_step()
        return rows, hist, device_rows.joined_flags(packed)

    def send(self, step: int) -> StepRows:
        """Do the same, but let what is on devices be on its way: it is cleared when it has been copied."""
        parts = [device_rows.depart(step) for device_rows in self._devices.values()]
        self._end_step()
        return StepRows(self.num_layers, parts)

    @property
    def is_on_host(self) -> bool:
        """Whether all rows are in the host's memory, so that `take` has nothing to wait for."""
        return all(device.type == "cpu" for device in self._devices)

    def _end_step(self) -> None:
        self.is_exploring, self._has_new_layers = self._has_new_layers, False
