"""`LossCurve`: the levels and the noise of a training loss, read with medians so that single batches do not count.

No idea of what is healthy. A level is the median of a block of steps; the error of a level follows from the scatter between
neighbouring steps. Nothing assumes that a loss is positive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from actograph.layout.row import Floats
from actograph.runlog.scalars import ScalarSeries
from actograph.runlog.view import RunView

NUM_BLOCKS = 20  # a level is judged over a twentieth of the run
MIN_BLOCK = 5  # points: the median of five ignores two outliers
FIRST_POINTS = 5  # a good learning rate halves the loss within the first block; the very first points still show the start
MAD_TO_STD = 1.4826  # median absolute deviation to standard deviation, for a normal distribution
MEDIAN_ERROR = 1.2533  # standard error of a median over that of a mean, sqrt(pi / 2)
CLEARLY = 4.0  # standard errors: among 20 blocks of pure noise one stands out by 4 in 1 of 800 runs


@dataclass(frozen=True)
class LossCurve:
    """The finite part of a loss: ``steps`` (n,) and ``values`` (n,), at least `MIN_BLOCK` points to be read."""

    steps: Floats
    values: Floats

    @classmethod
    def of(cls, series: ScalarSeries) -> LossCurve:
        """Return the curve of a recorded loss; points that are NaN or infinite are left out."""
        finite = np.isfinite(series.values)
        return cls(series.steps[finite], series.values[finite])

    def __len__(self) -> int:
        return len(self.values)

    @cached_property
    def _blocks(self) -> list[Floats]:
        num = max(1, min(NUM_BLOCKS, len(self) // MIN_BLOCK))
        return np.array_split(self.values, num)

    @cached_property
    def levels(self) -> Floats:
        """Median of each block, in time order (K,)."""
        return np.array([np.median(block) for block in self._blocks])

    @cached_property
    def noises(self) -> Floats:
        """Scatter of single steps within each block, trend removed (K,): from differences between neighbours."""
        return np.array([_scatter(block) for block in self._blocks])

    def error(self, block: int) -> float:
        """Return the standard error of a block's level."""
        return MEDIAN_ERROR * float(self.noises[block]) / math.sqrt(len(self._blocks[block]))

    def error_between(self, a: int, b: int) -> float:
        """Return the standard error of the difference of two blocks' levels."""
        return math.hypot(self.error(a), self.error(b))

    @cached_property
    def start(self) -> float:
        """The level at the beginning: of the first points if they lie clearly above the first block, else of the block."""
        first = self._blocks[0][:FIRST_POINTS]
        level = float(np.median(first))
        error = MEDIAN_ERROR * float(self.noises[0]) / math.sqrt(len(first))
        return level if level > self.levels[0] + CLEARLY * error else float(self.levels[0])

    @cached_property
    def best_block(self) -> int:
        """The block with the lowest level."""
        return int(np.argmin(self.levels))

    @property
    def best(self) -> float:
        """The lowest level."""
        return float(self.levels[self.best_block])

    @property
    def final(self) -> float:
        """The level at the end."""
        return float(self.levels[-1])

    @property
    def scale(self) -> float:
        """What a change is compared with: the level at the start, or all that was gained where that is more."""
        return max(self.start - self.best, abs(self.start))

    def level_before(self, step: int) -> float:
        """Return the level just before a step; the start where there are too few points before it."""
        end = int(np.searchsorted(self.steps, step))
        begin = max(0, end - max(len(self) // NUM_BLOCKS, MIN_BLOCK))
        return float(np.median(self.values[begin:end])) if end - begin >= MIN_BLOCK else self.start

    def shows_harm(self, step: int, learned: float, lost: float) -> bool:
        """Tell whether a fault that began at ``step`` shows in the loss.

        It does where the loss fell by less than ``learned`` of its level at the start, or gave back ``lost`` of what had
        been gained since ``step``. Where the very first loss was lower (it exploded at once), that was the start.
        """
        start = min(self.start, float(self.values[0]))
        has_learned = start - self.final >= learned * abs(start)
        gained = start - self.best
        given_back = self.final - min(self.level_before(step), start)
        return not has_learned or given_back >= lost * gained

    def smooth(self) -> Floats:
        """Return the running median of `MIN_BLOCK` points (n,), shorter at the ends."""
        half = MIN_BLOCK // 2
        padded = np.pad(self.values, half, constant_values=np.nan)
        windows = np.lib.stride_tricks.sliding_window_view(padded, MIN_BLOCK)
        return np.nanmedian(windows, axis=1)


def _scatter(values: Floats) -> float:
    if len(values) <= 1:
        return 0.0
    differences = np.diff(values)
    return MAD_TO_STD * float(np.median(np.abs(differences - np.median(differences)))) / math.sqrt(2)


def loss_curve(view: RunView) -> LossCurve:
    """Return the curve of a run's training loss."""
    return LossCurve.of(view.scalar("loss"))
