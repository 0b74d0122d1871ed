"""Faults of data, labels, losses and validation.

No idea of how they are found.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from faults.case import Case, Change
from faults.setting import Data, Setting


def _parts(setting: Setting, change: Callable[[Tensor], Tensor]) -> None:
    """Change the inputs of all parts."""
    for name in ("train", "valid", "test"):
        part: Data = getattr(setting, name)
        setattr(setting, name, Data(change(part.x), part.y))


def _from(t0: int, change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Change:
    """Return the change of training batches from step t0 on."""

    def transform(step: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return change(x, y) if step >= t0 else (x, y)

    def apply(setting: Setting) -> None:
        setting.batches.append(transform)

    return apply


def raw_pixels(setting: Setting) -> None:
    """F22: inputs lie in [0, 255], as a file has them."""
    low, high = setting.train.x.min(), setting.train.x.max()
    _parts(setting, lambda x: (x - low) * 255 / (high - low))


def one_large_feature(factor: float) -> Change:
    """F22: one feature of a table is in another unit."""

    def apply(setting: Setting) -> None:
        def change(x: Tensor) -> Tensor:
            x = x.clone()
            x[:, 0] *= factor
            return x

        _parts(setting, change)

    return apply


def normalized_twice(factor: float) -> Change:
    """F23: the inputs are divided by what they were divided by already."""

    def apply(setting: Setting) -> None:
        _parts(setting, lambda x: x * factor)

    return apply


def misaligned(setting: Setting) -> None:
    """F24: the labels belong to other samples, always to the same ones."""
    order = torch.randperm(len(setting.train.y), generator=torch.Generator().manual_seed(7))
    setting.train = Data(setting.train.x, setting.train.y[order])


def misaligned_from(t0: int) -> Change:
    """F24: from step t0 on the labels of each batch are in another order than its inputs."""
    return _from(t0, lambda x, y: (x, y.roll(1, 0)))


def noisy(share: float) -> Change:
    """F25: a share of the labels is any class."""

    def apply(setting: Setting) -> None:
        random = torch.Generator().manual_seed(7)
        x, y = setting.train
        num_classes = int(y.max()) + 1
        is_noisy = torch.rand(len(y), generator=random) < share
        other = torch.randint(num_classes, (len(y),), generator=random)
        setting.train = Data(x, torch.where(is_noisy, other, y))

    return apply


def labels_from_one(setting: Setting) -> None:
    """F26: the training labels count from 1, and the output has one class more so that they fit."""
    x, y = setting.train
    setting.train = Data(x, y + 1)
    head = setting.model.head
    assert isinstance(head, nn.Linear)
    setting.model.head = nn.Linear(head.in_features, head.out_features + 1)


def nan_from(t0: int) -> Change:
    """F27: from step t0 on one sample of each batch has NaN in it."""

    def change(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = x.clone()
        x[0] = float("nan")
        return x, y

    return _from(t0, change)


def sorted_by_class(setting: Setting) -> None:
    """F28: the training data come class by class."""
    x, y = setting.train
    order = y.flatten().argsort(stable=True)
    setting.train, setting.shuffle = Data(x[order], y[order]), False


def leaking(share: float) -> Change:
    """F29: a share of the samples that are evaluated are trained on as well."""

    def apply(setting: Setting) -> None:
        num = int(share * len(setting.valid.x))
        (x, y), (vx, vy) = setting.train, setting.valid
        setting.train = Data(torch.cat([x, vx[:num]]), torch.cat([y, vy[:num]]))

    return apply


def zeros_from(t0: int) -> Change:
    """F30: from step t0 on the inputs are zeros."""
    return _from(t0, lambda x, y: (torch.zeros_like(x), y))


def with_softmax(setting: Setting) -> None:
    """F31: the model ends with a softmax; the loss makes one too."""
    assert isinstance(setting.model, nn.Sequential)
    setting.model.add_module("softmax", nn.Softmax(dim=1))


def with_sigmoid(setting: Setting) -> None:
    """F31: the model ends with a sigmoid; the loss makes one too."""
    assert isinstance(setting.model, nn.Sequential)
    setting.model.add_module("sigmoid", nn.Sigmoid())
    setting.metric = lambda outputs, y: float(((outputs > 0.5) == (y > 0.5)).float().mean())


def _one_hot(outputs: Tensor, y: Tensor) -> Tensor:
    return functional.one_hot(y, outputs.shape[1]).to(outputs.dtype)


def squares_of_softmax(setting: Setting) -> None:
    """F32: the squared error of probabilities."""
    setting.loss = lambda outputs, y: functional.mse_loss(outputs.softmax(1), _one_hot(outputs, y))


def squares_of_sigmoid(setting: Setting) -> None:
    """F32: the squared error of a sigmoid for each class."""
    setting.loss = lambda outputs, y: functional.mse_loss(outputs.sigmoid(), _one_hot(outputs, y))


def binary_for_each_class(setting: Setting) -> None:
    """F32: a binary cross-entropy for each of the classes, averaged over them."""
    setting.loss = lambda outputs, y: functional.binary_cross_entropy_with_logits(outputs, _one_hot(outputs, y))


def likelihood_of_softmax(setting: Setting) -> None:
    """F32: the negative log likelihood of probabilities in the place of their logarithms."""
    setting.loss = lambda outputs, y: functional.nll_loss(outputs.softmax(1), y)


def broadcast_targets(setting: Setting) -> None:
    """F32: outputs (N, 1) and targets (N,) are compared each with each."""
    import warnings

    warnings.filterwarnings("ignore", message="Using a target size")
    setting.loss = lambda outputs, y: functional.mse_loss(outputs, y[:, 0])


def summed(setting: Setting) -> None:
    """F33: the loss is summed over the batch."""
    setting.loss = type(setting.loss)(reduction="sum")  # type: ignore[call-arg]


def negated(setting: Setting) -> None:
    """F34: the loss is maximized."""
    loss = setting.loss
    setting.loss = lambda outputs, y: -loss(outputs, y)


def maximized(setting: Setting) -> None:
    """F34: the optimizer was asked to maximize."""
    setting.options["maximize"] = True


def unscaled_targets(factor: float, offset: float) -> Change:
    """F35: the targets are in a unit with large numbers."""

    def apply(setting: Setting) -> None:
        for name in ("train", "valid", "test"):
            part: Data = getattr(setting, name)
            setattr(setting, name, Data(part.x, part.y * factor + offset))

    return apply


def few_samples(num: int, longer: int = 3) -> Change:
    """F42b: a large network learns few samples by heart, for long."""

    def apply(setting: Setting) -> None:
        setting.train = Data(setting.train.x[:num], setting.train.y[:num])
        setting.num_steps *= longer

    return apply


def rare_classes(setting: Setting) -> None:
    """F42e: all but a hundredth of the training samples are of one class."""
    x, y = setting.train
    often, others = (y == 0).nonzero()[:, 0], (y != 0).nonzero()[:, 0]
    num = len(y)
    random = torch.Generator().manual_seed(7)
    repeated = often[torch.randint(len(often), (num,), generator=random)]
    rare = others[torch.randperm(len(others), generator=random)[: max(num // 100, 3)]]
    chosen = torch.cat([repeated, rare])
    noise = torch.zeros_like(x[chosen])
    noise[:num] = 0.05 * torch.randn(noise[:num].shape, generator=random)
    setting.train = Data(x[chosen] + noise, y[chosen])




SCALE = ("normal", "standard", "scale")
PAIRS = ("label", "pair", "target")
CLASSIFIERS = ("mlp", "deep", "lstm", "encoder", "convnet", "cnn", "gru", "table")


def _cases(
    fault: str, rules: tuple[str, ...], remedies: tuple[str, ...], *places: tuple[str, str, Change, int]
) -> tuple[Case, ...]:
    """Return one case a place: program, severity, change, t0."""
    return tuple(
        Case(fault, program, rules, apply, t0=t0, severity=severity, remedies=remedies)
        for program, severity, apply, t0 in places
    )


CASES = (
    *_cases("F22", ("inputs-not-normalized",), SCALE,
            *((program, "pixels", raw_pixels, 0) for program in ("mlp", "deep", "lstm", "convnet", "cnn", "gru")),
            *((program, "feature", one_large_feature(1e4), 0) for program in ("friedman", "cancer", "table", "diabetes"))),
    *_cases("F23", ("inputs-not-normalized",), SCALE,
            *((program, "twice", normalized_twice(1 / 255), 0) for program in ("mlp", "deep", "lstm", "friedman", "convnet", "cancer", "cnn", "gru"))),
    *_cases("F24", ("labels-misaligned",), PAIRS,
            *((program, "fixed", misaligned, 0) for program in ("mlp", "resnet", "lstm", "encoder", "convnet", "cancer", "cnn", "vgg")),
            *((program, f"t{t0}", misaligned_from(t0), t0)
              for program, t0 in (("mlp", 0), ("mlp", 150), ("deep", 200), ("resnet", 0), ("lstm", 150), ("encoder", 120), ("convnet", 150), ("cancer", 120),
                                  ("cnn", 150), ("vgg", 0),
                                  ("gru", 100), ("table", 150)))),
    *_cases("F25", ("label-noise",), PAIRS, *((program, "40", noisy(0.4), 0) for program in CLASSIFIERS)),
    *_cases("F26", ("label-never-seen",), PAIRS, *((program, "", labels_from_one, 0) for program in ("mlp", "lstm", "convnet", "encoder", "cnn", "table"))),
    *_cases("F27", ("non-finite-input",), ("nan", "data"),
            *((program, f"t{t0}", nan_from(t0), t0)
              for program, t0 in (("mlp", 0), ("mlp", 137), ("lstm", 140), ("friedman", 61), ("encoder", 100), ("cancer", 60), ("autoencoder", 90),
                                  ("cnn", 103), ("diabetes", 77)))),
    *_cases("F28", ("data-not-shuffled",), ("shuffle",), *((program, "", sorted_by_class, 0) for program in ("mlp", "resnet", "encoder", "convnet", "cancer", "cnn", "gru"))),
    *_cases("F29", ("train-valid-leak",), ("duplicate", "split", "valid"),
            *((program, "all", leaking(1.0), 0) for program in ("mlp", "friedman", "convnet", "autoencoder", "cnn")),
            *((program, "half", leaking(0.5), 0) for program in ("lstm", "cancer", "table"))),
    *_cases("F30", ("inputs-collapsed",), ("input", "data", "batch"),
            *((program, f"t{t0}", zeros_from(t0), t0)
              for program, t0 in (("mlp", 150), ("resnet", 90), ("lstm", 160), ("friedman", 120), ("convnet", 150), ("cancer", 100), ("autoencoder", 100),
                                  ("cnn", 140), ("table", 100)))),
    *_cases("F31", ("softmax-before-cross-entropy",), ("softmax", "logits"),
            *((program, "", with_softmax, 0) for program in ("mlp", "deep", "cnn", "vgg")),
            ("cancer", "sigmoid", with_sigmoid, 0)),
    *_cases("F32", ("wrong-loss",), ("cross", "shape", "loss"),
            *((program, "softmax", squares_of_softmax, 0) for program in ("mlp", "deep", "convnet", "encoder", "cnn", "table")),
            *((program, "sigmoid", squares_of_sigmoid, 0) for program in ("mlp", "lstm", "convnet", "cnn", "gru")),
            *((program, "binary", binary_for_each_class, 0) for program in ("mlp", "lstm", "convnet", "cnn", "gru")),
            *((program, "nll", likelihood_of_softmax, 0) for program in ("mlp", "convnet")),
            *((program, "broadcast", broadcast_targets, 0) for program in ("friedman", "diabetes"))),
    *_cases("F33", ("summed-loss",), ("mean", "average", "loss"),
            *((program, "", summed, 0) for program in ("mlp", "resnet", "cancer", "autoencoder", "vgg", "diabetes"))),
    *_cases("F34", ("loss-sign-flipped",), ("sign", "maximize", "negative"),
            *((program, "loss", negated, 0) for program in ("mlp", "friedman", "autoencoder", "convnet", "cnn", "gru")),
            *((program, "optimizer", maximized, 0) for program in ("mlp", "lstm", "cancer", "encoder", "vgg", "table"))),
    *_cases("F35", ("targets-not-scaled",), ("target", "standard"),
            *((program, "large", unscaled_targets(500.0, 5000.0), 0) for program in ("friedman", "autoencoder", "diabetes")),
            *((program, "raw", unscaled_targets(77.0, 152.0), 0) for program in ("friedman", "diabetes"))),
    *_cases("F42b", ("overfitting",), ("stop", "regular", "data", "augment", "weight"),
            *((program, "", few_samples(num), 0)
              for program, num in (("mlp", 100), ("deep", 150), ("lstm", 100), ("friedman", 60), ("encoder", 100), ("convnet", 80),
                                   ("cancer", 30), ("autoencoder", 40), ("cnn", 80), ("gru", 80), ("table", 150),
                                   ("diabetes", 40)))),
    *_cases("F42e", ("class-collapse",), ("weight", "sampl", "class"),
            *((program, "", rare_classes, 0) for program in ("mlp", "deep", "lstm", "convnet", "encoder", "cancer", "cnn", "gru", "table"))),
)  # fmt: skip
