"""A bucket as bytes and back.

No idea of databases. The bytes are those of rows, histograms and flags, one after the other, little endian; nothing in them
can run code. Compressing costs a tenth of a millisecond, so it is left for the end of a run.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np

from actograph.layout.bins import NUM_BINS
from actograph.layout.parameter import NUM_PARAMETER_FIELDS
from actograph.layout.row import NUM_FIELDS, Counts, Floats
from actograph.runlog.buckets import Bucket, ParameterBucket

FAST = 1  # zlib level: histograms shrink about fivefold at any level, and this one costs least
ROW_TYPE = np.dtype("<f8")
COUNT_TYPES: dict[str, np.dtype[Any]] = {
    "u": np.dtype("<u4"),
    "f": np.dtype("<f4"),
}  # by kind: exact, or too large for 32 bits


def pack(bucket: Bucket, *, compressed: bool) -> tuple[int, str, bytes]:
    """Return (number of layers, kind of the counts, bytes)."""
    kind = bucket.hist.dtype.kind
    parts = (
        bucket.rows.astype(ROW_TYPE, copy=False),
        bucket.hist.astype(COUNT_TYPES[kind], copy=False),
        bucket.fired,
    )
    data = b"".join(part.tobytes() for part in parts)
    return len(bucket.rows), kind, zlib.compress(data, FAST) if compressed else data


def unpack(
    steps: tuple[int, int, int], num_layers: int, kind: str, data: bytes, *, compressed: bool
) -> Bucket:
    """Undo `pack`; ``steps`` are first step, last step and number of steps. Raises ValueError for bytes that do not fit."""
    data = zlib.decompress(data) if compressed else data
    num_rows, num_counts = num_layers * NUM_FIELDS, num_layers * NUM_BINS
    split = num_rows * ROW_TYPE.itemsize
    end = split + num_counts * COUNT_TYPES[kind].itemsize
    rows: Floats = np.frombuffer(data, ROW_TYPE, num_rows).reshape(num_layers, NUM_FIELDS)
    hist: Counts = np.frombuffer(data, COUNT_TYPES[kind], num_counts, split).reshape(num_layers, NUM_BINS)
    return Bucket(*steps, rows, hist, np.frombuffer(data[end:], np.uint8))


def pack_parameters(bucket: ParameterBucket) -> bytes:
    """Return the bucket's rows as bytes; they are few, so they are never compressed."""
    return bucket.rows.astype(ROW_TYPE, copy=False).tobytes()


def unpack_parameters(steps: tuple[int, int, int], data: bytes) -> ParameterBucket:
    """Undo `pack_parameters`; ``steps`` as for `unpack`. Raises ValueError for bytes that do not fit."""
    rows: Floats = np.frombuffer(data, ROW_TYPE).reshape(-1, NUM_PARAMETER_FIELDS)
    return ParameterBucket(*steps, rows)
