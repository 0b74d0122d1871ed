"""Rows on their way from a device to the host: `HostCopy` one tensor, `StepRows` all rows of a step.

No idea of modules, of slots or of what is done with them. On CUDA a copy goes to pinned memory on the stream that has
measured, with an event behind it: nobody waits until somebody wants the numbers. Other devices are copied at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actograph.layout.bins import NUM_BINS
from actograph.layout.row import NUM_FIELDS, Counts, Field, Floats, empty_rows
from actograph.sketch.links import Filling, Positions
from actograph.sketch.native import Bytes


class HostCopy:
    """A copy of a tensor, as it is now on its device's current stream.

    >>> copy = HostCopy(torch.tensor([1.0, 2.0]))
    >>> copy.has_arrived(), copy.wait()
    (True, array([1., 2.], dtype=float32))
    """

    def __init__(self, source: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if source.is_cuda:
            self._host = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
            self._host.copy_(source, non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record(torch.cuda.current_stream(source.device))
        else:
            self._host = source.cpu()

    def has_arrived(self) -> bool:
        """Tell whether `wait` would return at once."""
        return self._event is None or self._event.query()  # type: ignore[no-untyped-call]

    def wait(self) -> NDArray[Any]:
        """Return the numbers when they are there."""
        if self._event is not None:
            self._event.synchronize()  # sync: only up to this copy, and only when the numbers are wanted
        return self._host.numpy()


class Taken(NamedTuple):
    """The rows (slots, NUM_FIELDS), histograms (slots, NUM_BINS) and packed flags of one device."""

    rows: Floats
    hist: Counts
    packed: Bytes

    def has_arrived(self) -> bool:
        """Say yes: they are on the host."""
        return True

    def fetch(self) -> Taken:
        """Return itself."""
        return self


class Sent:
    """The same on its way; ``values``, ``hist`` and ``flags`` are what the device has of each slot, in pieces."""

    def __init__(
        self, values: list[Tensor], hist: list[Tensor], flags: list[Tensor], filling: Filling, step: int
    ) -> None:
        self._dtype = np.float32 if values[0].dtype == torch.float32 else np.float64
        self._num = sum(len(piece) for piece in values)
        self._filling = filling
        self._step = step
        # widest items first, so that each kind begins where the host can read it
        pieces = [piece.reshape(-1).view(torch.uint8) for piece in (*hist, *values, *flags)]
        self._copy = HostCopy(torch.cat(pieces))

    def has_arrived(self) -> bool:
        """Tell whether `fetch` would return at once."""
        return self._copy.has_arrived()

    def fetch(self) -> Taken:
        """Return the rows when they are there, those that follow from others filled in."""
        data = self._copy.wait()
        values_at = self._num * NUM_BINS * np.dtype(np.int64).itemsize
        flags_at = values_at + self._num * NUM_FIELDS * np.dtype(self._dtype).itemsize
        hist = data[:values_at].view(np.int64).reshape(-1, NUM_BINS).astype(np.uint32)
        rows = data[values_at:flags_at].view(self._dtype).reshape(-1, NUM_FIELDS).astype(np.float64)
        rows[rows[:, Field.NAN] + rows[:, Field.INF] > 0, Field.FIRST_NON_FINITE] = self._step
        packed = np.packbits(data[flags_at:], bitorder="little")
        self._filling.fill_in(rows, hist, packed)
        return Taken(rows, hist, packed)


@dataclass(frozen=True)
class Part:
    """What one device has of a step, and which of the step's layers that is."""

    content: Taken | Sent
    positions: list[int]  # of the layers
    flag_bytes: list[slice]  # of each, among the packed flags
    joined_bytes: Positions  # all these, one after the other


@dataclass(frozen=True)
class StepRows:
    """The rows of all layers of a step, in one or several parts that may be on their way."""

    num_layers: int
    parts: list[Part]

    def has_arrived(self) -> bool:
        """Tell whether `collect` would return at once."""
        return all(part.content.has_arrived() for part in self.parts)

    def collect(self) -> tuple[Floats, Counts, Bytes]:
        """Return (rows, hist, packed fired flags) of all layers in order, as `runlog.Bucket` holds them."""
        if len(self.parts) == 1:
            (part,) = self.parts
            rows, hist, packed = part.content.fetch()
            return rows, hist, packed[part.joined_bytes]
        rows, hist = empty_rows(self.num_layers), np.zeros((self.num_layers, NUM_BINS), np.uint32)
        fired = [np.zeros(0, np.uint8)] * (self.num_layers + 1)
        for part in self.parts:
            rows[part.positions], hist[part.positions], packed = part.content.fetch()
            for position, where in zip(part.positions, part.flag_bytes, strict=True):
                fired[position] = packed[where]
        return rows, hist, np.concatenate(fired)
