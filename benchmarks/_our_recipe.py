"""Our recipe for the digits: what `bench_accuracy.py` sets against fastai's. No idea of splits or reports.

This is the file to tune: on split 0 only (`bench_accuracy.py --tune`). Every edit of it makes its earlier runs void.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import torch
from _curve import NUM_CLASSES, Curve, Split
from rich.console import Console
from torch import nn

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.progress import Progress
from actograph.data.loaders import TensorLoader
from actograph.learner import Learner
from actograph.models.cnn import simple_cnn
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy
from actograph.train.state import Phase

VALID_BATCH_SIZE = 250


@dataclass(frozen=True)
class OurRecipe:
    """The settings of `actograph train mnist`, with batch norm."""

    epochs: int = 5
    lr_max: float = 0.007
    batch_size: int = 16
    label_smoothing: float = 0.1
    channels: tuple[int, ...] = (8, 16, 32, 64)


def our_recipe(split: Split, seed: int, settings: OurRecipe, folder: Path) -> Curve:
    """Train with every layer recorded into ``folder``."""
    torch.manual_seed(seed)
    curve = Curve()
    train = TensorLoader(split.train_x, split.train_y, settings.batch_size, shuffle=True, seed=seed)
    valid = TensorLoader(split.valid_x, split.valid_y, VALID_BATCH_SIZE)
    learner = Learner(
        simple_cnn(NUM_CLASSES, channels=settings.channels, norm="batch"),
        (train, valid),
        nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing),
        metrics=[Accuracy()],
        callbacks=[
            ActivationStats(out=folder / "run"),
            CurveTimer(curve),
            Progress(Console(file=io.StringIO())),
        ],
    )
    curve.begin()
    learner.fit_one_cycle(settings.epochs, settings.lr_max)
    curve.end()
    return curve


class CurveTimer(Callback):
    """Fills a curve."""

    stage = Stage.REPORT  # last: what others do before the valid batches counts as training

    def __init__(self, curve: Curve) -> None:
        self.curve = curve

    def before_phase(self, loop: Loop) -> None:
        if loop.progress.phase is Phase.VALID:
            self.curve.valid_begins()

    def after_phase(self, loop: Loop) -> None:
        if loop.progress.phase is Phase.VALID:
            self.curve.valid_ends()
            self.curve.accuracy.append(loop.values["accuracy"])


VARIANTS = {"ours": OurRecipe()}
