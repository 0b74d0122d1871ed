"""Two figures for a recorder: what it adds to a loop, and what its work takes back to back. No idea of which recorder.

In the loop, recording is switched on and off in blocks within one process and the two of a pair are compared: the machines
these benchmarks run on drift by 10 % within seconds, and only neighbours are alike. The order alternates. For the pure
cost, torch's calls of the hooks are repeated by hand with the real modules, inputs and outputs of a few steps.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from _hooks import StepCalls
from _models import Batch
from _recorders import Recorder

BLOCK_STEPS = 20  # at most; fewer where the time is short
FEWEST_PAIRS = 5
TRIALS = 3  # steps of each kind that warm up and tell how long a block may be
REPLAYED_STEPS = 4  # different batches whose activations are used in turn
CHUNKS = 20  # of a replay: their median is the figure
FEWEST_CHUNKS = 3
FLUSHES_A_CHUNK = 2  # so that no chunk escapes them
RESAMPLES = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A median with its bootstrap interval over n values."""

    median: float
    low: float
    high: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Bootstrap the median: resample the values with replacement, keep the middle 95 % of the medians."""
        sample = np.asarray(values, np.float64)
        random = np.random.default_rng(0)
        medians = np.median(random.choice(sample, (RESAMPLES, len(sample))), axis=1)
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(medians, (tail, 1 - tail))
        return cls(float(np.median(sample)), float(low), float(high), len(sample))


@dataclass
class InLoop:
    """Seconds per step of each pair of blocks."""

    block_steps: int = 0
    on_s: list[float] = field(default_factory=list)
    off_s: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> Interval:
        return Interval.of([on / off for on, off in zip(self.on_s, self.off_s, strict=True)])

    @property
    def ratio_of_totals(self) -> float:
        """All steps with recording over all without: unlike the median it holds what is rare, noise included."""
        return sum(self.on_s) / sum(self.off_s)


@dataclass(frozen=True)
class Pure:
    """Seconds per step of the recorder's work.

    ``forward_s`` is the median of the forward hooks, ``end_s`` of the rest of a step; what is left of ``total`` comes in
    few steps only: flushes, merges, noise.
    """

    total: Interval
    forward_s: float
    end_s: float


def in_loop(recorder: Recorder, max_pairs: int, seconds: float, *, all_pairs: bool) -> InLoop:
    """Compare blocks with and without recording until there are ``max_pairs``, or time is up.

    Blocks are shortened where ``seconds`` do not suffice. With ``all_pairs`` the time may be overrun then, otherwise
    pairs are left out, down to `FEWEST_PAIRS`.
    """
    result = InLoop()
    recorder.train(_switched_batches(recorder, result, max_pairs, seconds, all_pairs=all_pairs))
    return result


def _switched_batches(
    recorder: Recorder, result: InLoop, max_pairs: int, seconds: float, *, all_pairs: bool
) -> Iterator[Batch]:
    """Yield batches to a loop, switch between blocks of them, and time the blocks."""
    batches = itertools.cycle(recorder.training.batches)
    trial_s = {True: math.inf, False: math.inf}
    for is_on in (True, False) * TRIALS:
        recorder.switch(is_on=is_on)
        start_s = time.perf_counter()
        yield next(batches)
        trial_s[is_on] = min(trial_s[is_on], time.perf_counter() - start_s)
    pairs = max_pairs if all_pairs else FEWEST_PAIRS
    result.block_steps = min(max(int(seconds / (pairs * sum(trial_s.values()))), 1), BLOCK_STEPS)
    began_s = time.perf_counter()
    for pair in range(max_pairs):
        if not all_pairs and pair >= FEWEST_PAIRS and time.perf_counter() - began_s > seconds:
            break
        for is_on in (True, False) if pair % 2 else (False, True):
            recorder.switch(is_on=is_on)
            start_s = time.perf_counter()
            for _ in range(result.block_steps):
                yield next(batches)
            elapsed_s = (time.perf_counter() - start_s) / result.block_steps
            (result.on_s if is_on else result.off_s).append(elapsed_s)
    recorder.switch(is_on=True)


def pure_cost(recorder: Recorder, step_s: float, seconds: float) -> Pure:
    """Repeat the recorder's work on a few steps' activations. Its clock runs as if each step took ``step_s`` besides."""
    recorder.prepare_replay()
    training = recorder.training
    steps = itertools.cycle([recorder.hooks().calls(batch) for batch in training.batches[:REPLAYED_STEPS]])
    timed = np.empty((0, 2))  # of each step: seconds in forward hooks, in the rest

    def replay(num_steps: int) -> float:
        """Do the work of some steps and return the mean seconds of one."""
        nonlocal timed
        chunk = np.empty((num_steps, 2))
        for index in range(num_steps):
            chunk[index] = _replay(recorder, next(steps))
            recorder.clock.advance(step_s)
        timed = np.concatenate([timed, chunk])
        return float(chunk.sum() / num_steps)

    trial_s = min(replay(1) for _ in range(TRIALS))
    chunk_steps = max(int(seconds / CHUNKS / trial_s), 1)
    if chunk_steps > 1:
        chunk_steps = max(chunk_steps, int(FLUSHES_A_CHUNK / (step_s + trial_s)))
    chunks = _chunks(replay, chunk_steps, seconds)
    forward_s, end_s = np.median(timed, axis=0)
    return Pure(Interval.of(chunks), float(forward_s), float(end_s))


def _replay(recorder: Recorder, step: StepCalls) -> tuple[float, float]:
    """Do a step's recording by hand; return the seconds of its forward hooks and of the rest."""
    start_s = time.perf_counter()
    for hook, args in step.forward:
        hook(*args)
    forward_end_s = time.perf_counter()
    recorder.on_loss(step.loss)
    for hook, args in step.backward:
        hook(*args)
    for hook, args in step.update:
        hook(*args)
    recorder.after_step(step.loss)
    return forward_end_s - start_s, time.perf_counter() - forward_end_s


def _chunks(replay: Callable[[int], float], chunk_steps: int, seconds: float) -> list[float]:
    """Return the mean seconds of a step in each chunk."""
    means: list[float] = []
    began_s = time.perf_counter()
    while len(means) < FEWEST_CHUNKS or (time.perf_counter() - began_s < seconds and len(means) < CHUNKS):
        means.append(replay(chunk_steps))
    return means
