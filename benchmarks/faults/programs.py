"""The programs: fifteen small trainings that go well, in two halves. Thresholds of rules are chosen on the tuning half only.

No idea of faults.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from faults import data
from faults.networks import GPT, ConvNet, Encoder, Recurrent, ResNet, mlp
from faults.setting import Data, Program, Setting, accuracy, binary_accuracy, r_squared

CONTEXT = 24  # characters


def cosine(num_steps: int, warm_up: int = 0) -> Callable[[int], float]:
    """Return the factor of a rate that rises linearly and falls as a half cosine to a hundredth."""

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        share = min((step - warm_up) / max(num_steps - warm_up, 1), 1.0)
        return 0.01 + 0.99 * (1 + math.cos(math.pi * share)) / 2

    return factor


def one_cycle(num_steps: int, low: float = 0.04) -> Callable[[int], float]:
    """Return the factor of a rate that rises in the first 30 % and falls in the rest."""

    def factor(step: int) -> float:
        share = step / num_steps
        if share < 0.3:
            return low + (1 - low) * (1 - math.cos(math.pi * share / 0.3)) / 2
        return 1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * min((share - 0.3) / 0.7, 1.0))) / 2

    return factor


def _classifier(model: nn.Module, parts: data.Parts, **rest: Any) -> Setting:
    train, valid, test = parts
    return Setting(model, nn.CrossEntropyLoss(), train, valid, test, accuracy, **rest)


def _digits(seed: int) -> data.Parts:
    found = data.digits()
    return data.standardized(data.split(found.x, found.y, seed, 1200, 250))


def _mnist(seed: int) -> data.Parts:
    found = data.mnist()
    return data.standardized(data.split(found.x, found.y, seed, 3000, 500))


def make_mlp(seed: int) -> Setting:
    """ReLU, SGD with momentum, digits."""
    return _classifier(
        mlp([64, 64, 64, 10], nn.ReLU), _digits(seed), optimizer=torch.optim.SGD, options={"lr": 0.05, "momentum": 0.9}
    )


def make_deep(seed: int) -> Setting:
    """Eight layers of tanh, Xavier's initialization, Adam, digits."""
    model = mlp([64, *[48] * 8, 10], nn.Tanh)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_normal_(module.weight, gain=1.2)
            nn.init.zeros_(module.bias)
    return _classifier(
        model, _digits(seed), optimizer=torch.optim.Adam, options={"lr": 1e-3}, num_steps=400, eval_every=40
    )


def make_resnet(seed: int) -> Setting:
    """Residual blocks with BatchNorm, SGD with momentum and a cosine, MNIST."""
    return _classifier(
        ResNet(), _mnist(seed), optimizer=torch.optim.SGD,
        options={"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}, num_steps=200, eval_every=25, schedule=cosine(200),
    )  # fmt: skip


def make_lstm(seed: int) -> Setting:
    """An LSTM over the rows of the digits, Adam, clipped."""
    return _classifier(
        Recurrent(nn.LSTM, 8, 48, 10), _digits(seed), optimizer=torch.optim.Adam, options={"lr": 5e-3}, clip=1.0
    )


def make_friedman(seed: int) -> Setting:
    """Regression with ReLU and Adam on Friedman's function; targets standardized."""
    found = data.friedman(seed)
    y = (found.y - found.y.mean()) / found.y.std()
    parts = data.standardized(data.split(found.x, y, seed, 1200, 300), per_feature=True)
    return Setting(
        mlp([10, 64, 64, 1], nn.ReLU), nn.MSELoss(), *parts, r_squared, torch.optim.Adam, {"lr": 3e-3}
    )


def make_encoder(seed: int) -> Setting:
    """PyTorch's transformer encoder (normalized after its sums) over the rows of the digits, Adam with warm-up."""
    return _classifier(
        Encoder(8, 8, 24, 4, 10), _digits(seed), optimizer=torch.optim.Adam, options={"lr": 6e-3}, num_steps=240,
        eval_every=30, schedule=cosine(240, warm_up=40),
    )  # fmt: skip


def make_convnet(seed: int) -> Setting:
    """Convolutions with pooling and ReLU, all but the weights functional, Adam, digits."""
    parts = tuple(Data(part.x[:, None], part.y) for part in _digits(seed))
    return _classifier(ConvNet(), parts, optimizer=torch.optim.Adam, options={"lr": 2e-3})


def make_cancer(seed: int) -> Setting:
    """Two classes by one logit: ReLU, SGD with momentum on 569 biopsies."""
    found = data.cancer()
    parts = data.standardized(data.split(found.x, found.y, seed, 380, 90), per_feature=True)
    return Setting(
        mlp([30, 32, 32, 1], nn.ReLU), nn.BCEWithLogitsLoss(), *parts, binary_accuracy, torch.optim.SGD,
        {"lr": 0.02, "momentum": 0.9}, batch_size=20, num_steps=240, eval_every=24,
    )  # fmt: skip


def make_autoencoder(seed: int) -> Setting:
    """Digits through a bottleneck and back: ReLU, Adam, squared error."""
    x = data.digits().x.flatten(1) / 8 - 1
    parts = data.split(x, x, seed, 1200, 250)
    return Setting(
        mlp([64, 64, 12, 64, 64], nn.ReLU), nn.MSELoss(), *parts, r_squared, torch.optim.Adam, {"lr": 3e-3}
    )


def make_cnn(seed: int) -> Setting:
    """Convolutions with ReLU and dropout, Adam, MNIST."""
    model = nn.Sequential()
    widths = (1, 8, 16, 32)
    for number, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True), 1):
        model.add_module(f"conv{number}", nn.Conv2d(before, after, 5 if number == 1 else 3, 1 if number == 1 else 2, padding=1))
        model.add_module(f"relu{number}", nn.ReLU())
    model.add_module("flatten", nn.Flatten())
    model.add_module("dropout", nn.Dropout(0.25))
    model.add_module("head", nn.Linear(32 * 3 * 3, 10))
    return _classifier(
        model, _mnist(seed), optimizer=torch.optim.Adam, options={"lr": 2e-3}, num_steps=300, eval_every=30
    )


def make_vgg(seed: int) -> Setting:
    """Convolutions with BatchNorm, AdamW with one cycle, MNIST."""
    model = nn.Sequential()
    widths = (1, 12, 16, 24, 32)
    for number, (before, after) in enumerate(zip(widths[:-1], widths[1:], strict=True), 1):
        stride = 2 if number in (2, 4) else 1
        model.add_module(f"conv{number}", nn.Conv2d(before, after, 3, stride, padding=1, bias=False))
        model.add_module(f"bn{number}", nn.BatchNorm2d(after))
        model.add_module(f"relu{number}", nn.ReLU())
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flatten", nn.Flatten())
    model.add_module("head", nn.Linear(32, 10))
    return _classifier(
        model, _mnist(seed), optimizer=torch.optim.AdamW, options={"lr": 1e-2, "weight_decay": 1e-2}, num_steps=200,
        eval_every=25, schedule=one_cycle(200),
    )  # fmt: skip


def make_gpt(seed: int) -> Setting:
    """A transformer on characters, AdamW with warm-up and cosine, clipped."""
    _, num_tokens = data.text()
    parts = data.passages(seed, CONTEXT, (6000, 200, 200))
    return _classifier(
        GPT(num_tokens, CONTEXT, width=48), parts, optimizer=torch.optim.AdamW, options={"lr": 4e-3, "weight_decay": 0.1},
        batch_size=32, num_steps=300, eval_every=50, schedule=cosine(300, warm_up=30), clip=1.0,
    )  # fmt: skip


def make_gru(seed: int) -> Setting:
    """A GRU over the rows of MNIST, Adam, clipped."""
    train, valid, test = (Data(part.x[:, 0], part.y) for part in _mnist(seed))
    return _classifier(
        Recurrent(nn.GRU, 14, 48, 10), (train, valid, test), optimizer=torch.optim.Adam, options={"lr": 5e-3}, clip=1.0
    )


def make_table(seed: int) -> Setting:
    """GELU and LayerNorm, AdamW with a cosine, a synthetic table of four classes."""
    found = data.table(seed)
    parts = data.standardized(data.split(found.x, found.y, seed, 2400, 500), per_feature=True)
    return _classifier(
        mlp([20, 64, 64, 64, 4], nn.GELU, nn.LayerNorm), parts, optimizer=torch.optim.AdamW,
        options={"lr": 3e-3, "weight_decay": 1e-2}, schedule=cosine(300),
    )  # fmt: skip


def make_diabetes(seed: int) -> Setting:
    """Regression with tanh and SGD on 442 patients; targets standardized."""
    found = data.diabetes()
    y = (found.y - found.y.mean()) / found.y.std()
    parts = data.standardized(data.split(found.x, y, seed, 280, 62), per_feature=True)
    return Setting(
        mlp([10, 32, 32, 1], nn.Tanh), nn.MSELoss(), *parts, r_squared, torch.optim.SGD,
        {"lr": 0.01, "momentum": 0.9, "weight_decay": 1e-2}, batch_size=28, num_steps=200, eval_every=20,
    )  # fmt: skip


PROGRAMS = {
    program.name: program
    for program in (
        Program("mlp", "tuning", make_mlp),
        Program("deep", "tuning", make_deep),
        Program("resnet", "tuning", make_resnet),
        Program("lstm", "tuning", make_lstm),
        Program("friedman", "tuning", make_friedman),
        Program("encoder", "tuning", make_encoder),
        Program("convnet", "tuning", make_convnet),
        Program("cancer", "tuning", make_cancer),
        Program("autoencoder", "tuning", make_autoencoder),
        Program("cnn", "test", make_cnn),
        Program("vgg", "test", make_vgg),
        Program("gpt", "test", make_gpt),
        Program("gru", "test", make_gru),
        Program("table", "test", make_table),
        Program("diabetes", "test", make_diabetes),
    )
}
