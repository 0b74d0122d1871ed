"""Shift and scale of image channels, measured on the training part.

No idea of files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from actograph.errors import UsageError

WHITE = 255.0  # the largest value of a uint8 pixel
LEVELS = 256


@dataclass(frozen=True, slots=True)
class Normalization:
    """Mean and standard deviation of each channel, of values that were divided by ``white`` first.

    ``white`` is 255 for pixels of one byte, so that they are 0 to 1, and 1 for floating point data.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: float = WHITE

    def apply(self, pixels: Tensor) -> Tensor:
        """Turn values (samples, channels, ...) into new float32 of mean 0 and std 1.

        >>> Normalization(mean=(0.5,), std=(0.25,)).apply(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8))
        tensor([[[[2.]]]])
        """
        per_channel = (-1, *(1,) * (pixels.ndim - 2))
        mean = torch.tensor(self.mean, device=pixels.device).view(per_channel)
        std = torch.tensor(self.std, device=pixels.device).view(per_channel)
        return (
            torch.empty_like(pixels, dtype=torch.float32).copy_(pixels).div_(self.white).sub_(mean).div_(std)
        )

    def to_json(self) -> dict[str, object]:
        """Return what `from_json` takes: lists and numbers."""
        return {"mean": list(self.mean), "std": list(self.std), "white": self.white}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Normalization:
        """Undo `to_json`; a UsageError names what is missing or cannot be used.

        >>> Normalization.from_json(Normalization((0.1, 0.2), (1.0, 2.0)).to_json())
        Normalization(mean=(0.1, 0.2), std=(1.0, 2.0), white=255.0)
        """
        mean, std = _numbers(data, "mean"), _numbers(data, "std")
        white = data.get("white")
        if len(mean) != len(std) or not mean or not all(value > 0 for value in std):
            raise UsageError(
                f"normalization has mean {mean} and std {std}; give one of each, std above 0, a channel"
            )
        if not _is_number(white) or white <= 0:
            raise UsageError(f"normalization has white {white!r}; give a number above 0, such as 255")
        return cls(mean, std, float(white))


def measure_normalization(pixels: Tensor) -> Normalization:
    """Measure mean and population std of each channel of (samples, channels, ...), uint8 or floating point.

    Exact for uint8, because it goes over the counts of the 256 levels; in float64 otherwise. A channel that
    never changes gets the std 1.
    """
    is_byte = pixels.dtype == torch.uint8
    measure = _level_moments if is_byte else _moments
    channels = [pixels[:, channel] for channel in range(pixels.shape[1])]
    moments = [measure(channel) for channel in channels]
    # of equal values the mean may be off by a rounding, and the std not quite 0
    std = tuple(std if std and varies(one) else 1.0 for one, (_, std) in zip(channels, moments, strict=True))
    return Normalization(tuple(mean for mean, _ in moments), std, WHITE if is_byte else 1.0)


def varies(values: Tensor) -> bool:
    """Tell whether not all values are equal."""
    return bool(values.amin() < values.amax())


def _level_moments(pixels: Tensor) -> tuple[float, float]:
    counts = torch.bincount(pixels.flatten(), minlength=LEVELS).double()  # (256,)
    levels = torch.arange(LEVELS, dtype=torch.float64, device=counts.device) / WHITE
    mean = (counts * levels).sum() / counts.sum()
    variance = (counts * (levels - mean) ** 2).sum() / counts.sum()
    return float(mean), float(variance.sqrt())


def _moments(values: Tensor) -> tuple[float, float]:
    variance, mean = torch.var_mean(values.double(), correction=0)
    return float(mean), float(variance.sqrt())


def _numbers(data: Mapping[str, object], name: str) -> tuple[float, ...]:
    values = data.get(name)
    if not isinstance(values, list | tuple) or not all(_is_number(value) for value in values):
        raise UsageError(f"normalization has {name} {values!r}; give a list of numbers, one a channel")
    return tuple(float(value) for value in values)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
