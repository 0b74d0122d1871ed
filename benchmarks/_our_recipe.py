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
from actograph.callbacks.averaged_weights import AveragedWeights
from actograph.callbacks.progress import Progress
from actograph.data.augment import Compose, RandomAffine, RandomCrop, Transform
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
    """`simple_cnn` with batch norm, one cycle, fused AdamW. ``crop`` is in pixels, ``affine`` degrees, scale, pixels."""

    epochs: int = 5
    lr_max: float = 0.02
    batch_size: int = 64
    label_smoothing: float = 0.1
    channels: tuple[int, ...] = (16, 32, 64, 128)
    crop: int = 0
    affine: tuple[float, float, float] | None = None
    average_decay: float | None = None
    pct_start: float = 0.25

    def transform(self) -> Transform | None:
        parts: list[Transform] = []
        if self.crop:
            parts.append(RandomCrop(self.crop, "border"))
        if self.affine:
            degrees, scale, translate = self.affine
            parts.append(RandomAffine(degrees=degrees, scale=scale, translate=translate))
        return Compose(tuple(parts)) if parts else None


def our_recipe(split: Split, seed: int, settings: OurRecipe, folder: Path) -> Curve:
    """Train with every layer recorded into ``folder``."""
    torch.manual_seed(seed)
    curve = Curve()
    train = TensorLoader(
        split.train_x,
        split.train_y,
        settings.batch_size,
        shuffle=True,
        drop_last=True,
        seed=seed,
        transform=settings.transform(),
    )
    valid = TensorLoader(split.valid_x, split.valid_y, VALID_BATCH_SIZE)
    averaged = [] if settings.average_decay is None else [AveragedWeights(settings.average_decay)]
    learner = Learner(
        simple_cnn(NUM_CLASSES, channels=settings.channels, norm="batch"),
        (train, valid),
        nn.CrossEntropyLoss(label_smoothing=settings.label_smoothing),
        metrics=[Accuracy()],
        callbacks=[
            *averaged,
            ActivationStats(out=folder / "run"),
            CurveTimer(curve),
            Progress(Console(file=io.StringIO())),
        ],
    )
    curve.begin()
    learner.fit_one_cycle(settings.epochs, settings.lr_max, pct_start=settings.pct_start)
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


VARIANTS = {
    "ours": OurRecipe(14, 0.03, 128, channels=(12, 24, 48, 96), crop=2, average_decay=0.97),
    "ours-quick": OurRecipe(8, 0.02, 128, crop=1, average_decay=0.97),
}
