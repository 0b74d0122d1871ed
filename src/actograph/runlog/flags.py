"""`FlagTrack`: which units of one wide layer fired, in a bounded number of bytes.

No idea of files. A flag for each unit in each bucket is a bit; from some hundred units on all these bits together would
outgrow the rest of what is kept of a layer. So wide layers have a timeline of their own with fewer buckets: the last
steps in groups of `GROUP_STEPS`, fine enough for the window after which a unit is dead, and a long view of as many
buckets as fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from actograph.layout.layer import LayerInfo
from actograph.runlog.buckets import Bucket, packed_size
from actograph.runlog.timeline import HANDFUL, MAX_BUCKETS, RECENT_STEPS, Timeline

FLAG_BYTES = 32 * 1024  # of one layer: with 320 rows of 1.5 KB a layer stays below 512 KB
GROUP_STEPS = 10  # recorded steps of which a unit's firings are joined: half the window of `RunView.dead`
RECENT_GROUPS = 4  # so that the window always lies in groups that are kept apart
FEWEST_LONG = (
    2  # buckets of the long view; layers of more than 37,000 units take more than FLAG_BYTES with these
)

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class FlagBucket:
    """Whether each unit of one layer fired over consecutive recorded steps: ``fired`` holds a bit for each."""

    first_step: int
    last_step: int
    num_steps: int
    fired: NDArray[np.uint8]


def is_wide(num_flags: int) -> bool:
    """Tell whether a layer's flags are too many to be kept in every bucket."""
    return packed_size(num_flags) * (MAX_BUCKETS + RECENT_STEPS + HANDFUL) > FLAG_BYTES


def merge_flags(buckets: Sequence[FlagBucket], size: int) -> list[FlagBucket]:
    """Merge each ``size`` neighbours in time order, the last ones too where there are fewer."""
    return [_merge(buckets[begin : begin + size]) for begin in range(0, len(buckets), size)]


def _merge(buckets: Sequence[FlagBucket]) -> FlagBucket:
    fired = np.bitwise_or.reduce([bucket.fired for bucket in buckets])
    num_steps = sum(bucket.num_steps for bucket in buckets)
    return FlagBucket(buckets[0].first_step, buckets[-1].last_step, num_steps, fired)


class FlagTrack:
    """The flags of one wide layer, over the steps."""

    def __init__(self, num_flags: int) -> None:
        num_buckets = FLAG_BYTES // packed_size(num_flags) - RECENT_GROUPS - 1  # one for the open group
        num_long = max(num_buckets // 2 * 2, FEWEST_LONG)
        self.timeline = Timeline(merge_flags, num_long, RECENT_GROUPS, handful=1, step_size=GROUP_STEPS)
        self.open: FlagBucket | None = None  # the group that is being filled

    def append(self, step: int, fired: NDArray[np.uint8]) -> None:
        """Add the packed flags of a recorded step."""
        new = FlagBucket(step, step, 1, fired)
        group = new if self.open is None else _merge([self.open, new])
        is_full = group.num_steps == GROUP_STEPS
        self.open = None if is_full else group
        if is_full:
            self.timeline.append(group)

    def take_up(self, long: Sequence[FlagBucket], recent: Sequence[FlagBucket]) -> None:
        """Go on from both views of another track of as many flags, the open group among the recent ones."""
        is_open = bool(recent) and recent[-1].num_steps < GROUP_STEPS
        self.open = recent[-1] if is_open else None
        self.timeline.take_up(long, recent[:-1] if is_open else recent)

    def recent(self) -> list[FlagBucket]:
        """Return the last groups, the open one among them."""
        return [*self.timeline.recent, *([] if self.open is None else [self.open])]


@dataclass
class FlagTracks:
    """The tracks of a run's wide layers, by position."""

    tracks: dict[int, FlagTrack] = field(default_factory=dict)
    _ends: list[int] = field(default_factory=lambda: [0])  # of the layers' bytes among those of all

    def add_layer(self, layer: LayerInfo) -> None:
        """Append a layer, wide or not."""
        if is_wide(layer.num_flags):
            self.tracks[len(self._ends) - 1] = FlagTrack(layer.num_flags)
        self._ends.append(self._ends[-1] + packed_size(layer.num_flags))

    def take_from(self, bucket: Bucket) -> Bucket:
        """Move the wide layers' flags from a step's bucket into their tracks."""
        if not self.tracks:
            return bucket
        known = [position for position in self.tracks if position < len(bucket.rows)]
        slices = [slice(self._ends[position], self._ends[position + 1]) for position in known]
        for position, where in zip(known, slices, strict=True):
            self.tracks[position].append(bucket.first_step, bucket.fired[where].copy())
        return replace(bucket, fired=np.delete(bucket.fired, np.r_[tuple(slices)])) if slices else bucket


@dataclass(frozen=True)
class WideFlags:
    """The flags of one wide layer as read. In older runs the last of ``long`` reaches into the steps of ``recent``."""

    long: tuple[FlagBucket, ...]
    recent: tuple[FlagBucket, ...]

    def fired(self, first_steps: NDArray[np.int64], last_steps: NDArray[np.int64], num_flags: int) -> Flags:
        """Tell whether each unit fired at least once in each of T stretches of steps, or just beside it: (T, U).

        A unit may count as firing some steps longer than it did, where the stretch cuts through one of the buckets.
        """
        sharp_from = self.recent[0].first_step if self.recent else np.inf
        packed = np.zeros((len(first_steps), packed_size(num_flags)), np.uint8)
        for bucket in (*self.long, *self.recent):
            overlaps = (first_steps <= bucket.last_step) & (last_steps >= bucket.first_step)
            if bucket.first_step < sharp_from:
                overlaps &= first_steps < sharp_from
            packed[overlaps] |= bucket.fired
        return np.unpackbits(packed, axis=1, count=num_flags, bitorder="little").astype(np.bool_)
