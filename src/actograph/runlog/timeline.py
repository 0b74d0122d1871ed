"""The bounded timeline: old steps merge, recent steps stay sharp.

No idea of files or of what the numbers mean. The recent view holds at least the last `RECENT_STEPS` recorded steps one by
one. Steps older than that are in the long view: at most `MAX_BUCKETS` buckets of equal width; when it is full, neighbours
merge and the width doubles, so appends are O(1) amortised and memory does not grow with the run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

MAX_BUCKETS = 224  # the long view keeps between 112 and 224: finer than a heat map's columns on a screen
RECENT_STEPS = 64
HANDFUL = 32  # the oldest of so many more go into the long view together: that costs little more than one


class Span(Protocol):
    """What is known of consecutive recorded steps."""

    @property
    def first_step(self) -> int:
        """The first of them."""

    @property
    def last_step(self) -> int:
        """The last of them."""

    @property
    def num_steps(self) -> int:
        """How many were recorded; fewer than lie between where some were left out."""


S = TypeVar("S", bound=Span)


class Timeline(Generic[S]):
    """The long and the recent view of one phase, and which buckets of the long one a writer has not stored yet.

    The two do not overlap. When steps go from one to the other is counted in steps, so that the result does not depend on
    when somebody looks.

    Args:
        merge: joins each ``n`` neighbours of buckets in time order, the last ones too where there are fewer.
        max_buckets: of the long view; even.
        recent_steps: of the recent view, at least once there were so many.
        handful: buckets that go into the long view together.
        step_size: recorded steps in each bucket that is appended; the views hold so many times as many.

    """

    def __init__(
        self,
        merge: Callable[[Sequence[S], int], list[S]],
        max_buckets: int = MAX_BUCKETS,
        recent_steps: int = RECENT_STEPS,
        handful: int = HANDFUL,
        step_size: int = 1,
    ) -> None:
        if max_buckets <= 0 or max_buckets % 2:
            raise ValueError(
                f"max_buckets is {max_buckets}; neighbours merge, so it must be even and positive"
            )
        self.max_buckets = max_buckets
        self.width = step_size  # recorded steps a full bucket of the long view holds
        self.long: list[S] = []
        self.recent: list[S] = []
        self._merge = merge
        self._step_size = step_size
        self._recent_steps = recent_steps
        self._handful = handful
        self._num_stored = 0  # buckets of the long view that are stored as they are

    def append(self, bucket: S) -> None:
        """Add one recorded step (or ``step_size`` of them, joined), later than all before it."""
        self.recent.append(bucket)
        if len(self.recent) == self._recent_steps + self._handful:
            oldest, self.recent = self.recent[: self._handful], self.recent[self._handful :]
            self._absorb(oldest)

    def take_changes(self) -> list[tuple[int, S]]:
        """Return the long view's buckets that changed since the last call, with their positions.

        They count as stored from now on. Positions at or beyond ``len(long)`` are to be deleted from the store.
        """
        changed = list(enumerate(self.long[self._num_stored :], self._num_stored))
        self._num_stored = len(self.long)
        return changed

    def take_up(self, long: Sequence[S], recent: Sequence[S]) -> None:
        """Go on from both views of another timeline, which are stored as they are; those of older runs may overlap."""
        end = long[-1].last_step if long else -1
        self.long, self.recent = list(long), [bucket for bucket in recent if bucket.first_step > end]
        self.width = long[0].num_steps if long else self._step_size  # the first bucket is always full
        self._num_stored = len(long)
        while len(self.long) > self.max_buckets:
            self._halve()

    def joined(self) -> list[S]:
        """Return both views as one sequence."""
        return [*self.long, *self.recent]

    def abridged(self) -> list[S]:
        """Return the recent view in fewer buckets: its last handful one by one, what is older as wide as the long view's."""
        older, newest = self.recent[: -self._handful], self.recent[-self._handful :]
        return [*self._merge(older, self.width // self._step_size), *newest]

    def _absorb(self, steps: list[S]) -> None:
        """Take steps into the long view."""
        if self.long and self.long[-1].num_steps < self.width:
            self._num_stored = min(self._num_stored, len(self.long) - 1)
            room = (self.width - self.long[-1].num_steps) // self._step_size
            first, steps = [self.long[-1], *steps[:room]], steps[room:]
            self.long[-1:] = self._merge(first, len(first))
        while steps:
            if len(self.long) == self.max_buckets:
                self._halve()
            size = self.width // self._step_size
            end = size * (self.max_buckets - len(self.long))
            self.long += self._merge(steps[:end], size)
            steps = steps[end:]

    def _halve(self) -> None:
        self.long = self._merge(self.long, 2)
        self.width *= 2
        self._num_stored = 0


def joined(long: Sequence[S], recent: Sequence[S]) -> list[S]:
    """Return both views as one sequence; of views that overlap, as in older runs, the recent one from where it can begin."""
    if not recent:
        return list(long)
    old = [bucket for bucket in long if bucket.first_step < recent[0].first_step]
    end = old[-1].last_step if old else -1
    return old + [bucket for bucket in recent if bucket.first_step > end]
