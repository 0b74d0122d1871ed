"""Small real trainings for the tests of rules on facts: one loop, with a place for everything that can be done wrong.

No idea of rules. Each takes milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from actograph.recording.recording import Recording
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.runlog.view import RunView

CLASSES, FEATURES, BATCH = 4, 8, 32

Model = nn.Module
BeforeStep = Callable[[Model, int], None]


def classifier() -> nn.Module:
    return nn.Sequential(
        nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, CLASSES)
    )


def all_of(model: Model) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-2)


def plain_data(step: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    y = torch.randint(CLASSES, (BATCH,), generator=random)
    x = torch.randn(BATCH, FEATURES, generator=random)
    x[torch.arange(BATCH), y] += 2.0
    return x, y


def cross_entropy(recording: Recording, output: Tensor, y: Tensor) -> Tensor:
    recording.targets(output, y)
    return functional.cross_entropy(output, y)


def zero_after(optimizer: torch.optim.Optimizer, step: int) -> None:
    optimizer.zero_grad()


@dataclass(frozen=True)
class Run:
    """A training loop; ``but`` gives one that differs."""

    name: str = "run"
    model: Callable[[], Model] = classifier
    optimizer: Callable[[Model], torch.optim.Optimizer] = all_of
    steps: int = 24
    micro_batches: int = 1
    data: Callable[[int, torch.Generator], tuple[Tensor, Tensor]] = plain_data
    before_step: BeforeStep = lambda model, step: None
    zero: Callable[[torch.optim.Optimizer, int], None] = zero_after
    loss: Callable[[Recording, Tensor, Tensor], Tensor] = cross_entropy
    evaluate: Callable[[Model, Recording, int], None] | None = None
    watched: Callable[[Model], list[nn.Module]] = lambda model: [model]
    every: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Run:
        return replace(self, **changes)

    def view(self) -> RunView:
        torch.manual_seed(0)
        random = torch.Generator().manual_seed(1)
        model = self.model()
        optimizer = self.optimizer(model)
        recording = Recording(RunWriter(None, RunInfo(self.name)), budget=None, every=self.every)
        with recording:
            for one in self.watched(model):
                recording.attach(one)
            recording.optimizer(optimizer)
            for step in range(self.steps):
                self.before_step(model, step)
                for _ in range(self.micro_batches):
                    x, y = self.data(step, random)
                    loss = self.loss(recording, model(x), y)
                    recording.loss(loss)
                    recording.before_backward()
                    loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                self.zero(optimizer, step)
                if self.evaluate is not None:
                    self.evaluate(model, recording, step)
        return recording.view()


HEALTHY = Run("healthy")


class Branches(nn.Module):
    """A trunk and a head, and a place between them; with an unused second head."""

    def __init__(
        self, between: Callable[[Tensor], Tensor], *, no_grad: bool = False, unused: bool = False
    ) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU())
        self.unused = nn.Linear(16, CLASSES) if unused else None
        self.head = nn.Linear(16, CLASSES)
        self.between, self.no_grad = between, no_grad
        self.is_cut = True

    def forward(self, x: Tensor) -> Any:
        with torch.set_grad_enabled(not (self.no_grad and self.is_cut)):
            h = self.trunk(x)
        if self.unused is not None:
            self.unused(h)
        return self.head(self.between(h) if self.is_cut else h)
