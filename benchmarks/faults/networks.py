"""The networks of the programs: what `torch.nn` has not ready-made.

No idea of data.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def mlp(sizes: list[int], nonlinearity: type[nn.Module], norm: type[nn.Module] | None = None) -> nn.Sequential:
    """Return linear layers with a nonlinearity between them; layers are called fc1, act1, fc2, ..., head."""
    layers = nn.Sequential(nn.Flatten())
    for number, (before, after) in enumerate(zip(sizes[:-2], sizes[1:-1], strict=True), 1):
        layers.add_module(f"fc{number}", nn.Linear(before, after))
        if norm is not None:
            layers.add_module(f"norm{number}", norm(after))
        layers.add_module(f"act{number}", nonlinearity())
    layers.add_module("head", nn.Linear(sizes[-2], sizes[-1]))
    return layers


class Residual(nn.Module):
    """Two convolutions with BatchNorm around a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu2 = nn.ReLU()
        same = before == after and stride == 1
        short = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.shortcut = nn.Identity() if same else short

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(y + self.shortcut(x))


class ResNet(nn.Module):
    """A stem and residual blocks."""

    def __init__(self, widths: tuple[int, ...] = (12, 24, 32), num_classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU()
        before = (widths[0], *widths[:-1])
        strides = (1, *[2] * (len(widths) - 1))
        self.blocks = nn.Sequential(*(Residual(*each) for each in zip(before, widths, strides, strict=True)))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.relu(self.bn(self.stem(x))))
        return self.head(self.pool(x).flatten(1))


class Recurrent(nn.Module):
    """A recurrent layer over rows (N, T, F) and a linear one on its last output."""

    def __init__(self, kind: type[nn.RNNBase], features: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.rnn = kind(features, width, batch_first=True)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Block(nn.Module):
    """One block of a transformer; ``post_norm`` normalizes after each sum, as the first transformers did."""

    def __init__(self, width: int, num_heads: int, *, post_norm: bool) -> None:
        super().__init__()
        self.num_heads, self.post_norm = num_heads, post_norm
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.up = nn.Linear(width, 4 * width)
        self.gelu = nn.GELU()
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.post_norm:
            x = self.norm1(x + self._attend(x))
            return self.norm2(x + self.down(self.gelu(self.up(x))))
        x = x + self._attend(self.norm1(x))
        return x + self.down(self.gelu(self.up(self.norm2(x))))

    def _attend(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(x).view(batch, length, 3, self.num_heads, width // self.num_heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.proj(y.transpose(1, 2).reshape(batch, length, width))


class GPT(nn.Module):
    """A small language model on characters: numbers (N, T) in, logits (N, C, T) out."""

    def __init__(
        self, num_tokens: int, context: int, width: int = 64, num_blocks: int = 2, *, post_norm: bool = False
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(num_tokens, width)
        self.positions = nn.Parameter(torch.zeros(context, width))
        self.blocks = nn.Sequential(*(Block(width, 4, post_norm=post_norm) for _ in range(num_blocks)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_tokens, bias=False)
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
        for name, parameter in self.named_parameters():
            if name.endswith(("proj.weight", "down.weight")):
                nn.init.normal_(parameter, std=0.02 / (2 * num_blocks) ** 0.5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.tokens(x) + self.positions[: x.shape[1]]
        return self.head(self.norm(self.blocks(x))).transpose(1, 2)


class Encoder(nn.Module):
    """PyTorch's own transformer encoder over rows (N, T, F), their mean, and a linear layer."""

    def __init__(self, features: int, length: int, width: int, num_blocks: int, num_classes: int) -> None:
        super().__init__()
        self.embed = nn.Linear(features, width)
        self.positions = nn.Parameter(0.02 * torch.randn(length, width))
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, num_blocks, enable_nested_tensor=False)
        self.head = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(self.embed(x) + self.positions).mean(1))


class ConvNet(nn.Module):
    """A tutorial's network: two convolutions, pooling, two linear layers, nonlinearities called as functions."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.fc1 = nn.Linear(16 * 2 * 2, 48)
        self.head = nn.Linear(48, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(nn.functional.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(nn.functional.relu(self.conv2(x)), 2)
        return self.head(nn.functional.relu(self.fc1(x.flatten(1))))
