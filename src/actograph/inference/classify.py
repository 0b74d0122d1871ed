"""Image files through an exported classifier: a class and a probability for each.

No idea of training or of the command line.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from actograph.data.image_file import read_image
from actograph.errors import UsageError
from actograph.inference.export import Export

BATCH_SIZE = 64  # images in memory at once


@dataclass(frozen=True)
class Prediction:
    """What an image was taken for: the likeliest class, and the probabilities of all, likeliest first."""

    image: Path
    probabilities: dict[str, float]

    @property
    def class_name(self) -> str:
        """The likeliest class."""
        return next(iter(self.probabilities))

    @property
    def probability(self) -> float:
        """Its probability."""
        return self.probabilities[self.class_name]


def classify(export: Export, images: Sequence[Path]) -> list[Prediction]:
    """Return the classes of PNG or JPEG files, made as large and as grey as those in training.

    The outputs of the model are taken for logits. Raises UsageError for an image that cannot be read, and for an export that
    does not tell how its inputs were prepared, or whose model gives another number of classes, or NaN.
    """
    if not images:
        raise UsageError("no image to classify; give the path of at least one")
    with torch.inference_mode():
        outputs = torch.cat([export.model(batch) for batch in _batches(export, images)])
    if outputs.ndim != 2:  # noqa: PLR2004 - samples and classes
        raise UsageError(f"the model is no classifier: it gives outputs of shape {tuple(outputs.shape[1:])}")
    names = export.class_names or tuple(str(number) for number in range(outputs.shape[1]))
    if len(names) != outputs.shape[1]:
        raise UsageError(
            f"the model has {outputs.shape[1]} outputs, but the export names {len(names)} classes"
        )
    probabilities = outputs.softmax(dim=1)  # (samples, classes)
    for image, row in zip(images, probabilities, strict=True):
        if row.isnan().any():
            raise UsageError(
                f"the outputs for {image} are not finite: training had failed when the model was exported"
            )
    return [
        Prediction(image, _by_probability(row, names))
        for image, row in zip(images, probabilities, strict=True)
    ]


def _batches(export: Export, images: Sequence[Path]) -> Iterator[Tensor]:
    """Yield normalised images, (samples, channels, height, width)."""
    size, normalization = export.input_size, export.normalization
    if size is None or normalization is None:
        raise UsageError(
            "the export does not tell the size or the normalization of its inputs: export from a Learner with Loaders"
        )
    if normalization.white == 1:
        raise UsageError(
            "the model was trained on floating point data, whose scale an image file does not tell"
        )
    for begin in range(0, len(images), BATCH_SIZE):
        pixels = torch.stack([read_image(image, size) for image in images[begin : begin + BATCH_SIZE]])
        yield normalization.apply(pixels)


def _by_probability(row: Tensor, names: Sequence[str]) -> dict[str, float]:
    order = row.argsort(descending=True).tolist()
    return {names[index]: float(row[index]) for index in order}
