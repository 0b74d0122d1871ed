"""Gather the gradients of several batches into one step.

No idea of how a gradient is computed or a step made.
"""

from __future__ import annotations

import torch
from torch import Tensor

from actograph.errors import UsageError
from actograph.train.state import Batch
from actograph.train.step import TrainStep
from actograph.train.step_wrapper import StepWrapper, find_step, parameters_of


class Accumulate(StepWrapper):
    """Step once in ``num_batches`` batches, with the gradient of one large batch.

    For a loss that is a mean over samples, the gradient equals that of all samples together to rounding: batches count
    by their size (``batch.size``), in a short last window too. A window holds ``num_batches`` batches that had a gradient,
    a batch left out by ``SkipBatch`` does not count; it never reaches into the next epoch. What looks at a single batch
    sees it alone: batch normalization, and a loss that is a mean over something else, such as tokens. A loss that is a
    sum over samples comes out divided by ``num_batches`` (where batches are even).
    """

    def __init__(self, inner: TrainStep, optimizer: torch.optim.Optimizer, num_batches: int) -> None:
        if num_batches < 1:
            raise UsageError(f"the number of batches to accumulate must be at least 1, not {num_batches}")
        if find_step(inner, Accumulate) is not None:
            raise UsageError("the step gathers batches already: accumulate in one place only")
        super().__init__(inner)
        self.optimizer = optimizer
        self.num_batches = num_batches
        self._size = 1  # of the batch in work
        self._num_gathered = 0
        self._expected = 1  # samples of a full window whose batches are all like its first one
        self._samples = 0  # gathered so far

    def loss(self, batch: Batch) -> Tensor:
        """Return the loss of the batch alone."""
        self._size = batch.size
        return self.inner.loss(batch)

    def backward(self, loss: Tensor) -> None:
        """Add the batch's share of the gradient."""
        if not self._num_gathered:
            self._expected = self.num_batches * self._size
        self._num_gathered += 1
        self._samples += self._size
        self.inner.backward(loss * (self._size / self._expected))

    def complete(self, *, is_last: bool) -> bool:
        """Make the gradient the mean over the samples of the window, if it is full or the last one."""
        is_full = is_last or self._num_gathered >= self.num_batches
        if not (is_full and self.inner.complete(is_last=is_last)):
            return False
        if self._samples != self._expected:
            for parameter in parameters_of(self.optimizer):
                if parameter.grad is not None:
                    parameter.grad.mul_(self._expected / self._samples)
        return True

    def zero(self) -> None:
        """Drop the window, and begin a new one."""
        self._num_gathered = self._samples = 0
        self.inner.zero()
