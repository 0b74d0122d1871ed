"""The files MNIST comes in: four arrays in IDX format, gzip or not.

No idea of training. The format: http://yann.lecun.com/exdb/mnist (LeCun, Cortes, Burges 1998).
"""

from __future__ import annotations

import gzip
import struct
import zlib
from itertools import product
from math import prod
from pathlib import Path

import numpy as np
import torch

from actograph.data.arrays import Array, ArrayPart, array_loaders
from actograph.data.augment import Transform
from actograph.data.loaders import Loaders
from actograph.errors import UsageError

# the third byte of the file -> type of its numbers, which are big-endian
TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP_MAGIC = b"\x1f\x8b"
HEADER_BYTES = 4  # two zeros, type, number of axes; then the length of each axis as a big-endian int32
IMAGES = {"train": "train-images{}idx3-ubyte", "t10k": "t10k-images{}idx3-ubyte"}
LABELS = {"train": "train-labels{}idx1-ubyte", "t10k": "t10k-labels{}idx1-ubyte"}


def idx_folder(
    path: str | Path,
    *,
    batch_size: int = 64,
    seed: int = 0,
    size: int | None = None,
    transform: Transform | None = None,
    device: torch.device | str | None = None,
) -> Loaders:
    """Load ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``, and the same with ``t10k`` to validate.

    ``.`` may stand for the second ``-``, and the names may end in ``.gz``. Without the two ``t10k`` files a
    fifth of each class is drawn for validation. For the rest see ``arrays.array_loaders``.

    Raises UsageError that names the file: missing, truncated, not IDX, or with other counts than its partner.
    """
    folder = Path(path)
    train, valid = _read_part(folder, "train"), None
    if _find(folder, IMAGES["t10k"]) or _find(folder, LABELS["t10k"]):
        valid = _read_part(folder, "t10k")
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


def is_idx(path: Path) -> bool:
    """Tell whether ``path`` is one of the four files, or a folder with any of them."""
    names = {name for pattern in (*IMAGES.values(), *LABELS.values()) for name in _spellings(pattern)}
    return any((path / name).is_file() for name in names) if path.is_dir() else path.name in names


def read_idx(path: Path) -> Array:
    """Read one IDX file, compressed or not, as its first bytes say.

    Raises UsageError that names the file if it is truncated, too long, damaged, or not IDX.
    """
    data = _read_bytes(path)
    magic = data[:HEADER_BYTES]
    is_whole = len(magic) == HEADER_BYTES
    if is_whole and (magic[:2] != b"\0\0" or magic[2] not in TYPES):
        raise UsageError(
            f"{path} is no IDX file: it begins with {magic.hex(' ')}, not with 00 00 08 or another IDX type; "
            "replace it"
        )
    header_end = HEADER_BYTES + 4 * magic[3] if is_whole else HEADER_BYTES
    if len(data) < header_end:
        raise UsageError(f"{path} is truncated: it ends after {len(data)} bytes, in its header; replace it")
    shape = struct.unpack(f">{magic[3]}i", data[HEADER_BYTES:header_end])
    dtype = np.dtype(TYPES[magic[2]])
    expected = header_end + prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or len(data) != expected:
        how = "is truncated" if len(data) < expected else "is damaged"
        raise UsageError(
            f"{path} {how}: it has {len(data)} bytes, but {expected} are needed for its shape {shape}; replace it"
        )
    return np.frombuffer(data, dtype, offset=header_end).reshape(shape)


def _read_part(folder: Path, part: str) -> ArrayPart:
    images, labels = _required(folder, IMAGES[part]), _required(folder, LABELS[part])
    x, y = read_idx(images), read_idx(labels)
    return ArrayPart(x, y, f"{images} with {labels.name}")


def _required(folder: Path, pattern: str) -> Path:
    found = _find(folder, pattern)
    if found is None:
        raise UsageError(
            f"{folder} has no {pattern.format('-')} (or .gz); add the file to those that are there"
        )
    return found


def _find(folder: Path, pattern: str) -> Path | None:
    return next((folder / name for name in _spellings(pattern) if (folder / name).is_file()), None)


def _spellings(pattern: str) -> list[str]:
    return [pattern.format(dot) + end for dot, end in product("-.", ("", ".gz"))]


def _read_bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
    except EOFError as error:
        raise UsageError(f"{path} is truncated: its compressed data ends too early; replace it") from error
    except (OSError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
        raise UsageError(f"{path} cannot be read ({error}); replace it") from error
