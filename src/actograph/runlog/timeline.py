"""The bounded timeline: old steps merge, recent steps stay sharp.

No idea of files or of what the numbers mean. The long view holds at most `MAX_BUCKETS` buckets of equal width over the
whole run; when it is full, neighbours merge and the width doubles, so appends are O(1) amortised and memory does not grow
with the run. The recent view holds the last `RECENT_STEPS` recorded steps one by one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

MAX_BUCKETS = 256  # the long view keeps between 128 and 256: finer than a heat map's columns on a screen
RECENT_STEPS = 64


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
    """The long and the recent view of one phase, and which buckets a writer has not stored yet.

    New steps go to the recent view at once and into the long view a handful at a time (half the recent view, counted in
    steps, so that the result does not depend on when somebody looks): merging many at once costs little more than one.

    Args:
        merge: joins buckets in time order.
        max_buckets: of the long view; even.
        recent_steps: of the recent view.
        step_size: recorded steps in each bucket that is appended; the views hold so many times as many.

    """

    def __init__(
        self,
        merge: Callable[[Sequence[S]], S],
        max_buckets: int = MAX_BUCKETS,
        recent_steps: int = RECENT_STEPS,
        step_size: int = 1,
    ) -> None:
        if max_buckets <= 0 or max_buckets % 2:
            raise ValueError(
                f"max_buckets is {max_buckets}; neighbours merge, so it must be even and positive"
            )
        self.max_buckets = max_buckets
        self.width = step_size  # recorded steps a full bucket of the long view holds
        self.long: list[S] = []
        self.recent: deque[S] = deque(maxlen=recent_steps)
        self._merge = merge
        self._step_size = step_size
        self._waiting: list[S] = []  # in the recent view, not yet in the long one
        self._handful = max(1, recent_steps // 2)
        self._num_stored = 0  # buckets of the long view that are stored as they are

    def append(self, bucket: S) -> None:
        """Add one recorded step (or ``step_size`` of them, joined), later than all before it."""
        self.recent.append(bucket)
        self._waiting.append(bucket)
        if len(self._waiting) == self._handful:
            self._absorb()

    def take_changes(self) -> tuple[list[tuple[int, S]], list[S]]:
        """Return the long view's buckets that changed since the last call, with their positions, and the waiting steps.

        They count as stored from now on. Positions at or beyond ``len(long)`` are to be deleted from the store.
        """
        changed = list(enumerate(self.long))[self._num_stored :]
        self._num_stored = len(self.long)
        return changed, list(self._waiting)

    def take_up(self, long: Sequence[S], recent: Sequence[S]) -> None:
        """Go on from both views of another timeline of the same bounds, which are stored as they are."""
        end = long[-1].last_step if long else -1
        self.long = list(long)
        self.recent = deque(recent, maxlen=self.recent.maxlen)
        self.width = long[0].num_steps if long else self._step_size  # the first bucket is always full
        self._waiting = [bucket for bucket in recent if bucket.first_step > end]
        self._num_stored = len(long)

    def joined(self) -> list[S]:
        """Return both views as one sequence without overlap."""
        return joined(self.long, list(self.recent))

    def _absorb(self) -> None:
        """Take the waiting steps into the long view."""
        steps, self._waiting = self._waiting, []
        while steps:
            if self.long and self.long[-1].num_steps < self.width:
                self._num_stored = min(self._num_stored, len(self.long) - 1)
                room = (self.width - self.long[-1].num_steps) // self._step_size
                self.long[-1] = self._merge([self.long[-1], *steps[:room]])
            else:
                if len(self.long) == self.max_buckets:
                    self._halve()
                room = self.width // self._step_size
                self.long.append(self._merge(steps[:room]))
            steps = steps[room:]

    def _halve(self) -> None:
        pairs = zip(self.long[::2], self.long[1::2], strict=True)
        self.long = [self._merge(pair) for pair in pairs]
        self.width *= 2
        self._num_stored = 0


def joined(long: Sequence[S], recent: Sequence[S]) -> list[S]:
    """Return one sequence without overlap: the long view up to where the recent steps begin, then these one by one."""
    if not recent:
        return list(long)
    old = [bucket for bucket in long if bucket.first_step < recent[0].first_step]
    end = old[-1].last_step if old else -1
    return old + [bucket for bucket in recent if bucket.first_step > end]
