"""Images from a folder of class folders, decoded and resized once, then kept in memory.

No idea of training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from actograph.data.assemble import VALID_SHARE, assemble, split_by_class
from actograph.data.augment import Transform
from actograph.data.checks import check_batch_size, check_bytes, check_seed
from actograph.data.loaders import Loaders
from actograph.errors import UsageError

SUFFIXES = (".png", ".jpg", ".jpeg")
TRAIN_NAME = "train"
VALID_NAMES = ("valid", "val")
LARGEST_DEFAULT_SIZE = 64  # pixels: a first training on a laptop takes minutes, not hours
GREY_MODES = ("1", "L")
RGB_CHANNELS = 3
DEEP_GREY_WHITE = 65535  # the largest value of a 16-bit grey pixel
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)  # Pillow's, measured
T = TypeVar("T")


def image_folder(
    path: str | Path,
    *,
    size: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    valid_share: float = VALID_SHARE,
    transform: Transform | None = None,
    device: torch.device | str | None = None,
) -> Loaders:
    """Load ``PATH/train/<class>/*`` and ``PATH/valid/<class>/*``, or split ``PATH/<class>/*``.

    Reads PNG and JPEG; other files and hidden folders are ignored. Images are resized (bilinear, the sides'
    ratio is not kept) to ``size`` x ``size``: by default the median of their shorter sides, at most 64. They
    are grey (one channel) if all are, else RGB; transparent parts become white. Values are float32,
    normalised by mean and std of the training part. Without a valid folder ``valid_share`` of each class, at
    least one image, is drawn for validation with ``seed``, which shuffles the batches too. ``transform``
    changes the batches to train with, see ``augment``.

    Raises UsageError that names the file or folder: nothing there, fewer than two classes, a class folder
    without images, an image that cannot be read, a valid class that train does not have, a class of one image
    that would have to be split, more than 2 GiB.
    """
    check_batch_size(batch_size)
    check_seed(seed)
    _check_size(size)
    if not 0 < valid_share < 1:
        raise UsageError(f"valid_share is {valid_share!r}; give a share between 0 and 1, such as 0.2")
    listing = _list_images(Path(path))
    size = size or _default_size(listing.files)
    pixels = _read_pixels(listing.files, size)  # (samples, channels, size, size)
    labels = torch.tensor(listing.labels)
    train, valid = _split(listing, labels, valid_share, seed)
    return assemble(
        (pixels[train], labels[train]),
        (pixels[valid], labels[valid]),
        listing.class_names,
        source=str(path),
        batch_size=batch_size,
        seed=seed,
        transform=transform,
        device=device,
    )


@dataclass(frozen=True, slots=True)
class _Listing:
    """The images of a folder; ``num_train`` of them come first if the user made the split, else it is None."""

    class_names: tuple[str, ...]
    files: tuple[Path, ...]
    labels: tuple[int, ...]
    num_train: int | None


def _list_images(path: Path) -> _Listing:
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}; give a folder with one folder of images per class")
    train_path = path / TRAIN_NAME
    if not (train_path.is_dir() and _class_folders(train_path)):
        names, files, labels = _list_classes(path)
        return _Listing(names, tuple(files), tuple(labels), num_train=None)
    names, files, labels = _list_classes(train_path)
    valid_path = next((path / name for name in VALID_NAMES if (path / name).is_dir()), None)
    if valid_path is None:
        return _Listing(names, tuple(files), tuple(labels), num_train=None)
    valid_files, valid_labels = _list_valid(valid_path, names)
    return _Listing(names, (*files, *valid_files), (*labels, *valid_labels), num_train=len(files))


def _list_classes(path: Path) -> tuple[tuple[str, ...], list[Path], list[int]]:
    folders = _class_folders(path)
    if not folders:
        raise UsageError(
            f"{path} has no folders; put the images of each class into a folder of its own there"
        )
    if len(folders) == 1:
        raise UsageError(f"{path} has one class only, {folders[0].name!r}; give at least two class folders")
    files, labels = [], []
    for label, folder in enumerate(folders):
        images = _images(folder)
        files += images
        labels += [label] * len(images)
    return tuple(folder.name for folder in folders), files, labels


def _list_valid(path: Path, class_names: Sequence[str]) -> tuple[list[Path], list[int]]:
    files, labels = [], []
    for folder in _class_folders(path):
        if folder.name not in class_names:
            raise UsageError(
                f"{folder} is a class that train does not have (it has {', '.join(class_names)}); "
                "rename or remove it"
            )
        images = _images(folder)
        files += images
        labels += [class_names.index(folder.name)] * len(images)
    if not files:
        raise UsageError(
            f"{path} has no class folders; fill it as train is, or remove it to have train split"
        )
    return files, labels


def _class_folders(path: Path) -> list[Path]:
    return sorted(
        entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__"))
    )


def _images(folder: Path) -> list[Path]:
    images = sorted(
        entry
        for entry in folder.iterdir()
        if entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".") and entry.is_file()
    )
    if not images:
        raise UsageError(
            f"class folder {folder} is empty: no PNG or JPEG directly in it; add images or remove the folder"
        )
    return images


def _split(listing: _Listing, labels: Tensor, valid_share: float, seed: int) -> tuple[Tensor, Tensor]:
    if listing.num_train is not None:
        return torch.arange(listing.num_train), torch.arange(listing.num_train, len(labels))
    return split_by_class(labels, listing.class_names, valid_share, seed)


def _check_size(size: int | None) -> None:
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise UsageError(f"size is {size!r}; give the side of the images in pixels, at least 1")


def _default_size(files: Sequence[Path]) -> int:
    sides = [read_with(file, lambda image: min(image.size)) for file in files]
    return min(int(np.median(sides)), LARGEST_DEFAULT_SIZE)


def _read_pixels(files: Sequence[Path], size: int) -> Tensor:
    """Decode all images as uint8 (samples, channels, size, size); 1 channel if all are grey."""
    check_bytes(len(files), (1, size, size))
    images, is_grey = [], True
    for file in files:
        image = read_with(file, lambda opened: _decode(opened, size))
        is_grey = is_grey and image.shape[-1] == 1
        images.append(image)
    channels = 1 if is_grey else RGB_CHANNELS
    check_bytes(len(files), (channels, size, size))
    stacked = np.stack([np.broadcast_to(image, (size, size, channels)) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).contiguous()


def read_with(file: Path, use: Callable[[Image.Image], T]) -> T:
    """Open a PNG or JPEG and return what ``use`` makes of it; a UsageError names a file that cannot be read."""
    try:
        with Image.open(file, formats=("PNG", "JPEG")) as image:
            return use(image)
    except UNREADABLE as error:
        reason = "not a PNG or JPEG" if isinstance(error, UnidentifiedImageError) else str(error)
        raise UsageError(f"image {file} cannot be read ({reason}); replace or remove it") from error


def _decode(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """Return uint8 (size, size, channels), with one channel if the image is grey whatever its format."""
    upright = on_white(ImageOps.exif_transpose(image))
    pixels = np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))
    pixels = pixels.reshape(size, size, -1)
    return pixels[:, :, :1] if (pixels == pixels[:, :, :1]).all() else pixels


def on_white(image: Image.Image) -> Image.Image:
    """Convert to L or RGB; 16-bit grey is scaled down, where Pillow's convert would cut it off at 255."""
    if image.mode.startswith("I"):
        deep = np.asarray(image, dtype=np.float32)  # (height, width)
        return Image.fromarray((deep * (255 / DEEP_GREY_WHITE)).round().astype(np.uint8))
    if image.has_transparency_data:
        clear = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear).convert("RGB")
    return image.convert("L" if image.mode in GREY_MODES else "RGB")
