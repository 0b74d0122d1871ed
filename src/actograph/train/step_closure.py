"""Steps for optimizers that want to compute the loss themselves, several times a step: `torch.optim.LBFGS`.

No idea of what such an optimizer does with it.
"""

from __future__ import annotations

import inspect

import torch
from torch import Tensor

from actograph.train.state import Batch
from actograph.train.step import TrainStep
from actograph.train.step_wrapper import StepWrapper


def needs_closure(optimizer: torch.optim.Optimizer) -> bool:
    """Tell whether ``optimizer.step`` cannot be called without a function that computes the loss.

    >>> weight = torch.nn.Parameter(torch.zeros(1))
    >>> needs_closure(torch.optim.LBFGS([weight])), needs_closure(torch.optim.SGD([weight]))
    (True, False)
    """
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    return closure is not None and closure.default is inspect.Parameter.empty


class Reevaluate(StepWrapper):
    """Let the optimizer compute output, loss and gradients of the batch again as often as it wants within one step.

    The events see the first evaluation only; what callbacks replace
    in the batch after ``before_batch`` is not in the others.
    """

    def __init__(self, inner: TrainStep, optimizer: torch.optim.Optimizer) -> None:
        super().__init__(inner)
        self.optimizer = optimizer
        self._batch = Batch(None, None)

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss, and keep the batch."""
        self._batch = batch
        return self.inner.loss(batch)

    def update(self) -> bool:
        """Let the optimizer move the weights, handing it the loss and the gradients that are there at first."""
        first: Tensor | None = self._batch.loss

        def evaluate() -> Tensor:
            nonlocal first
            if first is None:
                return self._evaluate()
            loss, first = first, None
            return loss

        self.optimizer.step(evaluate)  # type: ignore[arg-type]  # LBFGS calls float() on it
        return True

    def zero(self) -> None:
        """Drop the gradients, and the batch."""
        self._batch = Batch(None, None)
        self.inner.zero()

    def _evaluate(self) -> Tensor:
        self.inner.zero()
        again = Batch(self._batch.x, self._batch.y)
        again.pred = self.inner.forward(again)
        again.loss = self.inner.loss(again)
        self.inner.backward(again.loss)
        return again.loss
