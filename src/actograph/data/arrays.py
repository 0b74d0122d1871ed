"""Loaders from numpy arrays of images and labels, whatever their layout.

No idea of files: the caller names the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actograph.data.assemble import VALID_SHARE, assemble, split_by_class
from actograph.data.augment import Transform
from actograph.data.checks import check_batch_size, check_bytes, check_seed
from actograph.data.loaders import Loaders
from actograph.errors import UsageError

Array: TypeAlias = NDArray[Any]

MAX_CHANNELS = 4  # grey, grey and alpha, RGB, RGBA: how an axis of channels is told from one of pixels
NUMBERS = "buif"  # numpy's kinds: bool, unsigned, signed, floating point
LABELS = "buiUS"  # whole numbers and strings


@dataclass(frozen=True, slots=True)
class ArrayPart:
    """Images (n, height, width), (n, height, width, channels) or (n, channels, height, width), and n labels."""

    x: Array
    y: Array
    name: str  # for messages, such as "train-images-idx3-ubyte"


def array_loaders(
    train: ArrayPart,
    valid: ArrayPart | None = None,
    *,
    source: str,
    batch_size: int = 64,
    seed: int = 0,
    size: int | None = None,
    transform: Transform | None = None,
    device: torch.device | str | None = None,
) -> Loaders:
    """Load images and labels; without ``valid`` a fifth of each class is drawn for validation with ``seed``.

    Bytes are scaled to 0..1, other numbers taken as they are; both are then normalised by mean and std of the
    training part. Labels are whole numbers or strings; sorted, they are the classes. Images cannot be resized:
    ``size``, if given, has to be their side.

    Raises UsageError for shapes, types or counts that do not fit, fewer than two classes, a label that train
    does not have, a class of one image that would have to be split, more than 2 GiB.
    """
    check_batch_size(batch_size)
    check_seed(seed)
    parts = [train] if valid is None else [train, valid]
    images = [_images(part) for part in parts]
    _check_sizes(images, parts, size)
    names, labels = _classes(parts)
    if valid is None:
        split = split_by_class(labels[0], names, VALID_SHARE, seed)
        images, labels = [images[0][part] for part in split], [labels[0][part] for part in split]
    return assemble(
        (images[0], labels[0]),
        (images[1], labels[1]),
        names,
        source=source,
        batch_size=batch_size,
        seed=seed,
        transform=transform,
        device=device,
    )


def _images(part: ArrayPart) -> Tensor:
    """Return uint8 or float32 (samples, channels, height, width)."""
    x = part.x
    if x.dtype.kind not in NUMBERS:
        raise UsageError(f"{part.name} holds {x.dtype}; give images of numbers, bytes or floating point")
    channels_axis = _channels_axis(part)
    if len(x) == 0 or x.size == 0:
        raise UsageError(f"{part.name} has shape {x.shape}; give at least one image of at least one pixel")
    num_labels = len(_labels(part))
    if num_labels != len(x):
        raise UsageError(f"{part.name} has {len(x)} images, but {num_labels} labels; give one label an image")
    x = x[:, np.newaxis] if channels_axis is None else np.moveaxis(x, channels_axis, 1)
    check_bytes(len(x), x.shape[1:])
    return torch.from_numpy(np.require(x, np.uint8 if x.dtype == np.uint8 else np.float32, ["C", "W"]))


def _channels_axis(part: ArrayPart) -> int | None:
    """Find the axis of the channels; None for grey images without one."""
    shape = part.x.shape
    if len(shape) == 3:  # noqa: PLR2004 - samples, height, width
        return None
    candidates = [axis for axis in (1, 3) if len(shape) == 4 and shape[axis] <= MAX_CHANNELS]  # noqa: PLR2004
    if len(candidates) != 1:
        raise UsageError(
            f"{part.name} has shape {shape}; give images (n, height, width), (n, height, width, channels) or "
            f"(n, channels, height, width), with at most {MAX_CHANNELS} channels"
        )
    return candidates[0]


def _check_sizes(images: Sequence[Tensor], parts: Sequence[ArrayPart], size: int | None) -> None:
    first = tuple(images[0].shape[1:])
    for part, x in zip(parts, images, strict=True):
        if tuple(x.shape[1:]) != first or x.dtype != images[0].dtype:
            raise UsageError(
                f"{part.name} holds {x.dtype} images of shape {tuple(x.shape[1:])}, but {parts[0].name} "
                f"{images[0].dtype} of {first} (channels, height, width); give both alike"
            )
    if size is not None and first[1:] != (size, size):
        raise UsageError(
            f"size is {size}, but {parts[0].name} has images of {first[1]} x {first[2]} pixels; leave size out"
        )


def _classes(parts: Sequence[ArrayPart]) -> tuple[tuple[str, ...], list[Tensor]]:
    """Return the names of the classes, and each part's labels as indices of them, int64 (samples,)."""
    found = np.unique(_labels(parts[0]))
    if len(found) == 1:
        raise UsageError(f"{parts[0].name} has one class only, {found[0]!s}; give at least two")
    indices = []
    for part in parts:
        labels = _labels(part)
        if (labels.dtype.kind == "U") is not (found.dtype.kind == "U"):
            raise UsageError(
                f"{part.name} has labels of type {labels.dtype}, but train {found.dtype}; give both alike"
            )
        unknown = np.setdiff1d(labels, found)
        if len(unknown):
            raise UsageError(
                f"{part.name} has the label {unknown[0]!s}, which train does not have; remove it"
            )
        indices.append(torch.from_numpy(np.searchsorted(found, labels).astype(np.int64)))
    return tuple(str(name) for name in found), indices


def _labels(part: ArrayPart) -> Array:
    y = part.y
    if y.shape not in ((y.size,), (y.size, 1)) or y.dtype.kind not in LABELS:
        raise UsageError(
            f"{part.name} has labels of shape {y.shape} and type {y.dtype}; give one whole number or string an image"
        )
    return np.char.decode(y.ravel(), errors="replace") if y.dtype.kind == "S" else y.ravel()
