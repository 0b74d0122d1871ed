"""The bounded timeline of sketches: old steps merge, recent steps stay sharp.

No idea of files or of what the numbers mean. The long view holds at most `MAX_BUCKETS` buckets of equal width over the
whole run; when it is full, neighbours merge and the width doubles, so appends are O(1) amortised and memory does not grow
with the run. The recent view holds the last `RECENT_STEPS` recorded steps one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
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


def merge_buckets(buckets: Sequence[Bucket]) -> Bucket:
    """Merge buckets in time order; layers that only later ones know are taken over."""
    if len(buckets) == 1:
        return buckets[0]
    last = buckets[-1]
    buckets = [_with_layers(bucket, len(last.rows), len(last.fired)) for bucket in buckets]
    return Bucket(
        first_step=buckets[0].first_step,
        last_step=last.last_step,
        num_steps=sum(bucket.num_steps for bucket in buckets),
        rows=merge_rows(np.stack([bucket.rows for bucket in buckets])),
        hist=merge_counts(np.stack([bucket.hist for bucket in buckets])),
        fired=np.bitwise_or.reduce([bucket.fired for bucket in buckets]),
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
    """The long and the recent view of one phase, and which buckets a writer has not stored yet.

    New steps go to the recent view at once and into the long view a handful at a time (half the recent view, counted in
    steps, so that the result does not depend on when somebody looks): merging many at once costs little more than one.
    """

    def __init__(self, max_buckets: int = MAX_BUCKETS, recent_steps: int = RECENT_STEPS) -> None:
        if max_buckets <= 0 or max_buckets % 2:
            raise ValueError(
                f"max_buckets is {max_buckets}; neighbours merge, so it must be even and positive"
            )
        self.max_buckets = max_buckets
        self.width = 1  # recorded steps a full bucket of the long view holds
        self.long: list[Bucket] = []
        self.recent: deque[Bucket] = deque(maxlen=recent_steps)
        self._waiting: list[Bucket] = []  # in the recent view, not yet in the long one
        self._handful = max(1, recent_steps // 2)
        self._num_stored = 0  # buckets of the long view that are stored as they are

    def append(self, bucket: Bucket) -> None:
        """Add one recorded step (``num_steps`` 1), later than all before it."""
        self.recent.append(bucket)
        self._waiting.append(bucket)
        if len(self._waiting) == self._handful:
            self._absorb()

    def take_changes(self) -> tuple[list[tuple[int, Bucket]], list[Bucket]]:
        """Return the long view's buckets that changed since the last call, with their positions, and the waiting steps.

        They count as stored from now on. Positions at or beyond ``len(long)`` are to be deleted from the store.
        """
        changed = list(enumerate(self.long))[self._num_stored :]
        self._num_stored = len(self.long)
        return changed, list(self._waiting)

    def _absorb(self) -> None:
        """Take the waiting steps into the long view."""
        steps, self._waiting = self._waiting, []
        while steps:
            if self.long and self.long[-1].num_steps < self.width:
                self._num_stored = min(self._num_stored, len(self.long) - 1)
                room = self.width - self.long[-1].num_steps
                self.long[-1] = merge_buckets([self.long[-1], *steps[:room]])
            else:
                if len(self.long) == self.max_buckets:
                    self._halve()
                room = self.width
                self.long.append(merge_buckets(steps[:room]))
            steps = steps[room:]

    def _halve(self) -> None:
        pairs = zip(self.long[::2], self.long[1::2], strict=True)
        self.long = [merge_buckets(pair) for pair in pairs]
        self.width *= 2
        self._num_stored = 0


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
