"""The bounded timeline of sketches: old steps merge, recent steps stay sharp.

No idea of files or of what the numbers mean. The long view holds at most `MAX_BUCKETS` buckets of equal width over the
whole run; when it is full, neighbours merge and the width doubles, so appends are O(1) amortised and memory does not grow
with the run. The recent view holds the last `RECENT_STEPS` recorded steps one by one.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actograph.layout.row import Counts, Floats, empty_rows, merge_counts, merge_rows

MAX_BUCKETS = 256  # the long view keeps between 128 and 256: finer than a heat map's columns on a screen
RECENT_STEPS = 64


@dataclass(frozen=True)
class Bucket:
    """All layers over consecutive recorded steps.

    ``rows`` is (layers, NUM_FIELDS), ``hist`` (layers, NUM_BINS) unsigned, ``fired`` the layers' unit flags, each layer's
    bits packed into whole bytes (`packed_size`) and joined.
    """

    first_step: int
    last_step: int
    num_steps: int
    rows: Floats
    hist: Counts
    fired: NDArray[np.uint8]


def packed_size(num_units: int) -> int:
    """Return the bytes that hold one flag for each unit."""
    return (num_units + 7) // 8


def merge_buckets(a: Bucket, b: Bucket) -> Bucket:
    """Merge an earlier and a later bucket; layers that only the later one knows are taken over."""
    a = _with_layers(a, len(b.rows), len(b.fired))
    return Bucket(
        first_step=a.first_step,
        last_step=b.last_step,
        num_steps=a.num_steps + b.num_steps,
        rows=merge_rows(a.rows, b.rows),
        hist=merge_counts(a.hist, b.hist),
        fired=a.fired | b.fired,
    )


def _with_layers(bucket: Bucket, num_layers: int, fired_bytes: int) -> Bucket:
    """Return the bucket with empty entries for layers discovered after it (new layers come last)."""
    missing = num_layers - len(bucket.rows)
    if missing == 0:
        return bucket
    return Bucket(
        bucket.first_step,
        bucket.last_step,
        bucket.num_steps,
        np.concatenate([bucket.rows, empty_rows(missing)]),
        np.concatenate([bucket.hist, np.zeros((missing, bucket.hist.shape[1]), bucket.hist.dtype)]),
        np.concatenate([bucket.fired, np.zeros(fired_bytes - len(bucket.fired), np.uint8)]),
    )


class Timeline:
    """The long and the recent view of one phase, and which buckets a writer has not stored yet."""

    def __init__(self, max_buckets: int = MAX_BUCKETS, recent_steps: int = RECENT_STEPS) -> None:
        if max_buckets <= 0 or max_buckets % 2:
            raise ValueError(
                f"max_buckets is {max_buckets}; neighbours merge, so it must be even and positive"
            )
        self.max_buckets = max_buckets
        self.width = 1  # recorded steps a full bucket of the long view holds
        self.long: list[Bucket] = []
        self.recent: deque[Bucket] = deque(maxlen=recent_steps)
        self.num_appended = 0
        self._stored_long = 0  # buckets of the long view below this position are stored as they are
        self._stored_recent = 0  # appended buckets that the recent view has handed out

    def append(self, bucket: Bucket) -> None:
        """Add one recorded step (``num_steps`` 1), later than all before it."""
        self.recent.append(bucket)
        self.num_appended += 1
        if self.long and self.long[-1].num_steps < self.width:
            self.long[-1] = merge_buckets(self.long[-1], bucket)
            self._stored_long = min(self._stored_long, len(self.long) - 1)
            return
        if len(self.long) == self.max_buckets:
            self._halve()
        self.long.append(bucket)

    def take_changes(self) -> tuple[list[tuple[int, Bucket]], list[tuple[int, Bucket]]]:
        """Return (long, recent) buckets with their positions that changed since the last call, and note them as stored.

        Positions of the long view at or beyond ``len(long)`` are to be deleted from the store.
        """
        long = list(enumerate(self.long))[self._stored_long :]
        num_new = min(self.num_appended - self._stored_recent, len(self.recent))
        numbered = enumerate(self.recent, self.num_appended - len(self.recent))
        ring = self.recent.maxlen or 1
        recent = [(number % ring, bucket) for number, bucket in numbered][len(self.recent) - num_new :]
        self._stored_long, self._stored_recent = len(self.long), self.num_appended
        return long, recent

    def _halve(self) -> None:
        pairs = zip(self.long[::2], self.long[1::2], strict=True)
        self.long = [merge_buckets(a, b) for a, b in pairs]
        self.width *= 2
        self._stored_long = 0


def joined(long: list[Bucket], recent: list[Bucket]) -> list[Bucket]:
    """Return one sequence without overlap: the long view up to where the recent steps begin, then these one by one."""
    if not recent:
        return list(long)
    old = [bucket for bucket in long if bucket.first_step < recent[0].first_step]
    end = old[-1].last_step if old else -1
    return old + [bucket for bucket in recent if bucket.first_step > end]


def with_all_layers(buckets: list[Bucket]) -> list[Bucket]:
    """Return the buckets with the same layers in each: those of the last one."""
    if not buckets:
        return []
    most = max(buckets, key=lambda bucket: len(bucket.rows))
    return [_with_layers(bucket, len(most.rows), len(most.fired)) for bucket in buckets]
