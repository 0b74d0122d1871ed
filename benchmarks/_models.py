"""The networks that are trained while recorders are timed, and one step of training them. No idea of recorders.

Inputs are random normal numbers (random tokens for the GPT): what a recorder costs does not depend on what is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from actograph import simple_cnn

NUM_BATCHES = 8  # kept in memory and used in turn: no loader is timed
NUM_CLASSES = 10
VOCABULARY, CONTEXT, WIDTH, HEADS, DEPTH = 256, 64, 128, 4, 3  # of the GPT

Batch = tuple[Tensor, Tensor]
MakeOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]

# so small a rate that thousands of steps leave the activations what they are
SGD: MakeOptimizer = partial(torch.optim.SGD, lr=1e-5, momentum=0.9)
ADAMW: MakeOptimizer = partial(torch.optim.AdamW, lr=1e-6)


@dataclass(frozen=True)
class Case:
    """A network with its batch and optimizer."""

    key: str
    title: str
    build: Callable[[], nn.Module]
    make_batch: Callable[[torch.Generator], Batch]
    make_optimizer: MakeOptimizer = SGD
    typical_step_s: float = 0.0  # on two cores, to estimate how long all will take


class Training:
    """A model, its optimizer and its batches; the same seed for everyone."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.case = case
        self.model = case.build()
        self.optimizer = case.make_optimizer(self.model.parameters())
        generator = torch.Generator().manual_seed(0)
        self.batches = [case.make_batch(generator) for _ in range(NUM_BATCHES)]

    def loss(self, batch: Batch) -> Tensor:
        x, y = batch
        return cross_entropy(self.model(x), y)

    def update(self, loss: Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    """Return the mean cross-entropy of predictions (..., classes)."""
    return nn.functional.cross_entropy(prediction.flatten(0, -2), target.flatten())


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions with a short cut (He et al. 2015, the basic block)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.act1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.act2 = nn.ReLU()
        self.short_cut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.short_cut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        return self.act2(inner + self.short_cut(x))


def resnet18() -> nn.Sequential:
    """Build ResNet-18 with the 3 x 3 stem that is usual for 32 x 32 pixels; 11.2 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    for inputs, outputs in pairwise((64, 64, 128, 256, 512)):
        layers += [ResidualBlock(inputs, outputs, 1 if inputs == outputs else 2)]
        layers += [ResidualBlock(outputs, outputs, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, NUM_CLASSES))


class AttentionBlock(nn.Module):
    """A GPT-2 block; every linear map is a leaf, so that recorders see queries, keys and values."""

    def __init__(self, width: int = WIDTH, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (batch, heads, length, width / heads) each
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.project(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.down(self.act(self.up(self.norm2(x))))


class SmallGPT(nn.Module):
    """Embeddings, attention blocks, logits."""

    def __init__(
        self, width: int = WIDTH, heads: int = HEADS, depth: int = DEPTH, context: int = CONTEXT
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(VOCABULARY, width)
        self.place = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*[AttentionBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.token(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.blocks(x)))


def tiny_chain(num_layers: int) -> Case:
    """Return a chain of linear layers of 4 x 8 values each: what a recorder costs apart from reading memory."""
    return Case(
        "tiny",
        f"{num_layers} layers of 4 x 8 values",
        lambda: nn.Sequential(*[nn.Linear(8, 8) for _ in range(num_layers)]),
        lambda generator: (torch.randn(4, 8, generator=generator), torch.zeros(4, dtype=torch.int64)),
    )


def _images(shape: tuple[int, ...], generator: torch.Generator) -> Batch:
    target = torch.randint(NUM_CLASSES, shape[:1], generator=generator)
    return torch.randn(shape, generator=generator), target


def _tokens(generator: torch.Generator) -> Batch:
    text = torch.randint(VOCABULARY, (16, CONTEXT + 1), generator=generator)
    return text[:, :-1].contiguous(), text[:, 1:].contiguous()


def _linear() -> nn.Module:
    return nn.Sequential(nn.Linear(784, NUM_CLASSES))


CASES = {
    case.key: case
    for case in (
        Case(
            "cnn64",
            "simple_cnn, batch 64 of 1x28x28",
            lambda: simple_cnn(NUM_CLASSES),
            partial(_images, (64, 1, 28, 28)),
            typical_step_s=0.008,
        ),
        Case(
            "cnn512",
            "simple_cnn, batch 512 of 1x28x28",
            lambda: simple_cnn(NUM_CLASSES),
            partial(_images, (512, 1, 28, 28)),
            typical_step_s=0.03,
        ),
        Case(
            "resnet",
            "ResNet-18, batch 16 of 3x32x32",
            resnet18,
            partial(_images, (16, 3, 32, 32)),
            typical_step_s=0.35,
        ),
        Case(
            "gpt",
            f"GPT, {DEPTH} blocks of width {WIDTH}, batch 16 x {CONTEXT} tokens",
            SmallGPT,
            _tokens,
            ADAMW,
            typical_step_s=0.045,
        ),
        Case(
            "linear",
            "linear 784-10, batch 64",
            _linear,
            partial(_images, (64, 784)),
            typical_step_s=0.0003,
        ),
    )
}
