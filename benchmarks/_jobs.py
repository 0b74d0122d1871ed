"""What the trainers train: a linear model, `simple_cnn`, and a step that does nothing. No idea of trainers.

Inputs are random normal numbers and targets random classes: what a loop costs does not depend on what is learnt.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _trainers import Job
from torch import Tensor, nn

from actograph.models.cnn import simple_cnn

NUM_CLASSES = 10
LR = 0.01  # plain SGD, without momentum: a dearer optimizer would only make a loop's share look smaller
NULL_BATCH = 8  # samples


class AddOne(nn.Module):
    """The identity with one parameter, so that there is a gradient; it stays 0 with an optimizer that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.weight


class NoStep(torch.optim.Optimizer):
    """An optimizer that moves nothing, but computes the closure that Lightning and skorch hand over."""

    def __init__(self, params: object, lr: float) -> None:
        super().__init__(params, {"lr": lr})  # type: ignore[arg-type]

    def step(self, closure: Callable[[], object] | None = None) -> None:
        if closure is not None:
            with torch.enable_grad():
                closure()


def sum_loss(prediction: Tensor, target: Tensor) -> Tensor:
    return prediction.sum()


class SumLoss(nn.Module):
    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        return prediction.sum()


def null(num_steps: int) -> Job:
    samples = num_steps * NULL_BATCH
    return Job(
        "the identity with one parameter, loss = sum, an optimizer that does nothing",
        AddOne,
        sum_loss,
        SumLoss,
        NoStep,
        LR,
        torch.ones(samples, 1),
        torch.zeros(samples, dtype=torch.int64),
        NULL_BATCH,
    )


def linear(num_steps: int) -> Job:
    return _classify("linear 784-10, batch 64", lambda: nn.Linear(784, NUM_CLASSES), (784,), 64, num_steps)


def cnn64(num_steps: int) -> Job:
    return _classify("simple_cnn, batch 64", _cnn, (1, 28, 28), 64, num_steps)


def cnn512(num_steps: int) -> Job:
    return _classify("simple_cnn, batch 512", _cnn, (1, 28, 28), 512, num_steps)


def _cnn() -> nn.Module:
    return simple_cnn(NUM_CLASSES)


def _classify(
    title: str, build: Callable[[], nn.Module], shape: tuple[int, ...], batch_size: int, num_steps: int
) -> Job:
    generator = torch.Generator().manual_seed(0)
    samples = num_steps * batch_size
    return Job(
        title,
        build,
        nn.functional.cross_entropy,
        nn.CrossEntropyLoss,
        torch.optim.SGD,
        LR,
        torch.randn((samples, *shape), generator=generator),
        torch.randint(NUM_CLASSES, (samples,), generator=generator),
        batch_size,
    )
