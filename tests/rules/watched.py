"""Small trainings under `watch`, with data that are given whole, evaluated as plain scripts do.

No idea of rules. Each takes some tenths of a second, and is made once.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from actograph.observe.watch import watch
from actograph.recording.cadence import EveryNth
from actograph.runlog.view import RunView
from tests.unmeasured import unmeasured

CLASSES, FEATURES, BATCH = 5, 8, 32
Data = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Batches = Callable[[int, Tensor, Tensor], Data]


def clusters(num: int, seed: int, spread: float = 1.0) -> Data:
    """Samples around one center a class."""
    random = torch.Generator().manual_seed(seed)
    centers = 1.6 * torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(0))
    y = torch.randint(CLASSES, (num,), generator=random)
    return centers[y] + spread * torch.randn(num, FEATURES, generator=random), y


def line(num: int, seed: int) -> Data:
    """Numbers that follow from the features, with some noise."""
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(num, FEATURES, generator=random)
    return x, (x[:, :1] + x[:, 1:2] * x[:, 2:3] + 0.1 * torch.randn(num, 1, generator=random)) / 1.5


def classifier() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, CLASSES))


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, CLASSES))


def regressor() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 32), nn.ReLU(), nn.Linear(32, 1))


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-2)


def cross_entropy(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, y)


def squared_error(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.mse_loss(outputs, y)


def as_it_is(_step: int, x: Tensor, y: Tensor) -> Data:
    return x, y


@dataclass(frozen=True, eq=False)
class Training:
    """A training; ``but`` gives one that differs."""

    name: str
    train: Data
    valid: Data | None
    model: Callable[[], nn.Module] = classifier
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = adam
    loss: Loss = cross_entropy
    batches: Batches = as_it_is
    schedule: Callable[[int], float] = lambda step: 1.0
    steps: int = 120
    every: int = 12  # steps between evaluations
    shuffle: bool = True
    thinned: int = 1  # one of so many steps is recorded

    def but(self, **changes: Any) -> Training:
        return replace(self, **changes)

    @functools.cached_property
    @unmeasured()
    def view(self) -> RunView:
        torch.manual_seed(0)
        random = torch.Generator().manual_seed(3)
        model = self.model()
        optimizer = self.optimizer(model)
        rates = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule)
        x, y = self.train
        with watch(model, optimizer, out=":memory:", name=self.name, budget=None) as recording:
            recording._pacer = EveryNth(self.thinned)
            order = torch.arange(len(x))
            for step in range(self.steps):
                begin = step * BATCH % max(len(x) - BATCH + 1, 1) // BATCH * BATCH
                if begin == 0 and self.shuffle:
                    order = torch.randperm(len(x), generator=random)
                chosen = order[begin : begin + BATCH]
                inputs, targets = self.batches(step, x[chosen], y[chosen])
                self.loss(model(inputs), targets).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                rates.step()
                optimizer.zero_grad()
                if self.valid is not None and (step + 1) % self.every == 0:
                    model.eval()
                    with torch.no_grad():
                        self.loss(model(self.valid[0]), self.valid[1])
                    model.train()
        return recording.view()


HEALTHY = Training("healthy", clusters(600, 1), clusters(200, 2))
HEALTHY_LINE = Training("healthy numbers", line(600, 1), line(200, 2), regressor, loss=squared_error)
