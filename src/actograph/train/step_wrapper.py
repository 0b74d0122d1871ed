"""A step that hands every verb to another one: what accumulation, clipping and mixed precision begin with.

No idea of what they change.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor

from actograph.train.position import Stateful
from actograph.train.state import Batch
from actograph.train.step import TrainStep

Step = TypeVar("Step")


class StepWrapper:
    """Do what the step ``inner`` does; a subclass overrides what it does otherwise.

    Wrappers may stand around each other in any order.
    """

    def __init__(self, inner: TrainStep) -> None:
        self.inner = inner

    def forward(self, batch: Batch) -> Any:
        """Return the model's output for ``batch.x``."""
        return self.inner.forward(batch)

    def loss(self, batch: Batch) -> Tensor:
        """Return the scalar loss of ``batch.pred`` against ``batch.y``."""
        return self.inner.loss(batch)

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of ``loss`` to those gathered so far."""
        self.inner.backward(loss)

    def complete(self, *, is_last: bool) -> bool:
        """Make the gathered gradients ready; False while more batches are to be gathered."""
        return self.inner.complete(is_last=is_last)

    def update(self) -> bool:
        """Move the weights; False if they stayed."""
        return self.inner.update()

    def zero(self) -> None:
        """Drop the gathered gradients."""
        self.inner.zero()

    def state_dict(self) -> dict[str, Any]:
        """Return the state of the inner step, if it has one."""
        return dict(self.inner.state_dict()) if isinstance(self.inner, Stateful) else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give the inner step its state back."""
        if isinstance(self.inner, Stateful):
            self.inner.load_state_dict(state)


def find_step(step: TrainStep, cls: type[Step]) -> Step | None:
    """Return the step of class ``cls`` among a step and those that it wraps, or None.

    >>> from actograph.train.step import Supervised
    >>> model = torch.nn.Linear(1, 1)
    >>> plain = Supervised(model, torch.nn.functional.mse_loss, torch.optim.SGD(model.parameters(), lr=0.1))
    >>> find_step(plain, Supervised) is plain, find_step(plain, StepWrapper)
    (True, None)
    """
    while not isinstance(step, cls):
        if not isinstance(step, StepWrapper):
            return None
        step = step.inner
    return step


def parameters_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the parameters of all groups of an optimizer."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
