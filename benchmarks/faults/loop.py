"""`Loop`: the training loop of all programs, written by hand as people write it, watched by whatever is given.

No idea of which setting is broken.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from faults.setting import Data, Setting

EVAL_BATCH = 256


class Watcher(Protocol):
    """What is told of the loop's phases; everything else it sees by itself."""

    def evaluation(self) -> contextlib.AbstractContextManager[object]:
        """Return a context in which the model is evaluated."""

    def metrics(self, loss: float, metric: float) -> None:
        """Note the outcome of an evaluation, still within its context."""

    def step(self, loss: float) -> None:
        """Note the loss of a training step that is over."""


class NoWatcher:
    """Nobody watches."""

    def evaluation(self) -> contextlib.AbstractContextManager[object]:
        return contextlib.nullcontext()

    def metrics(self, loss: float, metric: float) -> None:
        pass

    def step(self, loss: float) -> None:
        pass


@dataclass
class Outcome:
    """What came of a training. ``curve`` has (steps done, validation loss, validation metric)."""

    metric: float = math.nan  # of the last evaluation, as the script makes it
    test_metric: float = math.nan  # on data that nobody saw, in evaluation mode
    loss: float = math.nan  # mean of the last training losses
    curve: list[tuple[int, float, float]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)


class Loop:
    """One training."""

    def __init__(self, setting: Setting, seed: int) -> None:
        self.setting = setting
        self.model = setting.model
        self.optimizer = setting.optimizer(setting.parameters(self.model), **setting.options)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, setting.schedule)
        scaler = setting.scaler
        self.scaler = None if scaler is None else torch.amp.GradScaler("cpu", **scaler)
        self.step = 0
        self._generator = torch.Generator().manual_seed(seed)

    def run(self, watcher: Watcher | None = None) -> Outcome:
        """Train to the end and return what came of it."""
        watcher = watcher or NoWatcher()
        setting, outcome = self.setting, Outcome()
        batches = self._batches()
        self.model.train()
        while self.step < setting.num_steps:
            for event in setting.events.get(self.step, ()):
                event(self)
            outcome.losses.append(self._train_step(batches))
            watcher.step(outcome.losses[-1])
            self.step += 1
            if self.step % setting.eval_every == 0 or self.step == setting.num_steps:
                with watcher.evaluation():
                    loss, metric = self._evaluate(setting.valid, in_eval_mode=setting.evaluates_in_eval_mode)
                    watcher.metrics(loss, metric)
                outcome.curve.append((self.step, loss, metric))
        outcome.metric = outcome.curve[-1][2]
        last = outcome.losses[-max(setting.num_steps // 20, 1) :]
        outcome.loss = sum(last) / len(last)
        return outcome

    def test(self) -> float:
        """Return the metric on the data that nobody saw."""
        return self._evaluate(self.setting.test, in_eval_mode=True)[1]

    def _train_step(self, batches: Iterator[Data]) -> float:
        setting, total = self.setting, 0.0
        for _ in range(setting.accumulate):
            loss = self._loss(*next(batches))
            total += float(loss.detach()) / setting.accumulate
            if setting.accumulate > 1 and setting.divides_by_accumulate:
                loss = loss / setting.accumulate
            (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        if setting.clip is not None:
            if self.scaler is not None:
                self.scaler.unscale_(self.optimizer)
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), setting.clip)
        if self.scaler is None:
            self.optimizer.step()
        else:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if setting.zeroes_gradients:
            self.optimizer.zero_grad()
        self.scheduler.step()
        return total

    def _loss(self, x: Tensor, y: Tensor) -> Tensor:
        dtype = self.setting.autocast
        with torch.autocast("cpu", dtype) if dtype is not None else contextlib.nullcontext():
            outputs = self.model(x)
            return self.setting.loss(outputs, y)

    def _batches(self) -> Iterator[Data]:
        setting = self.setting
        while True:
            num = len(setting.train.x)
            order = torch.randperm(num, generator=self._generator) if setting.shuffle else torch.arange(num)
            size = min(setting.batch_size, num)
            for begin in range(0, num - size + 1, size):
                chosen = order[begin : begin + size]
                x, y = setting.train.x[chosen], setting.train.y[chosen]
                for transform in setting.batches:
                    x, y = transform(self.step, x, y)
                yield Data(x, y)

    @torch.no_grad()
    def _evaluate(self, data: Data, *, in_eval_mode: bool) -> tuple[float, float]:
        """Return loss and metric over all the data."""
        if in_eval_mode:
            self.model.eval()
        size = EVAL_BATCH if in_eval_mode else self.setting.batch_size
        outputs, losses = [], []
        for begin in range(0, len(data.x), size):
            x, y = data.x[begin : begin + size], data.y[begin : begin + size]
            outputs.append(self.model(x))
            losses.append(float(self.setting.loss(outputs[-1], y)) * len(x))
        if in_eval_mode and self.setting.trains_in_train_mode:
            self.model.train()
        return sum(losses) / len(data.x), self.setting.metric(torch.cat(outputs), data.y)
