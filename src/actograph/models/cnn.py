"""The simple CNN: stride-2 convolutions that halve the grid and double the filters.

No idea of training.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import nn

from actograph.errors import UsageError
from actograph.models.activations import Activation
from actograph.models.blocks import Norm, check_channels, check_count, check_kernel, conv_block
from actograph.models.network import Network, config_with

CHANNELS = (8, 16, 32, 64)


def simple_cnn(
    num_classes: int,
    in_channels: int = 1,
    channels: Sequence[int] = CHANNELS,
    first_kernel: int = 5,
    norm: Norm = None,
    act: Activation = nn.ReLU,
    kernel_size: int = 3,
) -> Network:
    """Build stride-2 convolutions ``in_channels``-8-16-32-64-``num_classes``, then pool and flatten.

    Takes images (batch, in_channels, height, width) of any size, returns logits (batch, num_classes). The
    first kernel is larger: of one grey channel, 3 x 3 would give its 8 filters 9 inputs, 5 x 5 gives 25. The
    last block has neither normalisation nor activation, its outputs are the logits. At up to 32 pixels its
    grid is 1 x 1 and the pool does nothing. ``act`` is a class, a function, or a name such as "leaky_relu". After
    Howard and Gugger, "Deep Learning for Coders" (2020), chapter 13.

    Raises UsageError for counts below 1, an even kernel, no channels, or an unknown ``norm`` or ``act``.

    >>> [name for name, _ in simple_cnn(10).named_children()]
    ['block1', 'block2', 'block3', 'block4', 'block5', 'pool', 'flatten']
    """
    check_count("num_classes", num_classes)
    check_channels(channels)
    check_kernel("first_kernel", first_kernel)
    if act is None:
        raise UsageError("act is None; without activations the network is linear: give one, such as nn.ReLU")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    inputs, kernel = in_channels, first_kernel
    for number, filters in enumerate(channels, start=1):
        layers[f"block{number}"] = conv_block(inputs, filters, kernel, act, norm)
        inputs, kernel = filters, kernel_size
    layers[f"block{len(channels) + 1}"] = conv_block(inputs, num_classes, kernel, act=None, norm=None)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    config = config_with(
        act,
        "simple_cnn",
        num_classes=num_classes,
        in_channels=in_channels,
        channels=list(channels),
        first_kernel=first_kernel,
        norm=norm,
        kernel_size=kernel_size,
    )
    return Network(layers, config)
