"""The simple CNN: stride-2 convolutions that halve the grid and double the filters.

No idea of training.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from actograph.errors import UsageError
from actograph.models.blocks import ActivationFactory, Norm, check_count, conv_block


def simple_cnn(
    num_classes: int,
    in_channels: int = 1,
    channels: Sequence[int] = (8, 16, 32, 64),
    first_kernel: int = 5,
    norm: Norm = None,
    act: ActivationFactory = nn.ReLU,
) -> nn.Sequential:
    """Build stride-2 convolutions ``in_channels``-8-16-32-64-``num_classes``, then pool and flatten.

    Takes images (batch, in_channels, height, width) of any size, returns logits (batch, num_classes). The
    first kernel is larger: of one grey channel, 3 x 3 would give its 8 filters 9 inputs, 5 x 5 gives 25. The
    last block has neither normalisation nor activation, its outputs are the logits. At up to 32 pixels its
    grid is 1 x 1 and the pool does nothing. After Howard and Gugger, "Deep Learning for Coders" (2020),
    chapter 13.

    Raises UsageError for counts below 1, an even first kernel, no channels, or an unknown ``norm``.

    >>> [name for name, _ in simple_cnn(10).named_children()]
    ['block1', 'block2', 'block3', 'block4', 'block5', 'pool', 'flatten']
    """
    check_count("num_classes", num_classes)
    if not channels:
        raise UsageError("channels is empty; give the filters of each block, such as (8, 16, 32, 64)")
    if act is None:
        raise UsageError("act is None; without activations the network is linear: give one, such as nn.ReLU")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, kernel_size = in_channels, first_kernel
    for number, filters in enumerate(channels, start=1):
        layers[f"block{number}"] = conv_block(inputs, filters, kernel_size, act, norm)
        inputs, kernel_size = filters, 3
    layers[f"block{len(channels) + 1}"] = conv_block(inputs, num_classes, act=None, norm=None)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    return nn.Sequential(layers)
