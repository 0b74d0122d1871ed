from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from actograph.errors import UsageError
from actograph.models import ACTIVATIONS, conv_block, mlp, simple_cnn


def test_simple_cnn_is_five_stride_two_convolutions_that_double_the_filters() -> None:
    convs = [m for m in simple_cnn(10).modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels) for c in convs] == [(1, 8), (8, 16), (16, 32), (32, 64), (64, 10)]
    assert [c.kernel_size for c in convs] == [(5, 5), (3, 3), (3, 3), (3, 3), (3, 3)]
    assert {c.stride for c in convs} == {(2, 2)}


def test_layer_names_say_block_and_role() -> None:
    leaves = [name for name, m in simple_cnn(10, norm="batch").named_modules() if not list(m.children())]
    expected = [f"block{n}.{part}" for n in range(1, 5) for part in ("conv", "norm", "act")]
    assert leaves == [*expected, "block5.conv", "pool", "flatten"]


@pytest.mark.parametrize("side", [20, 28, 32, 64, 65])
def test_simple_cnn_takes_images_of_any_size(side: int) -> None:
    assert simple_cnn(7, in_channels=3)(torch.rand(2, 3, side, side)).shape == (2, 7)


def test_last_block_has_neither_activation_nor_norm() -> None:
    assert [name for name, _ in simple_cnn(10, norm="batch").block5.named_children()] == ["conv"]  # type: ignore[union-attr]


@pytest.mark.parametrize(("norm", "has_bias"), [(None, True), ("batch", False)])
def test_a_convolution_has_a_bias_only_where_no_batch_norm_removes_it(norm: None, has_bias: bool) -> None:
    conv = conv_block(3, 4, norm=norm).conv
    assert isinstance(conv, nn.Conv2d)
    assert (conv.bias is not None) is has_bias


def test_every_block_has_an_activation_of_its_own() -> None:
    acts = [m for m in simple_cnn(10, act=nn.GELU).modules() if isinstance(m, nn.GELU)]
    assert len({id(act) for act in acts}) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes is 0; give a whole number of at least 1"),
        ({"num_classes": 10, "first_kernel": 4}, "first_kernel is 4; give an odd number"),
        ({"num_classes": 10, "kernel_size": 2}, "kernel_size is 2; give an odd number"),
        ({"num_classes": 10, "channels": ()}, "channels is empty"),
        ({"num_classes": 10, "channels": (8, -1)}, "channels[1] is -1"),
        ({"num_classes": 10, "norm": "layer"}, "norm is 'layer'; give 'batch' or None"),
        ({"num_classes": 10, "act": nn.ReLU()}, "give a class or a function"),
        ({"num_classes": 10, "act": None}, "the network is linear"),
        ({"num_classes": 10, "act": "reul"}, "act is 'reul' (did you mean 'relu'?); the names are elu, gelu"),
        ({"num_classes": 10, "channels": 8}, "channels is 8; give a list of whole numbers"),
        ({"num_classes": True}, "num_classes is True"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_remedy(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        simple_cnn(**arguments)  # type: ignore[arg-type]


def test_an_mlp_has_an_activation_after_every_layer_but_the_last() -> None:
    kinds = [type(m).__name__ for m in mlp(6, 3, hidden=(5, 4)).modules() if not list(m.children())]
    assert kinds == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_an_mlp_without_hidden_layers_is_linear() -> None:
    assert [name for name, _ in mlp(6, 3, hidden=()).named_children()] == ["flatten", "output"]


def test_the_kernel_after_the_first_can_be_chosen() -> None:
    convs = [m for m in simple_cnn(10, first_kernel=7, kernel_size=5).modules() if isinstance(m, nn.Conv2d)]
    assert [c.kernel_size for c in convs] == [(7, 7), (5, 5), (5, 5), (5, 5), (5, 5)]


@pytest.mark.parametrize(("name", "kind"), ACTIVATIONS.items())
def test_an_activation_may_be_given_by_name(name: str, kind: type[nn.Module]) -> None:
    assert [type(m) for m in simple_cnn(2, act=name).modules() if isinstance(m, kind)] == [kind] * 4
