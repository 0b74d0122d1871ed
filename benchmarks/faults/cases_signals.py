"""Faults of initialization, activations, norms and precision.

No idea of how they are found.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from faults.case import Case, Change, replace_modules, scale_weights, weight_layers
from faults.loop import Loop
from faults.networks import mlp
from faults.setting import Data, Setting

ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.GELU)
NORMS = (_NormBase, nn.LayerNorm)


def constant_weights(value: float) -> Change:
    """F07: every weight of the hidden layers is the same number."""

    def apply(setting: Setting) -> None:
        for _, module in weight_layers(setting.model):
            nn.init.constant_(module.weight, value)
            if module.bias is not None:
                nn.init.zeros_(module.bias)

    return apply


def scaled_hidden(factor: float) -> Change:
    """F08, F09: the weights of all layers but the last are too large or too small."""
    return lambda setting: scale_weights(setting, factor, [name for name, _ in weight_layers(setting.model)][:-1])


def scaled_layer(name: str, factor: float) -> Change:
    """F08: the weights of one layer are too large."""
    return lambda setting: scale_weights(setting, factor, [name])


def scaled_head(factor: float) -> Change:
    """F10: the weights of the last layer are too large."""
    return lambda setting: scale_weights(setting, factor, [weight_layers(setting.model)[-1][0]])


def sure_of_one_class(setting: Setting) -> None:
    """F10: the bias of one class is large."""
    with torch.no_grad():
        weight_layers(setting.model)[-1][1].bias[0] += 12.0


def dead_from(name: str, t0: int) -> Change:
    """F11: the biases of a layer fall so far that no unit fires."""

    def kill(loop: Loop) -> None:
        with torch.no_grad():
            loop.model.get_submodule(name).bias.sub_(30.0)

    return lambda setting: setting.at(t0, kill)


def saturated_from(t0: int, *names: str, factor: float = 40.0) -> Change:
    """F12: the weights of layers in front of tanh grow so much that it saturates."""

    def grow(loop: Loop) -> None:
        with torch.no_grad():
            for name in names:
                loop.model.get_submodule(name).weight.mul_(factor)

    return lambda setting: setting.at(t0, grow)


def deep(depth: int, act: Callable[[], nn.Module], norm: type[nn.Module] | None = None, width: int = 48) -> Change:
    """Replace the network by a deep one of linear layers."""

    def apply(setting: Setting) -> None:
        linear = [module for _, module in weight_layers(setting.model)]
        setting.model = mlp([linear[0].in_features, *[width] * depth, linear[-1].out_features], act, norm)

    return apply


def replaced(kinds: tuple[type[nn.Module], ...], make: Callable[[], nn.Module]) -> Change:
    """F13, F14, F15, F21: every module of some kinds is another."""
    return lambda setting: replace_modules(
        setting.model, lambda _, module: make() if isinstance(module, kinds) else None
    )


def batches_of(size: int) -> Change:
    """F19: few samples a batch."""

    def apply(setting: Setting) -> None:
        setting.batch_size = size

    return apply


def norm_momentum(value: float) -> Change:
    """F20: running statistics never move."""

    def apply(setting: Setting) -> None:
        for module in setting.model.modules():
            if isinstance(module, _NormBase):
                module.momentum = value

    return apply


def in_half(setting: Setting) -> None:
    """Everything is float16, but for the loss."""
    setting.model.half()
    for name in ("train", "valid", "test"):
        part: Data = getattr(setting, name)
        y = part.y.half() if part.y.is_floating_point() else part.y
        setattr(setting, name, Data(part.x.half(), y))
    loss = setting.loss
    setting.loss = lambda outputs, targets: loss(outputs.float(), targets.float() if targets.is_floating_point() else targets)
    setting.optimizer, setting.options = torch.optim.SGD, {"lr": 0.03, "momentum": 0.9}


def overflowing(name: str, t0: int) -> Change:
    """F41a: outputs of a layer pass the largest number of float16."""

    def grow(loop: Loop) -> None:
        with torch.no_grad():
            loop.model.get_submodule(name).weight.clamp_(-0.5, 0.5).mul_(1.2e5)

    def apply(setting: Setting) -> None:
        in_half(setting)
        setting.at(t0, grow)

    return apply


def tiny_loss(factor: float) -> Change:
    """F41b: the loss, and so each gradient, is too small for float16; the rate would make up for it."""

    def apply(setting: Setting) -> None:
        in_half(setting)
        loss = setting.loss

        def scaled(outputs: Tensor, targets: Tensor) -> Tensor:
            return factor * loss(outputs, targets)

        setting.loss = scaled
        setting.options["lr"] /= factor

    return apply


HIDDEN = {
    "mlp": ("fc1", "fc2"),
    "deep": tuple(f"fc{number}" for number in range(1, 9)),
    "friedman": ("fc1", "fc2"),
    "resnet": ("stem", "blocks.1.shortcut", "blocks.2.shortcut"),
    "convnet": ("conv1", "conv2", "fc1"),
    "cancer": ("fc1", "fc2"),
    "autoencoder": ("fc1", "fc2", "fc3"),
    "cnn": ("conv1", "conv2", "conv3"),
    "diabetes": ("fc1", "fc2"),
    "table": ("fc1", "fc2", "fc3"),
}
INITIALISE = ("initialis", "weights")


def _cases(fault: str, rule: str, remedies: tuple[str, ...], *places: tuple[str, str, Change, tuple[str, ...], int]) -> tuple[Case, ...]:
    """Return one case a place: program, severity, change, layers, t0."""
    return tuple(
        Case(fault, program, (rule,), apply, t0=t0, layers=layers, severity=severity, remedies=remedies)
        for program, severity, apply, layers, t0 in places
    )


CASES = (
    *_cases("F07", "constant-initialization", INITIALISE,
            *((program, "", constant_weights(0.05), HIDDEN[program], 0)
              for program in ("mlp", "deep", "friedman", "convnet", "cancer", "autoencoder", "cnn", "diabetes"))),
    *_cases("F08", "initialization-too-large", INITIALISE,
            *((program, "all", scaled_hidden(10.0), HIDDEN[program], 0) for program in ("mlp", "deep", "resnet", "friedman", "convnet", "cancer", "autoencoder", "cnn", "diabetes")),
            ("deep", "one", scaled_layer("fc2", 20.0), ("fc2", "act2"), 0), ("diabetes", "one", scaled_layer("fc2", 40.0), ("fc2", "act2"), 0)),
    *_cases("F09", "initialization-too-small", INITIALISE,
            *((program, "all", scaled_hidden(0.1), HIDDEN[program], 0)
              for program in ("mlp", "deep", "friedman", "convnet", "cancer", "autoencoder", "cnn", "diabetes"))),
    *_cases("F10", "head-initialization", INITIALISE,
            *((program, "x50", scaled_head(50.0), ("head",), 0)
              for program in ("mlp", "deep", "resnet", "lstm", "friedman", "encoder", "convnet", "cancer", "cnn", "vgg", "gpt", "gru", "table")),
            *((program, "bias", sure_of_one_class, ("head",), 0) for program in ("mlp", "deep", "convnet", "cnn", "gru"))),
    *_cases("F11", "dead-units", ("learning rate", "initialis", "LeakyReLU"),
            *((program, f"t{t0}", dead_from(layer, t0), (layer, act), t0)
              for program, layer, act, t0 in (("mlp", "fc2", "act2", 0), ("mlp", "fc2", "act2", 120), ("friedman", "fc1", "act1", 90),
                                              ("convnet", "conv2", "relu[1]", 0), ("convnet", "fc1", "relu[2]", 120), ("cancer", "fc2", "act2", 80),
                                              ("cnn", "conv2", "relu2", 0), ("cnn", "conv3", "relu3", 130)))),
    *_cases("F12", "saturated-activations", ("learning rate", "norm", "activation", "initialis"),
            *((program, f"t{t0}", saturated_from(t0, *(f"fc{number}" for number in numbers)),
               tuple(f"{kind}{number}" for number in numbers for kind in ("fc", "act")), t0)
              for program, numbers, t0 in (("deep", range(2, 7), 150), ("deep", range(1, 9), 80), ("diabetes", (1, 2), 60)))),
    *_cases("F13", "vanishing-gradients", ("activation", "shortcut", "norm"),
            *((program, "", deep(8, nn.Sigmoid), (), 0) for program in ("mlp", "deep", "cancer", "diabetes")),
            *((program, "12", deep(12, nn.Sigmoid), (), 0) for program in ("mlp", "table"))),
    *_cases("F14", "missing-nonlinearity", ("nonlinear", "ReLU"),
            *((program, "", replaced(ACTIVATIONS, nn.Identity), (), 0)
              for program in ("mlp", "deep", "resnet", "friedman", "autoencoder", "cnn", "vgg", "table", "diabetes"))),
    *_cases("F15", "softmax-in-hidden-layer", ("activation", "softmax"),
            *((program, "", replaced(ACTIVATIONS, lambda: nn.Softmax(1)), (), 0)
              for program in ("mlp", "deep", "friedman", "cancer", "autoencoder", "cnn", "table", "diabetes"))),
    *_cases("F19", "batchnorm-batch-too-small", ("batch", "norm"),
            *((program, str(size), batches_of(size), (), 0) for program, size in (("resnet", 2), ("resnet", 1), ("vgg", 2), ("vgg", 1)))),
    *_cases("F20", "batchnorm-statistics-frozen", ("momentum", "statistics"),
            *((program, "", norm_momentum(0.0), (), 0) for program in ("resnet", "vgg"))),
    *_cases("F21", "missing-normalization", ("norm",), ("resnet", "", replaced(NORMS, nn.Identity), (), 0)),
    *(
        Case("F21", program, ("missing-normalization",), deep(16, nn.ReLU), severity="16", remedies=("norm",),
             twin=deep(16, nn.ReLU, nn.BatchNorm1d))
        for program in ("mlp", "friedman", "table")
    ),
    *(
        Case("F41a", program, ("fp16-overflow",), overflowing(layer, t0), t0=t0, layers=(layer,), severity=f"t{t0}",
             remedies=("bfloat16", "autocast"), twin=in_half)
        for program, layer, t0 in (("mlp", "fc2", 120), ("friedman", "fc1", 75), ("convnet", "fc1", 100), ("autoencoder", "fc3", 80), ("cnn", "conv2", 110), ("diabetes", "fc2", 66))
    ),
    *(
        Case("F41b", program, ("fp16-underflow",), tiny_loss(1e-6), remedies=("scale", "GradScaler", "bfloat16"), twin=in_half)
        for program in ("mlp", "friedman", "convnet", "autoencoder", "cnn", "diabetes")
    ),
)  # fmt: skip
