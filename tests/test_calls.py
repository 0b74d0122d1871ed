"""Function calls per training step stay within limits; what they cost in time is in benchmarks/LOG.md."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actograph.callbacks.progress import Progress
from actograph.callbacks.recorder import Recorder
from actograph.learner import Learner
from actograph.models.cnn import simple_cnn
from actograph.train.events import Callback
from actograph.train.step import Supervised
from actograph.train.step_build import wrapped

from .calls import calls_per_step

BATCH_SIZE = 64
MAX_CALLS: dict[tuple[type[Callback], ...], int] = {
    (): 200,
    (Recorder, Progress): 260,
}  # of a step on the linear model, by default callbacks
RAW_CALLS = 150  # of a hand-written loop there: 148.5 with torch 2.13


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def cnn() -> nn.Module:
    return simple_cnn(10)


def batch() -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH_SIZE, 1, 28, 28), torch.randint(0, 10, (BATCH_SIZE,))


def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr)


def raw(model: nn.Module) -> Callable[[int], None]:
    """Return a loop as a user would write it, without a shuffled loader."""
    optimizer, item = sgd(model.parameters(), 0.01), batch()

    def run(num_steps: int) -> None:
        model.train()
        for x, y in [item] * num_steps:
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            optimizer.zero_grad()

    return run


def learned(model: nn.Module, defaults: Iterable[type[Callback]], **options: Any) -> Callable[[int], None]:
    learn = Learner(
        model, ([], None), nn.functional.cross_entropy, sgd, lr=0.01, defaults=tuple(defaults), **options
    )
    item = batch()

    def run(num_steps: int) -> None:
        learn.loop.train_loader = [item] * num_steps
        learn.fit(1)

    return run


@pytest.mark.parametrize("make", [linear, cnn])
@pytest.mark.parametrize("defaults", MAX_CALLS)
def test_a_step_takes_few_function_calls(
    make: Callable[[], nn.Module], defaults: tuple[type[Callback], ...]
) -> None:
    """On another model the calls are those of a hand-written loop and as many more as on the linear one."""
    limit = MAX_CALLS[defaults] - RAW_CALLS
    assert calls_per_step(learned(make(), defaults)) <= calls_per_step(raw(make())) + limit


def test_batches_that_are_only_gathered_take_fewer_calls() -> None:
    gathering = calls_per_step(learned(linear(), (), accumulate=4))
    assert gathering < calls_per_step(learned(linear(), ()))


def test_a_step_without_options_is_not_wrapped() -> None:
    model = linear()
    optimizer = sgd(model.parameters(), 0.01)
    step = Supervised(model, nn.functional.cross_entropy, optimizer)
    assert wrapped(step, optimizer) is step
