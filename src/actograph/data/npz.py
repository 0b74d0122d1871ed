"""Images and labels from a numpy ``.npz`` file.

No idea of training.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from actograph.data.arrays import ArrayPart, array_loaders
from actograph.data.augment import Transform
from actograph.data.loaders import Loaders
from actograph.errors import UsageError

TRAIN_NAMES = (("x_train", "y_train"), ("x", "y"))
VALID_NAMES = (("x_valid", "y_valid"), ("x_test", "y_test"))
UNREADABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error)


def npz_file(
    path: str | Path,
    *,
    batch_size: int = 64,
    seed: int = 0,
    size: int | None = None,
    transform: Transform | None = None,
    device: torch.device | str | None = None,
) -> Loaders:
    """Load the arrays ``x_train``, ``y_train``, ``x_test``, ``y_test`` (as Keras' mnist.npz has them) of a file.

    ``x`` and ``y`` may stand for the first two, ``x_valid`` and ``y_valid`` for the last; without these a fifth
    of each class is drawn for validation. For shapes and labels see ``arrays.array_loaders``.

    Raises UsageError that names the file: unreadable, arrays missing, or arrays of Python objects, which are
    never unpickled.
    """
    train, valid = _read(Path(path))
    return array_loaders(
        train,
        valid,
        source=str(path),
        batch_size=batch_size,
        seed=seed,
        size=size,
        transform=transform,
        device=device,
    )


def _read(path: Path) -> tuple[ArrayPart, ArrayPart | None]:
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, NpzFile):
                raise UsageError(
                    f"{path} is a single array; write x and y with numpy.savez(path, x=..., y=...)"
                )
            train, valid = (_part(path, file, names) for names in (TRAIN_NAMES, VALID_NAMES))
            held = ", ".join(file.files) or "nothing"
    except UsageError:
        raise
    except UNREADABLE as error:
        raise UsageError(
            f"{path} cannot be read ({error}); write it again with numpy.savez, without Python objects"
        ) from error
    if train is None:
        raise UsageError(f"{path} has no arrays x and y, nor x_train and y_train; it has {held}")
    return train, valid


def _part(path: Path, file: NpzFile, names: tuple[tuple[str, str], ...]) -> ArrayPart | None:
    pair = next(((x, y) for x, y in names if x in file.files and y in file.files), None)
    return None if pair is None else ArrayPart(file[pair[0]], file[pair[1]], f"{path}, {pair[0]}")
