"""One stride-2 convolution with its normalisation and activation, as named layers.

No idea of the network around it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal, TypeAlias

from torch import nn

from actograph.errors import UsageError
from actograph.models.activations import Activation, build_activation

Norm: TypeAlias = Literal["batch"] | None

STRIDE = 2
NORMS: tuple[Norm, ...] = (None, "batch")


def conv_block(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    act: Activation | None = nn.ReLU,
    norm: Norm = None,
) -> nn.Sequential:
    """Build a stride-2 convolution, then the normalisation and the activation that are asked for.

    The children are called ``conv``, ``norm`` and ``act``: these names are what a report shows. An odd
    kernel with padding ``kernel_size // 2`` halves the grid, rounded up: 28, 14, 7, 4, 2, 1. The convolution
    has no bias before a batch norm, which would subtract it again. Weights start as torch starts them.

    Raises UsageError for a channel count or kernel below 1, an even kernel, an unknown ``norm`` or ``act``.

    >>> conv_block(1, 8, kernel_size=5)
    Sequential(
      (conv): Conv2d(1, 8, kernel_size=(5, 5), stride=(2, 2), padding=(2, 2))
      (act): ReLU()
    )
    """
    check_count("in_channels", in_channels)
    check_count("out_channels", out_channels)
    check_kernel("kernel_size", kernel_size)
    check_norm(norm)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["conv"] = nn.Conv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride=STRIDE,
        padding=kernel_size // 2,
        bias=norm != "batch",
    )
    if norm == "batch":
        layers["norm"] = nn.BatchNorm2d(out_channels)
    if act is not None:
        layers["act"] = build_activation(act)
    return nn.Sequential(layers)


def check_count(name: str, value: int) -> None:
    """Refuse what is not a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name} is {value!r}; give a whole number of at least 1")


def check_counts(name: str, values: Sequence[int]) -> None:
    """Refuse what is not a list or tuple of whole numbers of at least 1; an empty one is none."""
    if not isinstance(values, list | tuple):
        raise UsageError(f"{name} is {values!r}; give a list of whole numbers, such as (16, 32, 64)")
    for index, value in enumerate(values):
        check_count(f"{name}[{index}]", value)


def check_channels(channels: Sequence[int]) -> None:
    """Refuse channels that are no counts, and none at all."""
    check_counts("channels", channels)
    if not channels:
        raise UsageError("channels is empty; give the filters of each block, such as (8, 16, 32, 64)")


def check_kernel(name: str, value: int) -> None:
    """Refuse an even kernel, with which ``value // 2`` of padding does not halve the grid."""
    check_count(name, value)
    if value % 2 == 0:
        raise UsageError(f"{name} is {value}; give an odd number (3 or 5), so that stride 2 halves the grid")


def check_norm(norm: Norm) -> None:
    """Refuse a normalisation that does not exist."""
    if norm not in NORMS:
        raise UsageError(f"norm is {norm!r}; give 'batch' or None")
