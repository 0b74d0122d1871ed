"""Open data by what a user types: the name of a built-in set, a folder, or a file.

No idea of the command line: `open_data` is an ordinary function.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from actograph.data.augment import Transform
from actograph.data.digits import SIDE, digits
from actograph.data.idx import idx_folder, is_idx
from actograph.data.image_folder import image_folder
from actograph.data.loaders import Loaders
from actograph.data.npz import npz_file
from actograph.errors import UsageError

MNIST = "mnist"
NPZ_SUFFIX = ".npz"


def open_data(
    source: str | Path,
    *,
    batch_size: int = 64,
    seed: int = 0,
    size: int | None = None,
    transform: Transform | None = None,
    device: torch.device | str | None = None,
) -> Loaders:
    """Open ``"mnist"``, the built-in digits, a folder of class folders, MNIST's IDX files, or a ``.npz`` file.

    IDX files are opened by their folder or by one of them. ``size`` is the side in pixels to which the images
    of class folders are resized; ``transform`` changes the batches to train with, see ``augment``. A folder that
    is called ``mnist`` is reached as ``./mnist``.

    Raises UsageError for anything else, and whatever `digits`, `image_folder`, `idx_folder` and `npz_file` raise.
    """
    if source == MNIST:
        if size not in (None, SIDE):
            raise UsageError(f"size is {size}, but the digits have {SIDE} x {SIDE} pixels; leave size out")
        return digits(batch_size, seed, device, transform=transform)
    path = Path(source).expanduser()
    folder, open_path = _opener(path)
    return open_path(folder, batch_size=batch_size, seed=seed, size=size, transform=transform, device=device)


def _opener(path: Path) -> tuple[Path, Callable[..., Loaders]]:
    if path.suffix.lower() == NPZ_SUFFIX and path.is_file():
        return path, npz_file
    if path.exists() and is_idx(path):
        return path if path.is_dir() else path.parent, idx_folder
    if path.is_dir():
        return path, image_folder
    what = "is a file" if path.exists() else "does not exist"
    raise UsageError(
        f"{path} {what}; give 'mnist' or a folder with one folder of images per class, a folder of MNIST's "
        "IDX files, or a .npz file"
    )
