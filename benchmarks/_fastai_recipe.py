"""fastai's recipe for the digits: chapter 13 of its book, with batch norm and 1cycle. No idea of splits or reports."""
# ruff: noqa: PLC0415  fastai is optional and slow to import

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _curve import NUM_CLASSES, Curve, Split
from torch import nn
from torch.utils.data import TensorDataset


@dataclass(frozen=True)
class FastaiRecipe:
    """Peak rate and batch size as in the book (0.06; 64, later 512), or as found best for these few digits (0.02)."""

    epochs: int = 8
    lr_max: float = 0.06
    batch_size: int = 64


def fastai_recipe(split: Split, seed: int, settings: FastaiRecipe, folder: Path) -> Curve:
    """Train with fastai's own loader, optimizer and default callbacks; progress and logging off, nothing recorded."""
    from fastai.callback.core import Callback
    from fastai.callback.schedule import Learner  # with fit_one_cycle
    from fastai.data.core import DataLoaders
    from fastai.metrics import accuracy

    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)  # of fastai's loader
    curve = Curve()

    class BeforeValid(Callback):
        order = 100  # last: what others do before the valid batches counts as training

        def before_validate(self) -> None:
            curve.valid_begins()

    class AfterValid(Callback):
        order = -100  # first

        def after_validate(self) -> None:
            curve.valid_ends()

    loaders = DataLoaders.from_dsets(
        TensorDataset(split.train_x, split.train_y),
        TensorDataset(split.valid_x, split.valid_y),
        bs=settings.batch_size,
        num_workers=0,
        device=torch.device("cpu"),
    )
    learner = Learner(
        loaders,
        book_cnn(),
        nn.functional.cross_entropy,
        metrics=accuracy,
        cbs=[BeforeValid(), AfterValid()],
        path=folder,
    )
    with learner.no_bar(), learner.no_logging():
        curve.begin()
        learner.fit_one_cycle(settings.epochs, settings.lr_max)
        curve.end()
    curve.accuracy = accuracies(learner)
    return curve


def accuracies(learner: Any) -> list[float]:
    """Return the last value of each epoch's row, which is the only metric's."""
    return [float(row[-1]) for row in learner.recorder.values]


def book_cnn() -> nn.Sequential:
    """Build the book's network: conv, ReLU, batch norm; the last block without ReLU; convolutions with a bias."""
    layers: list[nn.Module] = []
    widths = (1, 8, 16, 32, 64, NUM_CLASSES)
    for index, (inputs, outputs) in enumerate(pairwise(widths)):
        kernel_size = 5 if index == 0 else 3
        layers.append(nn.Conv2d(inputs, outputs, kernel_size, stride=2, padding=kernel_size // 2))
        if index < len(widths) - 2:
            layers.append(nn.ReLU())
        layers.append(nn.BatchNorm2d(outputs))
    return nn.Sequential(*layers, nn.Flatten())


VARIANTS = {
    "fastai-64-lr06": FastaiRecipe(),
    "fastai-512-lr06": FastaiRecipe(batch_size=512),
    "fastai-64-lr02": FastaiRecipe(lr_max=0.02),
    "fastai-64-lr01": FastaiRecipe(lr_max=0.01),
}
