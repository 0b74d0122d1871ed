"""Rules on how weights begin, what lies between layers, and precision: small real trainings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from actograph.recording.recording import Recording
from actograph.rules.batchnorm_batch_too_small import BatchNormBatchTooSmall
from actograph.rules.diagnose import diagnose
from actograph.rules.fp16_overflow import Fp16Overflow
from actograph.rules.fp16_underflow import Fp16Underflow
from actograph.rules.head_initialization import HeadInitialization
from actograph.rules.initialization_too_large import InitializationTooLarge
from actograph.rules.initialization_too_small import InitializationTooSmall
from actograph.rules.missing_nonlinearity import MissingNonlinearity
from actograph.rules.missing_normalization import MissingNormalization
from actograph.rules.rule import Finding, Rule, Severity
from actograph.rules.softmax_in_hidden_layer import SoftmaxInHiddenLayer
from actograph.rules.vanishing_gradients import VanishingGradients
from actograph.runlog.view import RunView
from actograph.testing.rules import check_rule
from tests.rules.fact_runs import BATCH, CLASSES, FEATURES, Run, cross_entropy, plain_data
from tests.unmeasured import unmeasured

pytestmark = pytest.mark.xdist_group("signals")  # one process trains what they share

WIDTH = 24
Make = Callable[[], nn.Module]


def layers(
    depth: int, act: Callable[[], nn.Module] = nn.ReLU, norm: bool = False, width: int = WIDTH
) -> nn.Sequential:
    """Return hidden layers fc1, act1, ... and a head."""
    model = nn.Sequential()
    sizes = [FEATURES, *[width] * depth]
    for number, (before, after) in enumerate(itertools.pairwise(sizes), 1):
        model.add_module(f"fc{number}", nn.Linear(before, after))
        if norm:
            model.add_module(f"norm{number}", nn.LayerNorm(after))
        model.add_module(f"act{number}", act())
    model.add_module("head", nn.Linear(width, CLASSES))
    return model


def scaled(model: nn.Module, **factors: float) -> nn.Module:
    """Multiply weights, by the beginning of their layers' names."""
    with torch.no_grad():
        for name, module in model.named_modules():
            for start, factor in factors.items():
                if isinstance(module, nn.Linear) and name.startswith(start):
                    module.weight *= factor
    return model


def with_bias(value: float) -> nn.Module:
    model = layers(2)
    with torch.no_grad():
        model.get_submodule("head").bias[0] = value  # type: ignore[operator]
    return model


class Residual(nn.Module):
    """Blocks that add to what comes in."""

    def __init__(self, depth: int, act: Callable[[], nn.Module] = nn.ReLU, *, last: float = 1.0) -> None:
        super().__init__()
        self.stem = nn.Linear(FEATURES, WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(WIDTH, WIDTH), act(), nn.Linear(WIDTH, WIDTH)) for _ in range(depth)
        )
        self.head = nn.Linear(WIDTH, CLASSES)
        for block in self.blocks:
            scaled(block, **{"0": last, "2": last})

    def forward(self, x: Tensor) -> Any:
        h = self.stem(x)
        for block in self.blocks:
            h = h + block(h)
        return self.head(h)


class Between(nn.Module):
    """Three layers with functions between them."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int = WIDTH, middle: int = WIDTH) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(FEATURES, width), nn.Linear(width, middle)
        self.head = nn.Linear(middle, CLASSES)
        self.between = between

    def forward(self, x: Tensor) -> Any:
        return self.head(functional.relu(self.fc2(self.between(self.fc1(x)))))


class Gated(nn.Module):
    """A softmax that weighs experts, and one inside attention."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(FEATURES, WIDTH)
        self.gate, self.values = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Any:
        h = functional.relu(self.fc(x))
        h = self.gate(h).softmax(-1) * self.values(h)
        return self.head(self.attention(h[:, None], h[:, None], h[:, None])[0][:, 0])


def parity(step: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Classes that no linear map tells apart: of the signs of two pairs of features."""
    x = torch.randn(BATCH, FEATURES, generator=random)
    return x, (x[:, 0] * x[:, 1] > 0).long() * 2 + (x[:, 2] * x[:, 3] > 0).long()


def one_class(step: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(BATCH, FEATURES, generator=random), torch.zeros(BATCH).long()


@unmeasured()
def train(model: Make, name: str, lr: float = 1e-3, steps: int = 80, **changes: Any) -> RunView:
    run = Run(name, model=model, steps=steps, optimizer=lambda m: torch.optim.Adam(m.parameters(), lr=lr))
    return run.but(**changes).view()


def one_of(rule: Rule, view: RunView) -> Finding:
    (found,) = [answer for answer in rule.check(view) if isinstance(answer, Finding)]
    return found


HEALTHY = [
    lambda: train(lambda: layers(2), "two layers", lr=1e-2),
    lambda: train(lambda: layers(2, nn.Tanh), "tanh", lr=1e-2),
    lambda: train(lambda: Residual(3), "residual", lr=1e-2),
    lambda: train(lambda: layers(3, nn.GELU, norm=True), "norms", lr=1e-2),
    lambda: train(Gated, "attention and gates", lr=1e-2),
]


@pytest.fixture(scope="module")
def healthy() -> list[RunView]:
    return [make() for make in HEALTHY]  # type: ignore[no-untyped-call]


def test_initialization_too_large_conforms(healthy: list[RunView]) -> None:
    sick = [
        train(lambda: scaled(layers(3), fc=10.0), "relu"),
        train(lambda: scaled(layers(3, nn.Tanh), fc2=25.0), "one tanh layer"),
    ]
    near_miss = [
        train(lambda: scaled(layers(3, norm=True), fc=10.0), "norms behind", lr=3e-2),
        train(lambda: scaled(layers(2), fc=2.0), "He"),
        train(lambda: scaled(layers(2), head=30.0), "only the head"),
    ]
    check_rule(InitializationTooLarge(), sick=sick, healthy=healthy, near_miss=near_miss)
    relu, tanh = (one_of(InitializationTooLarge(), view) for view in sick)
    assert (relu.layer, relu.first_step, relu.evidence["num_layers"]) == ("fc1", 0, 3.0)
    assert tanh.layer == "fc2"
    assert tanh.remedies[0].target == "fc2.weight"
    assert tanh.remedies[0].new == pytest.approx(1 / math.sqrt(WIDTH))


def test_initialization_too_small_conforms(healthy: list[RunView]) -> None:
    sick = [
        train(lambda: scaled(layers(4), fc=0.05), "relu"),
        train(lambda: scaled(layers(6, nn.Tanh), fc=0.1), "tanh"),
    ]
    near_miss = [
        train(lambda: scaled(layers(3, norm=True), fc=0.05), "norms behind"),
        train(lambda: Residual(3, last=0.01), "small branches"),
        train(lambda: scaled(layers(2), head=0.0), "a head of zeros"),
        train(lambda: scaled(layers(2), fc2=0.3), "a little small"),
    ]
    check_rule(InitializationTooSmall(), sick=sick, healthy=healthy, near_miss=near_miss)
    found = one_of(InitializationTooSmall(), sick[0])
    assert found.layer == "fc1"
    assert found.remedies[1].new == pytest.approx(math.sqrt(2 / WIDTH))
    assert "vanishing-gradients" not in [one.rule for one in diagnose(sick[1]).findings]


def test_head_initialization_conforms(healthy: list[RunView]) -> None:
    sick = [
        train(lambda: scaled(layers(2), head=60.0), "weights"),
        train(lambda: with_bias(9.0), "bias"),
    ]
    near_miss = [
        train(lambda: scaled(layers(2), head=0.0), "zeros"),
        train(lambda: with_bias(6.0), "the frequent class's bias", data=one_class),
        train(lambda: scaled(layers(2), head=2.0), "He"),
    ]
    check_rule(HeadInitialization(), sick=sick, healthy=healthy, near_miss=near_miss)
    assert [one_of(HeadInitialization(), view).remedies[0].target for view in sick] == [
        "head.weight",
        "head.bias",
    ]


def test_vanishing_gradients_conforms(healthy: list[RunView]) -> None:
    sick = [train(lambda: layers(10, nn.Sigmoid), "ten sigmoid layers")]
    near_miss = [
        train(lambda: Residual(8, nn.Sigmoid), "with shortcuts", lr=1e-2),
        train(lambda: layers(10, nn.ReLU, norm=True), "with norms", lr=1e-2),
        train(lambda: layers(2, nn.Sigmoid), "two layers", lr=1e-2),
    ]
    check_rule(VanishingGradients(), sick=sick, healthy=healthy, near_miss=near_miss)
    found = one_of(VanishingGradients(), sick[0])
    assert found.layer == "fc1"
    assert 0.05 < float(found.evidence["ratio_per_layer"]) < 0.25  # the slope of a sigmoid is 1/4 at most


def test_missing_normalization_conforms(healthy: list[RunView]) -> None:
    sick = [train(lambda: layers(14), "fourteen layers")]
    near_miss = [
        train(lambda: layers(14, norm=True), "with norms"),
        train(lambda: scaled(layers(14), fc=math.sqrt(6.0)), "He's weights", lr=3e-3),
        train(lambda: layers(4), "four layers"),
    ]
    check_rule(MissingNormalization(), sick=sick, healthy=healthy, near_miss=near_miss)
    (top,) = [one for one in diagnose(sick[0]).findings if one.severity > Severity.NOTE]
    assert top.rule == "missing-normalization"
    assert "vanishing-gradients" in [one.rule for one in top.consequences]


def test_missing_nonlinearity_conforms(healthy: list[RunView]) -> None:
    linear = train(lambda: layers(2, nn.Identity), "linear", data=parity)
    one_missing = train(
        lambda: Between(lambda h: functional.dropout(h, 0.1).view(-1, WIDTH)), "one missing", data=parity
    )
    intact = [
        train(lambda: Between(functional.relu), "a function", data=parity),
        train(lambda: Between(lambda h: h * torch.sigmoid(h)), "written out", data=parity),
        train(lambda: Between(lambda h: h.abs()), "absolute values", data=parity),
        train(lambda: Between(lambda h: h, width=4, middle=WIDTH), "bottleneck", data=parity),
        train(lambda: Residual(2, nn.ReLU), "shortcuts", data=parity),
    ]
    check_rule(MissingNonlinearity(), sick=linear, healthy=healthy, near_miss=[*intact, one_missing])
    assert one_of(MissingNonlinearity(), linear).evidence["pairs"] == "fc1 -> fc2, fc2 -> head"
    assert one_of(MissingNonlinearity(), one_missing).evidence["pairs"] == "fc1 -> fc2"
    assert not [one for view in intact for one in MissingNonlinearity().check(view)]


def test_softmax_in_hidden_layer_conforms(healthy: list[RunView]) -> None:
    sick = [
        train(lambda: layers(2, lambda: nn.Softmax(-1)), "modules"),
        train(lambda: Between(lambda h: h.softmax(-1)), "a function", data=parity),
    ]
    near_miss = [train(lambda: nn.Sequential(layers(2), nn.Softmax(-1)), "behind the head")]
    check_rule(SoftmaxInHiddenLayer(), sick=sick, healthy=healthy, near_miss=near_miss)
    assert [one_of(SoftmaxInHiddenLayer(), view).layer for view in sick] == ["act1", "softmax"]


# Batch norm


def batches_of(size: int) -> Callable[[int, torch.Generator], tuple[Tensor, Tensor]]:
    def data(step: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
        x, y = plain_data(step, random)
        return x[:size], y[:size]

    return data


def normed(norm: Callable[[], nn.Module]) -> Make:
    return lambda: nn.Sequential(nn.Linear(FEATURES, 16), norm(), nn.ReLU(), nn.Linear(16, CLASSES))


def test_batchnorm_batch_too_small_conforms(healthy: list[RunView]) -> None:
    with_norm = normed(lambda: nn.BatchNorm1d(16))
    check_rule(
        BatchNormBatchTooSmall(),
        sick=train(with_norm, "two samples", data=batches_of(2)),
        healthy=[*healthy, train(with_norm, "thirty-two", lr=1e-2)],
        near_miss=[
            train(normed(lambda: nn.LayerNorm(16)), "LayerNorm", data=batches_of(2)),
            train(with_norm, "four samples, learns", lr=1e-2, data=batches_of(4)),
        ],
    )


# float16


class Half(nn.Module):
    """Computes in float16, and gives float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model.half()

    def forward(self, x: Tensor) -> Any:
        return self.inner(x.half()).float()


def half_of_two() -> nn.Module:
    return Half(layers(2))


def times(factor: float) -> Callable[[Recording, Tensor, Tensor], Tensor]:
    return lambda recording, output, y: factor * cross_entropy(recording, output, y)


def sgd(lr: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), lr=lr)


def larger_weights(model: nn.Module, step: int) -> None:
    if step == 30:
        scaled(model, **{"inner.fc2": 2e5, "fc2": 2e5})


def test_fp16_overflow_conforms(healthy: list[RunView]) -> None:
    sick = train(half_of_two, "from step 30 on", before_step=larger_weights, optimizer=sgd(0.05))
    near_miss = [
        train(half_of_two, "in range", optimizer=sgd(0.05)),
        train(lambda: layers(2), "float32", before_step=larger_weights, optimizer=sgd(0.05)),
    ]
    check_rule(Fp16Overflow(), sick=sick, healthy=healthy, near_miss=near_miss)
    found = one_of(Fp16Overflow(), sick)
    assert (found.first_step, found.layer) == (30, "inner.fc2")
    assert "non-finite-loss" not in [one.rule for one in diagnose(sick).findings]


def test_fp16_underflow_conforms(healthy: list[RunView]) -> None:
    check_rule(
        Fp16Underflow(),
        sick=train(half_of_two, "a small loss", loss=times(1e-6), optimizer=sgd(0.05)),
        healthy=healthy,
        near_miss=[
            train(half_of_two, "in range", optimizer=sgd(0.05)),
            train(lambda: layers(2), "float32", loss=times(1e-6), optimizer=sgd(0.05)),
        ],
    )


def test_healthy_trainings_are_not_diagnosed(healthy: list[RunView]) -> None:
    for view in healthy:
        alarms = [one for one in diagnose(view).findings if one.severity > Severity.NOTE]
        assert not alarms, (view.info.name, alarms)
        assert np.isfinite(view.scalar("loss").values).all()
