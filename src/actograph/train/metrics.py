"""Means and metrics over an epoch, gathered on the device: nothing waits for it before ``compute``.

No idea of epochs: the loop resets, updates and computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.train.names import snake_name

LOSSES = ("train_loss", "valid_loss")  # the values that are no metrics


@runtime_checkable
class Metric(Protocol):
    """What ``metrics=`` takes; any ``torchmetrics.Metric`` and ``MetricCollection`` fits too."""

    def reset(self) -> None:
        """Forget everything."""

    def update(self, pred: Any, target: Any, /) -> None:
        """Take in one batch, without synchronising with the device."""

    def compute(self) -> Any:
        """Return the value over all batches since the reset: a number, a tensor, or a dict of those by name."""


Metrics: TypeAlias = Iterable[Metric] | Mapping[str, Metric]


class Tally(ABC):
    """A sum over samples, kept where the outputs are, and how many there were: the base of our metrics.

    ``state_dict`` and ``load_state_dict`` copy it, so that an epoch can be resumed in its middle.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum: Tensor | None = None

    @abstractmethod
    def compute(self) -> Any:
        """Return the value over all samples since the reset; waits for the device."""

    def reset(self) -> None:
        """Forget everything."""
        self.count = 0
        self._sum = None

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return a copy of what was gathered: ``count``, and ``sum`` if there is one."""
        return {"count": self.count} | ({} if self._sum is None else {"sum": self._sum.clone()})

    def load_state_dict(self, state: Mapping[str, Tensor | int]) -> None:
        """Go on from what ``state_dict`` returned, on any device."""
        self.count = int(state["count"])
        self._sum = torch.as_tensor(state["sum"]).clone() if "sum" in state else None

    def _add(self, value: Tensor, count: int) -> None:
        self._sum = value if self._sum is None else self._sum.to(value.device) + value
        self.count += count

    def _mean(self) -> float:
        if self._sum is None or not self.count:
            return float("nan")
        return self._sum.item() / self.count  # sync: on reading only


class Mean(Tally):
    """The mean of per-batch means, weighted by batch size: right under an uneven last batch.

    >>> mean = Mean()
    >>> mean.update(torch.tensor(1.0), 3)
    >>> mean.update(torch.tensor(5.0), 1)
    >>> mean.compute()
    2.0
    """

    def update(self, value: Tensor, count: int) -> None:
        """Add the mean ``value`` of ``count`` samples."""
        if self._sum is None:
            self._sum = torch.zeros((), dtype=sum_dtype(value), device=value.device)
        elif self._sum.device != value.device:  # loaded from a file
            self._sum = self._sum.to(value.device)
        self._sum.add_(value.detach(), alpha=count)
        self.count += count

    def compute(self) -> float:
        """Return the mean; NaN before the first update."""
        return self._mean()


class Accuracy(Tally):
    """Share of samples whose largest output is at the target class.

    Outputs are ``(N, C, ...)`` and targets ``(N, ...)`` of class numbers. With ``threshold``, outputs and targets of 0
    and 1 have the same shape, and an output above it stands for 1: 0.0 for logits, 0.5 for probabilities.

    >>> accuracy = Accuracy()
    >>> accuracy.update(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    >>> accuracy.compute()
    0.5
    """

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        self.threshold = threshold

    def update(self, pred: Tensor, target: Tensor, /) -> None:
        """Take in one batch.

        A UsageError names both shapes if they do not belong together.
        """
        classes = predicted_classes(pred, target, self.threshold, "accuracy")
        self._add((classes == target).sum(), target.numel())

    def compute(self) -> float:
        """Return the share in [0, 1]; NaN before the first update."""
        return self._mean()


class TopK(Tally):
    """Share of samples whose target class is among the ``k`` largest outputs.

    Outputs are ``(N, C, ...)`` and targets ``(N, ...)`` of class numbers. A UsageError says that ``k`` is not positive,
    or on the first batch that it is more than C.

    >>> top = TopK(2)
    >>> top.update(torch.tensor([[0.1, 0.6, 0.3], [0.5, 0.3, 0.2]]), torch.tensor([2, 2]))
    >>> top.compute()
    0.5
    """

    def __init__(self, k: int = 5) -> None:
        super().__init__()
        if k < 1:
            raise UsageError(f"TopK needs k of at least 1, not {k}")
        self.k = k

    def update(self, pred: Tensor, target: Tensor, /) -> None:
        """Take in one batch."""
        check_class_shapes(pred, target, "top-k accuracy")
        if self.k > pred.shape[1]:
            raise UsageError(f"TopK({self.k}) has no meaning for {pred.shape[1]} classes: give a smaller k")
        best = pred.topk(self.k, dim=1).indices  # (N, k, ...)
        self._add((best == target.unsqueeze(1)).sum(), target.numel())

    def compute(self) -> float:
        """Return the share in [0, 1]; NaN before the first update."""
        return self._mean()


def predicted_classes(pred: Tensor, target: Tensor, threshold: float | None, name: str) -> Tensor:
    """Return the class numbers (N, ...) that outputs stand for: the largest, or 1 above ``threshold`` and 0 else."""
    if threshold is None:
        check_class_shapes(pred, target, name)
        return pred.argmax(dim=1)
    check_equal_shapes(pred, target, f"{name} with a threshold")
    return (pred > threshold).long()


def check_class_shapes(pred: Tensor, target: Tensor, name: str) -> None:
    """Raise UsageError unless outputs are (N, C, ...) and targets (N, ...)."""
    if pred.ndim != target.ndim + 1 or pred.shape[:1] + pred.shape[2:] != target.shape:
        raise UsageError(
            f"{name} needs outputs (N, C, ...) and class numbers (N, ...), "
            f"but the shapes are {tuple(pred.shape)} and {tuple(target.shape)}"
        )


def check_equal_shapes(pred: Tensor, target: Tensor, name: str) -> None:
    """Raise UsageError unless outputs and targets have the same shape."""
    if pred.shape != target.shape:
        raise UsageError(
            f"{name} needs outputs and targets of the same shape, but they have {tuple(pred.shape)} and "
            f"{tuple(target.shape)}: an axis of length 1 goes with squeeze(1), or comes with unsqueeze(1)"
        )


def sum_dtype(value: Tensor) -> torch.dtype:
    """Return the type to sum in: float64 where the device has it."""
    return torch.float32 if value.device.type == "mps" else torch.float64


def named_metrics(metrics: Metrics, device: torch.device | None = None) -> dict[str, Metric]:
    """Return the metrics by name: as given in a mapping, else the snake-case names of their classes.

    Those that are modules (torchmetrics) are moved to ``device``. A UsageError says that two have the same name, that one
    is no metric (a class, a function), or that a metric was given and no list of them.

    >>> list(named_metrics({"top_3": TopK(3), "top_5": TopK(5)}))
    ['top_3', 'top_5']
    """
    if isinstance(metrics, Metric):
        raise UsageError(f"metrics is a list, or a dict by name: put the {type(metrics).__name__} into one")
    named: dict[str, Metric] = {}
    pairs: Iterable[tuple[str | None, Metric]] = (
        metrics.items() if isinstance(metrics, Mapping) else ((None, metric) for metric in metrics)
    )
    for given, metric in pairs:
        if isinstance(metric, type):
            raise UsageError(f"metrics are instances: write {metric.__name__}(), not {metric.__name__}")
        if not isinstance(metric, Metric):
            raise UsageError(f"{metric!r:.80} is no metric: give an object with reset, update and compute")
        name = snake_name(type(metric)) if given is None else given
        if name in LOSSES:
            raise UsageError(f"a metric cannot be called {name}: the loop has a value of that name")
        if name in named:
            raise UsageError(
                f"two metrics are called {name}: name them, metrics={{'{name}': ..., 'another_{name}': ...}}"
            )
        if device is not None and isinstance(metric, nn.Module):
            metric.to(device)
        named[name] = metric
    return named


def metric_values(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """Compute all metrics; keep the numbers, and those of a dict as ``name_key``.

    What has more than one element (a confusion matrix, a value per class, a curve) is left out: ask the metric.
    """
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        value = metric.compute()
        parts = (
            {f"{name}_{key}": part for key, part in value.items()}
            if isinstance(value, Mapping)
            else {name: value}
        )
        values |= {key: float(part) for key, part in parts.items() if _is_number(part)}
    return values


def _is_number(value: object) -> bool:
    return value.numel() == 1 if isinstance(value, Tensor) else isinstance(value, Real)
