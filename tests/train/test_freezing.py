from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.train.freezing import Freezing
from actograph.train.parameter_groups import split


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 2))


def frozen_network(
    make: Callable[..., torch.optim.Optimizer],
) -> tuple[nn.Sequential, torch.optim.Optimizer, Freezing]:
    """Return three groups: 0 and 1, 2, 3."""
    model = network()
    groups = split(model, lambda net: [[net[0], net[1]], net[2], net[3]])  # type: ignore[index]
    optimizer = make([{"params": group} for group in groups], lr=0.1)
    return model, optimizer, Freezing(model, optimizer)


def sgd(groups: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, weight_decay=0.1)


def trainable(model: nn.Module) -> list[str]:
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def train(model: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int = 3) -> dict[str, Tensor]:
    """Return what changed by these steps: the new values by name."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(num_steps):
        model(torch.randn(8, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    return {name: value for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


NORM = ["1.weight", "1.bias"]
STATISTICS = ["1.running_mean", "1.running_var", "1.num_batches_tracked"]


@pytest.mark.parametrize("make", [sgd, torch.optim.AdamW])
def test_frozen_weights_stay_bit_for_bit_in_spite_of_decay_and_momentum(make: Any) -> None:
    model, optimizer, freezing = frozen_network(make)
    train(model, optimizer)  # momentum is there now
    freezing.freeze()
    assert list(train(model, optimizer)) == [*NORM, *STATISTICS, "3.weight", "3.bias"]


@pytest.mark.parametrize(
    ("group", "names"),
    [
        (0, ["0.weight", "0.bias", *NORM, "2.weight", "2.bias", "3.weight", "3.bias"]),
        (1, [*NORM, "2.weight", "2.bias", "3.weight", "3.bias"]),
        (-2, [*NORM, "2.weight", "2.bias", "3.weight", "3.bias"]),
        (2, [*NORM, "3.weight", "3.bias"]),
        (-1, [*NORM, "3.weight", "3.bias"]),
    ],
)
def test_groups_before_the_given_one_are_frozen_but_for_normalization(group: int, names: list[str]) -> None:
    model, _, freezing = frozen_network(sgd)
    freezing.freeze_to(-1)
    freezing.freeze_to(group)
    assert trainable(model) == names
    assert freezing.num_frozen_groups == group % 3


def test_unfreeze_gives_back_what_was_frozen_and_nothing_else() -> None:
    model, _, freezing = frozen_network(sgd)
    model[0].bias.requires_grad_(False)  # the user's own choice
    before = trainable(model)
    freezing.freeze()
    freezing.freeze()
    freezing.unfreeze()
    assert trainable(model) == before
    assert "0.bias" not in before
    assert freezing.num_frozen_groups == 0
    model[2].bias.requires_grad_(False)
    freezing.freeze()
    freezing.unfreeze()
    assert trainable(model) == [name for name in before if name != "2.bias"]


def test_a_gradient_from_before_is_gone() -> None:
    model, optimizer, freezing = frozen_network(sgd)
    model(torch.randn(8, 3)).sum().backward()
    freezing.freeze()
    assert model[0].weight.grad is None
    assert model[1].weight.grad is not None
    optimizer.step()


@pytest.mark.parametrize("group", [3, -4])
def test_a_group_that_is_not_there_is_named(group: int) -> None:
    with pytest.raises(
        UsageError, match=rf"freeze_to\({group}\): the optimizer has 3 parameter groups, 0 to 2"
    ):
        frozen_network(sgd)[2].freeze_to(group)


def test_one_group_alone_cannot_be_frozen() -> None:
    model = network()
    with pytest.raises(UsageError, match=r"only one parameter group.*splitter="):
        Freezing(model, sgd(model.parameters(), 0.1)).freeze()
    Freezing(model, sgd(model.parameters(), 0.1)).unfreeze()


@pytest.mark.parametrize("norm", [nn.LayerNorm(4), nn.InstanceNorm1d(4, affine=True)])
def test_other_normalizations_stay_trainable_too(norm: nn.Module) -> None:
    model = nn.Sequential(nn.Linear(4, 4), norm, nn.Linear(4, 1))
    groups = split(model, lambda net: [[net[0], net[1]], net[2]])  # type: ignore[index]
    Freezing(model, sgd([{"params": group} for group in groups], 0.1)).freeze()
    assert trainable(model) == [*NORM, "2.weight", "2.bias"]
