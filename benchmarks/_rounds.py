"""Rounds in which each trainer trains one epoch, side by side, and what they say about a trainer and its base.

The machines these benchmarks run on drift by 10 % within seconds: only neighbours are alike, so every figure is that of
pairs of one round. The order rotates; the first round warms up and is not counted. No idea of which trainers.
"""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from _trainers import Feed, Job, Trainer
from numpy.typing import NDArray


@dataclass(frozen=True)
class Contender:
    """A trainer with what it reads; the same trainer may take part with several feeds."""

    kind: type[Trainer]
    make_feed: Callable[[Job], Feed]
    label: str = ""  # instead of the trainer's own

    @property
    def title(self) -> str:
        return self.label or self.kind.label


@dataclass
class Times:
    """Seconds of each counted round, of the epoch alone and of the whole fit."""

    label: str
    epoch_s: list[float] = field(default_factory=list)
    fit_s: list[float] = field(default_factory=list)
    failure: str = ""


@dataclass(frozen=True)
class Quartiles:
    """Median and quartiles."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float] | NDArray[np.float64]) -> Quartiles:
        low, median, high = np.quantile(values, (0.25, 0.5, 0.75))
        return cls(float(low), float(median), float(high))


class Seat:
    """A contender at work: it loses its trainer when something fails, so that the others go on."""

    def __init__(self, contender: Contender, job: Job, folder: Path) -> None:
        self.times = Times(contender.title)
        self.trainer: Trainer | None = None
        with self._guarded():
            trainer = contender.kind(job, contender.make_feed(job), folder)
            trainer.begin()
            self.trainer = trainer

    def fit(self) -> None:
        """Train one epoch."""
        if self.trainer is None:
            return
        gc.collect()  # what others left behind is not this one's
        with self._guarded():
            start_s = time.perf_counter()
            self.trainer.run()
            self.times.fit_s.append(time.perf_counter() - start_s)
            self.times.epoch_s.append(self.trainer.epoch_s)

    def forget(self) -> None:
        self.times.epoch_s.clear()
        self.times.fit_s.clear()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a foreign library's
            self.times.failure = f"{type(error).__name__}: {error}".splitlines()[0]
            self.trainer = None


def play(contenders: Sequence[Contender], job: Job, num_rounds: int) -> list[Times]:
    """Train ``num_rounds`` counted epochs with each contender; one that fails is left out and says why."""
    with ExitStack() as stack:
        folders = [
            stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)) for _ in contenders
        ]
        seats = [Seat(one, job, Path(folder)) for one, folder in zip(contenders, folders, strict=True)]
        for seat in seats:  # warms up
            seat.fit()
            seat.forget()
        gc.collect()
        gc.freeze()  # collections do not look at what was imported: it is not the trainers' own
        stack.callback(gc.unfreeze)
        for round_index in range(num_rounds):
            first = round_index % len(seats)
            for seat in seats[first:] + seats[:first]:
                seat.fit()
    return [seat.times for seat in seats]
