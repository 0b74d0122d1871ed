"""The output grid of convolutions and pools by formula, and their windows.

No idea of running a layer: it reads the layer's settings only.
"""

from __future__ import annotations

from math import prod
from typing import TypeAlias

from torch import nn

from actograph.models.shapes import Shape, Window

Convolution: TypeAlias = nn.Conv1d | nn.Conv2d | nn.Conv3d
Transposed: TypeAlias = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
MaxPool: TypeAlias = nn.MaxPool1d | nn.MaxPool2d | nn.MaxPool3d
AvgPool: TypeAlias = nn.AvgPool1d | nn.AvgPool2d | nn.AvgPool3d
AdaptiveAvgPool: TypeAlias = nn.AdaptiveAvgPool1d | nn.AdaptiveAvgPool2d | nn.AdaptiveAvgPool3d
AdaptiveMaxPool: TypeAlias = nn.AdaptiveMaxPool1d | nn.AdaptiveMaxPool2d | nn.AdaptiveMaxPool3d

# number of grid axes (the last of input and output) -> the layers that have them
GRID_LAYERS: dict[int, tuple[type[nn.Module], ...]] = {
    1: (
        nn.Conv1d,
        nn.ConvTranspose1d,
        nn.MaxPool1d,
        nn.AvgPool1d,
        nn.AdaptiveAvgPool1d,
        nn.AdaptiveMaxPool1d,
    ),
    2: (
        nn.Conv2d,
        nn.ConvTranspose2d,
        nn.MaxPool2d,
        nn.AvgPool2d,
        nn.AdaptiveAvgPool2d,
        nn.AdaptiveMaxPool2d,
    ),
    3: (
        nn.Conv3d,
        nn.ConvTranspose3d,
        nn.MaxPool3d,
        nn.AvgPool3d,
        nn.AdaptiveAvgPool3d,
        nn.AdaptiveMaxPool3d,
    ),
}


def grid_axes(module: nn.Module) -> int | None:
    """Return how many of the last axes are the grid; None for layers that have none by definition."""
    return next((axes for axes, kinds in GRID_LAYERS.items() if isinstance(module, kinds)), None)


def window_length(n: int, k: int, s: int, p: int, d: int = 1) -> int:
    """Return how many windows fit on one axis: (n + 2p - d(k - 1) - 1) // s + 1.

    n: input length, k: kernel, s: stride, p: padding on each side, d: dilation. For d = 1 this is
    (n + 2p - k) // s + 1.

    >>> window_length(28, k=5, s=2, p=2)
    14
    """
    return (n + 2 * p - d * (k - 1) - 1) // s + 1


def predicted_grid(module: nn.Module, input_grid: Shape) -> Shape | None:
    """Return the output grid that the layer's settings promise; None where there is no formula."""
    if isinstance(module, Convolution):
        return _conv_grid(module, input_grid)
    if isinstance(module, Transposed):
        return _transposed_grid(module, input_grid)
    if isinstance(module, MaxPool | AvgPool):
        return _pool_grid(module, input_grid)
    if isinstance(module, AdaptiveAvgPool | AdaptiveMaxPool):
        size = module.output_size
        wanted = size if isinstance(size, tuple | list) else (size,) * len(input_grid)
        return tuple(n if want is None else want for n, want in zip(input_grid, wanted, strict=True))
    return None


def window_of(module: nn.Module) -> Window | None:
    """Return the layer's window; None for layers without one."""
    axes = grid_axes(module)
    if axes is None:
        return None
    if isinstance(module, Convolution):
        inputs = prod(module.kernel_size) * module.in_channels // module.groups
        return Window(module.kernel_size, module.stride, inputs, module.out_channels // module.groups)
    if isinstance(module, Transposed | MaxPool | AvgPool):
        return Window(_per_axis(module.kernel_size, axes), _per_axis(module.stride, axes))
    return None


def _conv_grid(conv: Convolution, grid: Shape) -> Shape:
    if conv.padding == "same":  # torch allows it for stride 1 only
        return grid
    padding = (0,) * len(grid) if isinstance(conv.padding, str) else conv.padding
    axes = zip(grid, conv.kernel_size, conv.stride, padding, conv.dilation, strict=True)
    return tuple(window_length(n, k, s, p, d) for n, k, s, p, d in axes)


def _transposed_grid(conv: Transposed, grid: Shape) -> Shape:
    axes = zip(
        grid, conv.kernel_size, conv.stride, conv.padding, conv.dilation, conv.output_padding, strict=True
    )
    return tuple((n - 1) * s - 2 * p + d * (k - 1) + extra + 1 for n, k, s, p, d, extra in axes)


def _pool_grid(pool: MaxPool | AvgPool, grid: Shape) -> Shape:
    dilation = 1 if isinstance(pool, AvgPool) else pool.dilation
    settings = (pool.kernel_size, pool.stride, pool.padding, dilation)
    axes = zip(grid, *(_per_axis(setting, len(grid)) for setting in settings), strict=True)
    return tuple(_pool_length(n, k, s, p, d, ceil_mode=pool.ceil_mode) for n, k, s, p, d in axes)


def _pool_length(n: int, k: int, s: int, p: int, d: int, *, ceil_mode: bool) -> int:
    """With ceil_mode a last, incomplete window counts too, unless it would begin in the right padding."""
    if not ceil_mode:
        return window_length(n, k, s, p, d)
    length = -(-(n + 2 * p - d * (k - 1) - 1) // s) + 1
    return length - 1 if (length - 1) * s >= n + p else length


def _per_axis(setting: int | Shape, axes: int) -> Shape:
    return tuple(setting) if isinstance(setting, tuple | list) else (setting,) * axes
