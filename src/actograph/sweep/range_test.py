"""The learning-rate range test (Smith 2017): train at rising rates, watch the loss, undo it all.

No idea of what the curve says: ``suggestions.py`` and ``refusal.py`` have that.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import DataLoader

from actograph.errors import UsageError
from actograph.layout.row import Floats
from actograph.show.series import smoothed
from actograph.sweep.result import LRFind, joined, read_off
from actograph.sweep.suggestions import MIN_ITERATIONS, exponential_rates
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.metrics import Mean
from actograph.train.rates import rate_ratios
from actograph.train.snapshot import undone
from actograph.train.state import StopFit

DIVERGED = 4.0  # times the best smoothed loss: the test ends (fastai)
MAX_SKIPPED = 40  # steps: they bring a scaler from 2^16 to 2^-24, the smallest number of half precision


def lr_find(
    loop: Loop,
    start_lr: float = 1e-7,
    end_lr: float = 10.0,
    num_it: int = 100,
    *,
    stop_div: bool = True,
    repeats: int = 1,
    steps: int | None = None,
) -> LRFind:
    """Make ``num_it`` optimizer steps at rates that rise from ``start_lr`` to ``end_lr`` by equal factors, and undo them.

    No callback of the loop runs, nothing is validated or recorded. Each parameter group keeps its ratio to the one with
    the largest rate, which is the one that is told. Model, optimizer, scaler, train loader and random states are as
    before afterwards, bit for bit, after errors and Ctrl-C too; gradients are gone.

    Args:
        loop: what to train.
        start_lr: the first rate.
        end_lr: where the rates would arrive after the last iteration.
        num_it: iterations, that is steps, of however many batches.
        stop_div: end where the smoothed loss is above 4 times its best; False: only where a loss is not finite.
        repeats: tests from the same weights on further batches, to see how far the suggestions spread; a loader that
            does not shuffle gives all of them the same ones.
        steps: batches in an epoch, where the loader has no length.

    Raises UsageError for rates and numbers that make no test, for a loader that can be read only once, and in a fit.

    """
    _check(loop, start_lr, end_lr, num_it, repeats)
    rates = exponential_rates(start_lr, end_lr, num_it)
    ratios = rate_ratios([float(group["lr"]) for group in loop.optimizer.param_groups])
    tests = []
    with undone(loop) as snapshot:
        for repeat in range(repeats):
            if repeat:
                snapshot.restore_learned()
            sweep = RateSweep(rates, ratios, stop_div=stop_div)
            trial = Loop(loop.model, loop.optimizer, loop.step, loop.train_loader, device=loop.device)
            trial.fit(num_it + MAX_SKIPPED + 1, [sweep], steps=steps)  # an epoch makes a step, or skips one
            assert trial.stop_reason is not None  # there are more epochs than the sweep can use
            losses = np.array(sweep.losses)
            tests.append(read_off(rates[: len(losses)], losses, num_it, trial.stop_reason))
    return joined(tests)


class RateSweep(Callback):
    """Set the next of ``rates`` for each step, keep its loss, and end the fit where the test ends.

    ``ratios`` are those of the parameter groups. A step that a scaler skipped is made again at the same rate.
    """

    stage = Stage.CHANGE
    unique = True

    def __init__(self, rates: Floats, ratios: Sequence[float], *, stop_div: bool = True) -> None:
        self.rates = rates
        self.ratios = ratios
        self.stop_div = stop_div
        self.losses: list[float] = []  # of each step made, the mean over its batches
        self._window = Mean()

    def before_batch(self, loop: Loop) -> None:
        """Between two steps: keep the loss of the last one, and set the next rate or end the test."""
        if loop.progress.num_gathered:
            return
        self._keep(has_moved=loop.progress.step > len(self.losses))
        if reason := self._end(loop.progress.num_skipped_steps):
            raise StopFit(reason)
        for group, ratio in zip(loop.optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = float(self.rates[len(self.losses)]) * ratio

    def after_loss(self, loop: Loop) -> None:
        """Take the batch's loss into that of the step."""
        self._window.update(loop.batch.loss, loop.batch.size)

    def _keep(self, *, has_moved: bool) -> None:
        loss = self._window.compute()  # sync: whether the test ends depends on it
        if self._window.count and (has_moved or not math.isfinite(loss)):
            self.losses.append(loss)
        self._window.reset()

    def _end(self, num_skipped: int) -> str | None:
        """Return why the test ends here, or None."""
        if len(self.losses) == len(self.rates):
            return "all rates were tried"
        if num_skipped > MAX_SKIPPED:
            return f"{num_skipped} steps were skipped"
        if self.losses and not math.isfinite(self.losses[-1]):
            return "the loss is not finite"
        if self.stop_div and self.losses and has_diverged(np.array(self.losses)):
            return f"the loss rose above {DIVERGED:g} times its best"
        return None


def has_diverged(losses: Floats) -> bool:
    """Tell whether the smoothed loss is above 4 times its best, at the end of ``losses`` (n,), which are finite.

    A loss that can be negative counts as 4 times as far from its best as that is from 0.
    """
    smooth = smoothed(losses)
    best = float(smooth.min())
    return bool(smooth[-1] - best > (DIVERGED - 1) * abs(best))


def _check(loop: Loop, start_lr: float, end_lr: float, num_it: int, repeats: int) -> None:
    if loop.is_running:
        raise UsageError("a fit is running: look for a learning rate before or after it, not in a callback")
    if not 0 < start_lr < end_lr < math.inf:
        raise UsageError(
            f"start_lr is {start_lr} and end_lr {end_lr}; give positive rates that rise, such as 1e-7 and 10"
        )
    if num_it < MIN_ITERATIONS:
        raise UsageError(
            f"num_it is {num_it}; a curve needs at least {MIN_ITERATIONS} iterations, 100 are usual"
        )
    if repeats < 1:
        raise UsageError(f"repeats is {repeats}; give at least 1")
    loader = loop.train_loader
    if isinstance(loader, Iterator):
        raise UsageError(
            f"the train loader is a {type(loader).__name__}, which can be read only once, and looking for a rate would use "
            "it up: give a list, a DataLoader or a TensorLoader"
        )
    if isinstance(loader, DataLoader) and loader.persistent_workers:
        warnings.warn(
            "the random states of the train loader's persistent workers cannot be put back, so that what they draw in the "
            "next fit will differ; give persistent_workers=False where that matters",
            stacklevel=4,
        )
