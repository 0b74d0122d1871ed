from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from actograph.errors import UsageError
from actograph.train.parameter_groups import Splitter, check_optimizer, listed, split


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
        self.scale = nn.Parameter(torch.ones(1))
        self.head = nn.Linear(3, 2)


@pytest.mark.parametrize(
    "splitter",
    [
        lambda net: [[net.body, net.scale], net.head],
        lambda net: [[*net.body.parameters(), net.scale], list(net.head.parameters())],
        lambda net: ([(net.body[0], [net.body[1]]), net.scale], [net.head]),
        lambda net: [[net.body, net.body[0].weight, net.scale], net.head],  # twice in one group is once
    ],
)
def test_a_group_is_any_nesting_of_modules_and_parameters(splitter: Splitter) -> None:
    net = Net()
    body, head = split(net, splitter)
    assert {id(p) for p in body} == {id(p) for p in (*net.body.parameters(), net.scale)}
    assert len(body) == 5
    assert [id(p) for p in head] == [id(p) for p in net.head.parameters()]


def test_what_requires_no_gradient_may_be_left_out() -> None:
    net = Net()
    net.scale.requires_grad_(False)
    assert [len(group) for group in split(net, lambda net: [net.body, net.head])] == [4, 2]


@pytest.mark.parametrize(
    ("splitter", "words"),
    [
        (lambda net: [net.body, net.head], "left out scale: put them"),
        (lambda net: [net.head], "left out scale, body.0.weight, body.0.bias, body.1.weight, body.1.bias:"),
        (
            lambda net: [net.body, [net.scale, net.head], net.head],
            "put head.weight, head.bias into more than one",
        ),
        (lambda net: [net, nn.Linear(2, 2)], "gave 2 parameters that are not the model's"),
        (lambda net: [net, []], r"made 2 groups of \[7, 0\] parameters"),
        (lambda net: [], r"made 0 groups of \[\] parameters"),
    ],
)
def test_a_split_that_does_not_fit_is_named(splitter: Splitter, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        split(Net(), splitter)


def test_an_optimizer_over_the_model_is_taken() -> None:
    net, loss = Net(), nn.PReLU()
    net.scale.requires_grad_(False)
    check_optimizer(torch.optim.SGD(net.parameters()), net)
    check_optimizer(torch.optim.SGD([*net.body.parameters(), *net.head.parameters()]), net)
    check_optimizer(torch.optim.SGD([*net.parameters(), *loss.parameters()]), net, loss)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        (
            lambda net: nn.Linear(2, 2).parameters(),
            "holds 2 parameters that are not .* lacks 7 of the model's 7",
        ),
        (lambda net: net.head.parameters(), "holds 0 .* lacks 5 of the model's 7 .scale, body.0.weight"),
        (
            lambda net: [*net.parameters(), nn.Parameter(torch.ones(1))],
            "holds 1 .* lacks 0 of the model's 7:",
        ),
    ],
)
def test_an_optimizer_over_something_else_says_how_many(parameters: Any, words: str) -> None:
    net = Net()
    with pytest.raises(UsageError, match=words):
        check_optimizer(torch.optim.SGD(parameters(net)), net)


def test_long_lists_are_cut() -> None:
    assert listed(["a"]) == "a"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"
