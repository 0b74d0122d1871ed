"""Put loaders together from images and labels in memory: the last step of every source of data.

No idea of files: the caller names the source.
"""

from __future__ import annotations

import torch
from torch import Tensor

from actograph.data.augment import Transform
from actograph.data.checks import check_finite
from actograph.data.loaders import Batch, Loaders, TensorLoader
from actograph.data.normalization import measure_normalization, varies
from actograph.data.split import split_stratified
from actograph.errors import UsageError

VALID_SHARE = 0.2  # of each class, where the source has no part to validate with


def assemble(
    train: Batch,
    valid: Batch,
    class_names: tuple[str, ...],
    *,
    source: str,
    batch_size: int,
    seed: int,
    transform: Transform | None,
    device: torch.device | str | None,
) -> Loaders:
    """Normalise both parts by the training part, and load that one shuffled and transformed.

    x: (samples, channels, height, width), uint8 or floating point; y: int64 (samples,).

    Raises UsageError for values that are not finite, or training images that are all of one flat colour.
    """
    check_finite(train[0], f"{source}, training images")
    check_finite(valid[0], f"{source}, validation images")
    if not any(varies(train[0][:, channel]) for channel in range(train[0].shape[1])):
        raise UsageError(
            f"all training images in {source} are one flat colour; there is nothing to learn from"
        )
    normalization = measure_normalization(train[0])
    x_train, x_valid = (normalization.apply(x).to(device) for x, _ in (train, valid))
    y_train, y_valid = (y.to(device) for _, y in (train, valid))
    return Loaders(
        train=TensorLoader(x_train, y_train, batch_size, shuffle=True, seed=seed, transform=transform),
        valid=TensorLoader(x_valid, y_valid, batch_size),
        num_classes=len(class_names),
        class_names=class_names,
        input_size=tuple(x_train.shape[1:]),
        normalization=normalization,
    )


def split_by_class(
    labels: Tensor, class_names: tuple[str, ...], valid_share: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the indices of (train, valid): ``valid_share`` of each class for valid, but one at least for both.

    Raises UsageError for a class of one sample.
    """
    counts = torch.bincount(labels, minlength=len(class_names)).tolist()
    for name, count in zip(class_names, counts, strict=True):
        if count == 1:
            raise UsageError(
                f"class {name!r} has 1 image, too few to split; add images, or make train and valid yourself"
            )
    sizes = [min(max(round(count * valid_share), 1), count - 1) for count in counts]
    return split_stratified(labels, sizes, seed)
