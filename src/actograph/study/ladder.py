"""A ladder: convolutions of equal width on one grid, so that depth and activation are all that differs.

No idea of trainings. With equal shapes the gradients by the blocks' outputs can be compared as they are.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from actograph.models.activations import build_activation
from actograph.models.blocks import Norm
from actograph.models.network import Network

GRID = 7  # cells to a side that the stem aims at: 28 pixels by 4
FEATURES_GRID = 4  # cells to a side that the classifier sees
KERNEL = 3
WIDTH = 16  # filters of every block


def ladder(
    num_classes: int, input_size: tuple[int, ...], act: str, depth: int, norm: Norm = None, width: int = WIDTH
) -> Network:
    """Build ``depth`` blocks of convolution, normalisation where asked for, and activation; then pool and classify.

    The first block, the stem, brings images (channels, height, width) of any size to a grid of 7 to 13 cells in one stride;
    from there on all outputs have one shape. Weights and biases start as torch starts them.

    >>> ladder(10, (1, 28, 28), "tanh", 3)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    stride = max(min(input_size[1:]) // GRID, 1)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for number in range(1, depth + 1):
        layers[f"block{number}"] = _block(width, input_size[0], stride, act, norm, is_stem=number == 1)
    layers["pool"] = nn.AdaptiveAvgPool2d(FEATURES_GRID)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(width * FEATURES_GRID**2, num_classes)
    return Network(layers)


def _block(
    width: int, in_channels: int, stride: int, act: str, norm: Norm, *, is_stem: bool
) -> nn.Sequential:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    kernel = stride // 2 * 2 + 1 if is_stem else KERNEL
    layers["conv"] = nn.Conv2d(
        in_channels if is_stem else width,
        width,
        max(kernel, KERNEL),
        stride=stride if is_stem else 1,
        padding=max(kernel, KERNEL) // 2,
        bias=norm is None,
    )
    if norm is not None:
        layers["norm"] = nn.BatchNorm2d(width)
    layers["act"] = build_activation(act)
    return nn.Sequential(layers)


@torch.no_grad()
def set_input_scale(model: Network, x: Tensor, std: float) -> None:
    """Scale each convolution's weights so that what goes into its activation has this standard deviation on the batch x.

    It is that of the samples and places about each filter's own mean; biases become 0. From the first block to the last,
    each on the outputs of those before (Mishkin and Matas 2016, "All you need is a good init", without its orthogonal part).
    """
    for block in model.children():
        if not isinstance(block, nn.Sequential):
            return
        conv = block[0]
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None, "a batch norm sets the scale itself"
        conv.bias.zero_()
        y = conv(x)  # (samples, filters, height, width)
        now = float((y - y.mean((0, 2, 3), keepdim=True)).square().mean().sqrt())
        conv.weight.mul_(std / now if now > 0 else 1.0)
        x = block(x)
