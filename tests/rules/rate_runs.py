"""Small real trainings for the tests of rules on rates: a perceptron on clustered points, recorded as `watch` does it.

No idea of rules. Each takes some tenths of a second, and is trained once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from actograph import watch
from actograph.runlog.view import RunView
from tests.unmeasured import unmeasured

CLASSES, FEATURES, WIDTH = 10, 20, 32


@dataclass(frozen=True)
class RateRun:
    """A training; ``but`` gives one that differs. Equal ones are trained once."""

    name: str = "run"
    optimizer: type[torch.optim.Optimizer] = torch.optim.SGD
    options: tuple[tuple[str, Any], ...] = (("lr", 0.05), ("momentum", 0.9))
    schedule: Callable[[int], float] = field(default=lambda step: 1.0)
    steps: int = 150
    batch: int = 32
    spread: float = 1.0  # of the points within a class: 1 is easy, 4 leaves a loss that cannot go away
    dropout: float = 0.0
    clip: float | None = None
    cut_value: float | None = None
    pretrained: int = 0  # steps at the usual rate that are not recorded
    recurrent_gain: float | None = None  # a plain recurrent network in the place of the perceptron
    blocks: int = 0  # of a transformer in the place of the perceptron
    seed: int = 0
    watched: tuple[tuple[str, Any], ...] = (("budget", None),)

    def but(self, **changes: Any) -> RateRun:
        """Return one that differs; options of the optimizer are added to those there are."""
        options = changes.pop("options", {})
        return replace(self, options=tuple({**dict(self.options), **options}.items()), **changes)

    def adam(self, **options: Any) -> RateRun:
        """Return the same with Adam."""
        return replace(self, optimizer=torch.optim.Adam, options=tuple({"lr": 3e-3, **options}.items()))

    def view(self) -> RunView:
        """Train, or take what was trained before."""
        return _trained(self)


@functools.cache
@unmeasured()
def _trained(run: RateRun) -> RunView:
    torch.manual_seed(run.seed)
    centers = torch.randn(CLASSES, FEATURES)
    model = _model(run)
    if run.pretrained:
        _train(
            run.but(steps=run.pretrained, schedule=lambda step: 1.0),
            model,
            centers,
            torch.optim.Adam(model.parameters(), 3e-3),
        )
    optimizer = run.optimizer(model.parameters(), **dict(run.options))
    with watch(model, optimizer, ":memory:", name=run.name, **dict(run.watched)) as recording:
        _train(run, model, centers, optimizer)
    return recording.view()


def _train(run: RateRun, model: nn.Module, centers: Tensor, optimizer: torch.optim.Optimizer) -> None:
    rates = [group["lr"] for group in optimizer.param_groups]
    for step in range(run.steps):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * run.schedule(step)
        y = torch.randint(CLASSES, (run.batch,))
        x = centers[y] + run.spread * torch.randn(run.batch, FEATURES)
        functional.cross_entropy(model(x), y).backward()  # type: ignore[no-untyped-call]
        if run.clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), run.clip)
        if run.cut_value is not None:
            torch.nn.utils.clip_grad_value_(model.parameters(), run.cut_value)
        optimizer.step()
        optimizer.zero_grad()


def _model(run: RateRun) -> nn.Module:
    if run.blocks:
        return Attending(run.blocks)
    return _recurrent(run.recurrent_gain) if run.recurrent_gain is not None else _perceptron(run.dropout)


def _perceptron(dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    for number in range(2):
        layers += [nn.Linear(FEATURES if number == 0 else WIDTH, WIDTH), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(WIDTH, CLASSES))


class Last(nn.Module):
    """A plain recurrent network over the features, five at a time, and a linear layer on its last output."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.RNN(2, WIDTH, batch_first=True, nonlinearity="relu")
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.rnn(x.view(len(x), -1, 2))[0][:, -1])


class Attending(nn.Module):
    """A transformer that normalizes behind its sums, over the features, two at a time, and a linear layer on the mean."""

    def __init__(self, num_blocks: int) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(WIDTH, 2, WIDTH, dropout=0.0, batch_first=True)
        self.embed = nn.Linear(5, WIDTH)
        self.encoder = nn.TransformerEncoder(block, num_blocks, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.encoder(self.embed(x.view(len(x), -1, 5))).mean(1))


def _recurrent(gain: float) -> nn.Module:
    model = Last()
    nn.init.orthogonal_(model.rnn.get_parameter("weight_hh_l0"), gain)
    return model


def one_cycle(step: int) -> float:
    progress = step / 150
    if progress < 0.3:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * progress / 0.3)) / 2
    return (1 + math.cos(math.pi * (progress - 0.3) / 0.7)) / 2


def restarts(step: int) -> float:
    return 0.02 + 0.98 * (1 + math.cos(math.pi * (step % 50) / 50)) / 2


def warm_up(step: int) -> float:
    return min(1.0, (step + 1) / 40)


def converges(step: int) -> float:
    return max(0.5 * (1 + math.cos(math.pi * min(step / 60, 1.0))), 0.01)


BASE = RateRun("sgd")
HEALTHY = (
    BASE,
    BASE.adam().but(name="adam"),
    BASE.but(name="1cycle", options={"lr": 0.2}, schedule=one_cycle),
    BASE.but(name="restarts", options={"lr": 0.1}, schedule=restarts),
    BASE.but(name="warm-up", schedule=warm_up),
    BASE.but(name="converged", schedule=converges, spread=0.5),
    BASE.but(name="fine-tuned", pretrained=150, spread=1.0, options={"lr": 1e-5}),
    BASE.adam(lr=1e-6).but(name="fine-tuned with Adam", pretrained=150, spread=1.5),
    BASE.but(name="batches of four", batch=4, options={"lr": 0.01}, steps=300),
    BASE.adam().but(name="hard task", spread=4.0),
    BASE.but(name="clipped", clip=1.0),
    BASE.but(name="dropout", dropout=0.5, steps=250),
    BASE.but(name="half decay", options={"weight_decay": 5e-4}),
    BASE.but(name="recorded by default", watched=()),
)
