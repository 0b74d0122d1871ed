"""Means and metrics over an epoch, gathered on the device: nothing waits for it before ``compute``.

No idea of epochs: the loop resets, updates and computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor

from actograph.errors import UsageError
from actograph.train.names import snake_name


class Metric(Protocol):
    """What ``metrics=`` takes; any ``torchmetrics.Metric`` fits too."""

    def reset(self) -> None:
        """Forget everything."""

    def update(self, pred: Any, target: Any, /) -> None:
        """Take in one batch, without synchronising with the device."""

    def compute(self) -> Tensor | float:
        """Return the value over all batches since the reset."""


class Mean:
    """The mean of per-batch means, weighted by batch size: right under an uneven last batch.

    >>> mean = Mean()
    >>> mean.update(torch.tensor(1.0), 3)
    >>> mean.update(torch.tensor(5.0), 1)
    >>> mean.compute()
    2.0
    """

    def __init__(self) -> None:
        self.count = 0
        self._total: Tensor | None = None  # (), float64 where the device has it

    def reset(self) -> None:
        """Forget everything."""
        self.count = 0
        self._total = None

    def update(self, value: Tensor, count: int) -> None:
        """Add the mean ``value`` of ``count`` samples."""
        if self._total is None:
            dtype = torch.float32 if value.device.type == "mps" else torch.float64
            self._total = torch.zeros((), dtype=dtype, device=value.device)
        self._total.add_(value.detach(), alpha=count)
        self.count += count

    def compute(self) -> float:
        """Return the mean; NaN before the first update."""
        if self._total is None or not self.count:
            return float("nan")
        return self._total.item() / self.count  # sync: on reading only


class Accuracy:
    """Share of samples whose largest output is at the target class.

    Outputs are ``(N, C, ...)`` and targets ``(N, ...)`` of class numbers.

    >>> accuracy = Accuracy()
    >>> accuracy.update(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    >>> accuracy.compute()
    0.5
    """

    def __init__(self) -> None:
        self._count = 0
        self._correct: Tensor | None = None  # (), int64

    def reset(self) -> None:
        """Forget everything."""
        self._count = 0
        self._correct = None

    def update(self, pred: Tensor, target: Tensor, /) -> None:
        """Take in one batch.

        A UsageError names both shapes if they do not belong together.
        """
        if pred.ndim != target.ndim + 1 or pred.shape[:1] + pred.shape[2:] != target.shape:
            raise UsageError(
                f"accuracy needs outputs (N, C, ...) and class numbers (N, ...), "
                f"but the shapes are {tuple(pred.shape)} and {tuple(target.shape)}"
            )
        correct = (pred.detach().argmax(dim=1) == target).sum()
        self._correct = correct if self._correct is None else self._correct + correct
        self._count += target.numel()

    def compute(self) -> float:
        """Return the share in [0, 1]; NaN before the first update."""
        if self._correct is None or not self._count:
            return float("nan")
        return self._correct.item() / self._count  # sync: on reading only


def named_metrics(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """Return the metrics by the snake-case names of their classes.

    A UsageError says that two have the same name, or that one is a class instead of an instance.
    """
    named: dict[str, Metric] = {}
    for metric in metrics:
        if isinstance(metric, type):
            raise UsageError(f"metrics are instances: write {metric.__name__}(), not {metric.__name__}")
        name = snake_name(type(metric))
        if name in named or name in ("train_loss", "valid_loss"):
            raise UsageError(f"two metrics are called {name}: give one a class with another name")
        named[name] = metric
    return named
