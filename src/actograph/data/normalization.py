"""Shift and scale of image channels, measured on the training part.

No idea of files.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

WHITE = 255  # the largest value of a uint8 pixel
LEVELS = 256


@dataclass(frozen=True, slots=True)
class Normalization:
    """Mean and standard deviation of each channel, of pixel values scaled to 0..1."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def apply(self, pixels: Tensor) -> Tensor:
        """Turn uint8 pixels (samples, channels, height, width) into float32 of mean 0 and std 1.

        >>> Normalization(mean=(0.5,), std=(0.25,)).apply(torch.full((1, 1, 1, 1), 255, dtype=torch.uint8))
        tensor([[[[2.]]]])
        """
        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return pixels.float().div_(WHITE).sub_(mean).div_(std)


def measure_normalization(pixels: Tensor) -> Normalization:
    """Measure mean and population std of each channel of uint8 pixels, (samples, channels, height, width).

    Exact, because it goes over the counts of the 256 levels. A channel that never changes gets the std 1.
    """
    moments = [_level_moments(pixels[:, channel]) for channel in range(pixels.shape[1])]
    return Normalization(tuple(mean for mean, _ in moments), tuple(std or 1.0 for _, std in moments))


def _level_moments(pixels: Tensor) -> tuple[float, float]:
    counts = torch.bincount(pixels.flatten(), minlength=LEVELS).double()  # (256,)
    levels = torch.arange(LEVELS, dtype=torch.float64, device=counts.device) / WHITE
    mean = (counts * levels).sum() / counts.sum()
    variance = (counts * (levels - mean) ** 2).sum() / counts.sum()
    return float(mean), float(variance.sqrt())
