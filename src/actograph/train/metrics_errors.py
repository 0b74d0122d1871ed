"""Metrics of numbers predicted: mean absolute and root mean squared error.

No idea of epochs: the loop resets, updates and computes. The sums stay on the device until then.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from actograph.train.metrics import Tally, check_equal_shapes, sum_dtype


class MAE(Tally):
    """Mean absolute error over all values; outputs and targets have the same shape.

    >>> mae = MAE()
    >>> mae.update(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 5.0]))
    >>> mae.compute()
    1.5
    """

    def update(self, pred: Tensor, target: Tensor, /) -> None:
        """Take in one batch; a UsageError names both shapes if they differ."""
        errors = differences(pred, target, "MAE").abs()
        self._add(errors.sum(dtype=sum_dtype(errors)), errors.numel())

    def compute(self) -> float:
        """Return the error, in the unit of the target; NaN before the first update."""
        return self._mean()


class RMSE(Tally):
    """Root of the mean squared error over all values; outputs and targets have the same shape."""

    def update(self, pred: Tensor, target: Tensor, /) -> None:
        """Take in one batch; a UsageError names both shapes if they differ."""
        errors = differences(pred, target, "RMSE").square()
        self._add(errors.sum(dtype=sum_dtype(errors)), errors.numel())

    def compute(self) -> float:
        """Return the error, in the unit of the target; NaN before the first update."""
        return math.sqrt(self._mean())


def differences(pred: Tensor, target: Tensor, name: str) -> Tensor:
    """Return outputs minus targets, in float32 at least; never broadcast."""
    check_equal_shapes(pred, target, name)
    dtype = torch.promote_types(torch.promote_types(pred.dtype, target.dtype), torch.float32)
    return pred.detach().to(dtype) - target.to(dtype)
