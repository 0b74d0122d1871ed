"""Metrics that need to know which class was taken for which: confusion matrix, F1, accuracy of each class.

No idea of epochs: the loop resets, updates and computes. The counts stay on the device until then.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from actograph.errors import UsageError
from actograph.train.metrics import Tally, predicted_classes

Average: TypeAlias = Literal["macro", "micro", "weighted", "binary"]


class ClassCounts(Tally):
    """Counts of (target, prediction): the base of the metrics that are functions of a confusion matrix.

    Outputs are ``(N, C, ...)`` and targets ``(N, ...)`` of class numbers; with ``threshold`` both have the same shape and
    an output above it stands for class 1 of two: 0.0 for logits, 0.5 for probabilities.
    """

    def __init__(self, threshold: float | None = None) -> None:
        super().__init__()
        self.threshold = threshold

    def update(self, pred: Tensor, target: Tensor, /) -> None:
        """Take in one batch; a UsageError names both shapes if they do not belong together."""
        classes = predicted_classes(pred, target, self.threshold, type(self).__name__)
        num_classes = pred.shape[1] if self.threshold is None else 2
        if self._sum is not None and len(self._sum) != num_classes**2 + 1:
            raise UsageError(
                f"outputs have {num_classes} classes now, and had {int((len(self._sum) - 1) ** 0.5)} before"
            )
        cells = torch.where(
            (target >= 0) & (target < num_classes), target.long() * num_classes + classes, num_classes**2
        )
        # scatter_add_ and not bincount, which waits for a CUDA device to tell it the largest value
        counts = torch.zeros(num_classes**2 + 1, dtype=torch.int64, device=cells.device)
        counts.scatter_add_(0, cells.flatten(), torch.ones_like(cells, dtype=torch.int64).flatten())
        self._add(counts, target.numel())

    @property
    def matrix(self) -> Tensor:
        """The counts (C, C), int64, on the host; (0, 0) before the first update.

        A UsageError says how many targets were no class.
        """
        if self._sum is None:
            return torch.zeros(0, 0, dtype=torch.int64)
        counts = self._sum.cpu()  # sync: on reading only
        num_classes = int((len(counts) - 1) ** 0.5)
        if num_outside := int(counts[-1]):
            raise UsageError(
                f"{num_outside} of {self.count} targets are no class from 0 to {num_classes - 1}: "
                "leave them out of the batch, or give the model more outputs"
            )
        return counts[:-1].reshape(num_classes, num_classes)


class ConfusionMatrix(ClassCounts):
    """How often a class (row) was taken for which (column), as scikit-learn's ``confusion_matrix``.

    Outputs and targets: see `ClassCounts`. It is no number, so not in the epoch's row: keep the object and ask it.

    >>> matrix = ConfusionMatrix()
    >>> matrix.update(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([1, 1]))
    >>> matrix.compute().tolist()
    [[0, 0], [1, 1]]
    """

    def compute(self) -> Tensor:
        """Return the counts (C, C): row the target, column the prediction."""
        return self.matrix


class PerClassAccuracy(ClassCounts):
    """Share of each class's samples that were recognised: its recall, (C,), NaN for a class without samples.

    It is no number, so not in the epoch's row: keep the object and ask it.
    """

    def compute(self) -> Tensor:
        """Return the shares (C,), float64."""
        matrix = self.matrix.double()
        return matrix.diagonal() / matrix.sum(1)


class F1(ClassCounts):
    """The harmonic mean of precision and recall, as scikit-learn's ``f1_score``.

    A UsageError says that the average is another one, or on reading that "binary" met more than two classes.

    Args:
        average: "macro" (mean over the classes that occur as target or prediction), "weighted" (by number of targets),
            "micro" (all counts together), or "binary" (class 1 of two).
        threshold: as in `ClassCounts`.

    >>> f1 = F1("binary", threshold=0.0)
    >>> f1.update(torch.tensor([2.0, -1.0, 0.5]), torch.tensor([1, 1, 1]))
    >>> f1.compute()
    0.8

    """

    def __init__(self, average: Average = "macro", threshold: float | None = None) -> None:
        super().__init__(threshold)
        if average not in get_args(Average):
            raise UsageError(f"average={average!r}: choose one of {', '.join(get_args(Average))}")
        self.average = average

    def compute(self) -> float:
        """Return the score in [0, 1]; NaN before the first update."""
        matrix = self.matrix.double()
        if not len(matrix):
            return float("nan")
        right, targets, predictions = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
        scores = (2 * right / (targets + predictions)).nan_to_num(0.0)  # (C,)
        if self.average == "micro":
            return float(right.sum() / targets.sum())  # each miss of one class is a false alarm of another
        if self.average == "weighted":
            return float((scores * targets).sum() / targets.sum())
        if self.average == "macro":
            return float(scores[targets + predictions > 0].mean())
        if len(matrix) != 2:  # noqa: PLR2004 - binary
            raise UsageError(f"F1('binary') is for two classes, and there are {len(matrix)}: use 'macro'")
        return float(scores[1])
