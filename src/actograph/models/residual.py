"""A small residual network for small images.

No idea of training.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from actograph.models.activations import Activation, build_activation
from actograph.models.blocks import check_channels, check_count
from actograph.models.network import Network, config_with

CHANNELS = (16, 32, 64)  # of He et al. (2016), section 4.2


def resnet(
    num_classes: int,
    in_channels: int = 1,
    channels: Sequence[int] = CHANNELS,
    blocks: int = 1,
    act: Activation = nn.ReLU,
) -> Network:
    """Build a 3 x 3 stem, a stage of ``blocks`` residual blocks per entry of ``channels``, pool, and ``head``.

    Takes images (batch, in_channels, height, width) of any size, returns logits (batch, num_classes). Every
    stage but the first begins by halving the grid, rounded up: 28, 14, 7. With three stages it has 6 * ``blocks`` + 2
    layers: ResNet-8 with 1, ResNet-14 with 2, ResNet-20 with 3 (He et al. 2016, "Deep Residual Learning for
    Image Recognition", section 4.2). Convolutions start as torch starts them, each block as its shortcut.

    Raises UsageError for counts below 1, no channels, or an unknown ``act``.

    >>> [name for name, _ in resnet(10).named_children()]
    ['stem', 'block1', 'block2', 'block3', 'pool', 'flatten', 'head']
    """
    check_count("num_classes", num_classes)
    check_count("in_channels", in_channels)
    check_count("blocks", blocks)
    check_channels(channels)
    layers: OrderedDict[str, nn.Module] = OrderedDict(stem=_stem(in_channels, channels[0], act))
    widths = [channels[0], *(width for width in channels for _ in range(blocks))]
    for number, (inputs, outputs) in enumerate(pairwise(widths)):
        stride = 2 if number and number % blocks == 0 else 1
        layers[f"block{number + 1}"] = ResidualBlock(inputs, outputs, stride, act)
    layers["pool"] = nn.AdaptiveAvgPool2d(1)
    layers["flatten"] = nn.Flatten()
    layers["head"] = nn.Linear(channels[-1], num_classes)
    config = config_with(
        act,
        "resnet",
        num_classes=num_classes,
        in_channels=in_channels,
        channels=list(channels),
        blocks=blocks,
    )
    return Network(layers, config)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut: act(norm(conv(act(norm(conv(x))))) + shortcut(x)).

    The last norm's factor starts at 0, so that the block starts as its shortcut (Goyal et al. 2017, section
    5.1). Where the shape changes the shortcut is an average pool and a 1 x 1 convolution, which leaves out no
    pixel (He et al. 2019, "Bag of Tricks", ResNet-D).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, act: Activation) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.act1 = build_activation(act)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = _shortcut(in_channels, out_channels, stride)
        self.act2 = build_activation(act)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, in_channels, height, width) to (batch, out_channels, height / stride, width / stride)."""
        residual = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        y: Tensor = self.act2(residual + self.shortcut(x))
        return y


def _stem(in_channels: int, out_channels: int, act: Activation) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out_channels), act=build_activation(act)))


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if stride > 1:
        layers["pool"] = nn.AvgPool2d(stride, ceil_mode=True)
    if in_channels != out_channels:
        layers["conv"] = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        layers["norm"] = nn.BatchNorm2d(out_channels)
    return nn.Sequential(layers) if layers else nn.Identity()
