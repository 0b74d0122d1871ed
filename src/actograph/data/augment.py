"""Random changes to whole batches of images, where they lie: a fixed number of torch calls whatever the batch.

No idea of loaders: a transform is any function of (x, generator) that returns the changed x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - as everyone calls it

from actograph.errors import UsageError

# x: floating point (samples, channels, height, width); the generator is on the device of x.
Transform: TypeAlias = Callable[[Tensor, torch.Generator], Tensor]
Border: TypeAlias = Literal["zeros", "border", "reflection"]  # as torch's grid_sample calls them

BORDERS: tuple[Border, ...] = ("border", "reflection", "zeros")
PAD_MODES = {
    "zeros": "constant",
    "border": "replicate",
    "reflection": "reflect",
}  # the same, as F.pad calls them


@dataclass(frozen=True, slots=True)
class Compose:
    """Apply transforms one after the other, all with the same generator.

    >>> changed = Compose((RandomCrop(2), RandomHorizontalFlip()))(torch.rand(8, 3, 32, 32), torch.Generator())
    >>> changed.shape
    torch.Size([8, 3, 32, 32])
    """

    transforms: tuple[Transform, ...]

    def __post_init__(self) -> None:
        for transform in self.transforms:
            if not callable(transform):
                raise UsageError(f"{transform!r} is no transform; give functions of (x, generator)")

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        for transform in self.transforms:
            x = transform(x, generator)
        return x


@dataclass(frozen=True, slots=True)
class RandomCrop:
    """Shift each image by up to ``padding`` pixels along both axes, each shift as likely as the others.

    The image is padded on all sides and a window of its own size is cut out, as He et al. (2016) do for
    CIFAR. ``border`` says what comes in from outside: the mirrored image ("reflection", which needs sides
    longer than the padding), its outermost pixels ("border"), or zeros, which are grey once normalised.
    """

    padding: int
    border: Border = "reflection"

    def __post_init__(self) -> None:
        _check_pixels("padding", self.padding)
        _check_border(self.border)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        _check_images(x)
        samples, _, height, width = x.shape
        if self.border == "reflection" and self.padding >= min(height, width):
            raise UsageError(
                f"padding is {self.padding}, but images of {height} x {width} can be mirrored by at most "
                f"{min(height, width) - 1} pixels; give less, or border='border'"
            )
        padded = F.pad(x, (self.padding,) * 4, mode=PAD_MODES[self.border])
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (n, c, top, left, height, width), a view
        top, left = torch.randint(2 * self.padding + 1, (2, samples), generator=generator, device=x.device)
        return windows[torch.arange(samples, device=x.device), :, top, left]


@dataclass(frozen=True, slots=True)
class RandomHorizontalFlip:
    """Mirror each image left to right with probability ``p``."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_share("p", self.p)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        _check_images(x)
        return torch.where(_chosen(x, self.p, generator), x.flip(3), x)


@dataclass(frozen=True, slots=True)
class RandomVerticalFlip:
    """Mirror each image top to bottom with probability ``p``."""

    p: float = 0.5

    def __post_init__(self) -> None:
        _check_share("p", self.p)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        _check_images(x)
        return torch.where(_chosen(x, self.p, generator), x.flip(2), x)


@dataclass(frozen=True, slots=True)
class RandomAffine:
    """Rotate, scale, shear and shift each image by amounts drawn evenly from both directions.

    ``degrees``: up to so many degrees either way. ``scale``: by a factor from 1 - scale to 1 + scale.
    ``shear``: up to so many degrees along the rows. ``translate``: up to so many pixels along each axis, whole
    or not. All about the centre, in one bilinear `affine`; ``border`` says what comes in from outside.

    >>> RandomAffine(degrees=10, scale=0.1, translate=2)(torch.rand(8, 1, 28, 28), torch.Generator()).shape
    torch.Size([8, 1, 28, 28])
    """

    degrees: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    translate: float = 0.0
    border: Border = "border"

    def __post_init__(self) -> None:
        _check_range("degrees", self.degrees, 180)
        _check_range("scale", self.scale, 1, is_open=True)
        _check_range("shear", self.shear, 90, is_open=True)
        _check_range("translate", self.translate, math.inf, is_open=True)
        _check_border(self.border)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        _check_images(x)
        drawn = torch.rand(5, len(x), generator=generator, device=x.device) * 2 - 1  # -1 to 1
        angle, factor, shear, right, down = drawn
        return affine(
            x,
            degrees=angle * self.degrees,
            scale=1 + factor * self.scale,
            shear=shear * self.shear,
            right=right * self.translate,
            down=down * self.translate,
            border=self.border,
        )


def affine(
    x: Tensor,
    *,
    degrees: Tensor,
    scale: Tensor,
    shear: Tensor,
    right: Tensor,
    down: Tensor,
    border: Border = "border",
) -> Tensor:
    """Shear each image, rotate it clockwise, scale it about its centre, then shift it; bilinear.

    x: (samples, channels, height, width); the others: (samples,), angles in degrees, shifts in pixels.
    """
    angle, slope = torch.deg2rad(degrees), torch.tan(torch.deg2rad(shear))
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    # What grid_sample wants is the way back: pixel (u, v) of the result is taken from A^-1 ((u, v) - shift).
    # A = scale * rotation * [[1, slope], [0, 1]], so A^-1 = [[1, -slope], [0, 1]] * rotation^T / scale,
    # in pixels from the centre; torch counts from -1 to 1 on both axes.
    (a, b), (c, d) = (cos + slope * sin, sin - slope * cos), (-sin, cos)
    height, width = x.shape[2:]
    to_x = [a, b * (height / width), (a * right + b * down) * (-2 / width)]
    to_y = [c * (width / height), d, (c * right + d * down) * (-2 / height)]
    matrix = torch.stack(to_x + to_y, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(matrix.to(x.dtype), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode=border, align_corners=False)


@dataclass(frozen=True, slots=True)
class Cutout:
    """Blank a square of ``size`` pixels, with probability ``p``, in each image (DeVries and Taylor 2017).

    Its centre is any pixel of the image, so that part of the square may lie outside. Blank is ``fill``: 0 is
    the mean of normalised images.
    """

    size: int
    p: float = 1.0
    fill: float = 0.0

    def __post_init__(self) -> None:
        _check_pixels("size", self.size)
        _check_share("p", self.p)

    def __call__(self, x: Tensor, generator: torch.Generator) -> Tensor:
        _check_images(x)
        samples, _, height, width = x.shape
        row = torch.randint(height, (samples, 1, 1, 1), generator=generator, device=x.device)
        column = torch.randint(width, (samples, 1, 1, 1), generator=generator, device=x.device)
        is_blank = _near(row, height, self.size).unsqueeze(3) & _near(column, width, self.size).unsqueeze(2)
        return x.masked_fill(is_blank & _chosen(x, self.p, generator), self.fill)


def _near(centre: Tensor, length: int, size: int) -> Tensor:
    """Tell which positions 0..length-1 a window of ``size`` covers: (samples, 1, length)."""
    first = centre.view(-1, 1, 1) - size // 2
    position = torch.arange(length, device=centre.device)
    return (position >= first) & (position < first + size)


def _chosen(x: Tensor, p: float, generator: torch.Generator) -> Tensor:
    """Draw which samples to change: bool (samples, 1, 1, 1)."""
    return torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < p


def _check_images(x: Tensor) -> None:
    if x.ndim != 4 or not x.is_floating_point():  # noqa: PLR2004 - samples, channels, height, width
        raise UsageError(
            f"x is {x.dtype} of shape {tuple(x.shape)}; augmentations take floating point images "
            "(samples, channels, height, width)"
        )


def _check_pixels(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise UsageError(f"{name} is {value!r}; give a whole number of pixels of at least 0")


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UsageError(f"{name} is {value!r}; give a probability from 0 to 1")


def _check_range(name: str, value: float, most: float, *, is_open: bool = False) -> None:
    if not (0 <= value < most if is_open else 0 <= value <= most):
        raise UsageError(
            f"{name} is {value!r}; give at least 0 and {'below' if is_open else 'at most'} {most}"
        )


def _check_border(border: Border) -> None:
    if border not in BORDERS:
        raise UsageError(f"border is {border!r}; give one of {', '.join(map(repr, BORDERS))}")
