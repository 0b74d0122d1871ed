"""Open data by what a user types: the name of a built-in set, or a folder of images.

No idea of the command line: `open_data` is an ordinary function.
"""

from __future__ import annotations

from pathlib import Path

import torch

from actograph.data.digits import SIDE, digits
from actograph.data.image_folder import image_folder
from actograph.data.loaders import Loaders
from actograph.errors import UsageError

MNIST = "mnist"


def open_data(
    source: str | Path,
    *,
    batch_size: int = 64,
    seed: int = 0,
    size: int | None = None,
    device: torch.device | str | None = None,
) -> Loaders:
    """Open ``"mnist"``, the built-in digits, or a folder of class folders with PNG or JPEG images.

    ``size`` is the side in pixels to which the images of a folder are resized. A folder that is called
    ``mnist`` is reached as ``./mnist``.

    Raises UsageError for anything else, and whatever `digits` and `image_folder` raise.
    """
    if source == MNIST:
        if size not in (None, SIDE):
            raise UsageError(f"size is {size}, but the digits have {SIDE} x {SIDE} pixels; leave size out")
        return digits(batch_size, seed, device)
    path = Path(source).expanduser()
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UsageError(f"{source} {what}; give 'mnist' or a folder with one folder of images per class")
    return image_folder(path, size=size, batch_size=batch_size, seed=seed, device=device)
