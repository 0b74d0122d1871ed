"""Refuse data that no training can survive.

No idea where the data comes from; the caller names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from actograph.errors import UsageError

MAX_BYTES = 2 * 1024**3  # of the float32 images, which are all kept in memory


def check_finite(x: Tensor, what: str) -> None:
    """Raise UsageError if ``x`` holds NaN or infinite values; say how many, and where the first one is.

    >>> check_finite(torch.tensor([[1.0, float("nan")]]), "train images")
    Traceback (most recent call last):
    actograph.errors.UsageError: train images: 1 NaN and 0 infinite values of 2, the first at [0, 1]; ...
    """
    is_bad = ~torch.isfinite(x)
    if not is_bad.any():
        return
    nans = int(torch.isnan(x).sum())
    infinite = int(is_bad.sum()) - nans
    first = is_bad.nonzero()[0].tolist()
    raise UsageError(
        f"{what}: {nans} NaN and {infinite} infinite values of {x.numel()}, the first at {first}; "
        "remove these samples or replace the values before training"
    )


def check_seed(seed: int) -> None:
    """Raise UsageError for a seed below 0, which has no random stream."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise UsageError(f"seed is {seed!r}; give a whole number of at least 0")


def check_batch_size(batch_size: int) -> None:
    """Raise UsageError for a batch size below 1."""
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise UsageError(f"batch_size is {batch_size!r}; give a whole number of at least 1")


def check_bytes(samples: int, shape: Sequence[int]) -> None:
    """Raise UsageError for images (each of ``shape``) that need more than 2 GiB as float32."""
    size_bytes = samples * prod(shape) * torch.float32.itemsize
    if size_bytes > MAX_BYTES:
        raise UsageError(
            f"{samples} images of {' x '.join(map(str, shape))} need {size_bytes / 1024**3:.1f} GiB of memory, "
            f"more than {MAX_BYTES / 1024**3:.0f} GiB; give smaller ones, or a loader of your own"
        )
