from __future__ import annotations

import pytest
import torch
from torch import nn

from actograph.errors import UsageError
from actograph.models import MODELS, build_model, conv_block, mlp, simple_cnn


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
        ({"num_classes": 10, "first_kernel": 4}, "kernel_size is 4; give an odd number"),
        ({"num_classes": 10, "channels": ()}, "channels is empty"),
        ({"num_classes": 10, "channels": (8, -1)}, "out_channels is -1"),
        ({"num_classes": 10, "norm": "layer"}, "norm is 'layer'; give 'batch' or None"),
        ({"num_classes": 10, "act": nn.ReLU()}, "give a class or a function"),
        ({"num_classes": 10, "act": None}, "the network is linear"),
        ({"num_classes": True}, "num_classes is True"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_remedy(
    arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        simple_cnn(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_model_of_the_registry_classifies_images_of_the_size_it_was_built_for(name: str) -> None:
    model = build_model(name, num_classes=4, in_channels=3, size=20)
    assert model(torch.rand(2, 3, 20, 20)).shape == (2, 4)


def test_an_unknown_model_name_is_answered_with_the_nearest_and_all_names() -> None:
    with pytest.raises(
        UsageError, match=r"\(did you mean 'simple_cnn'\?\); the names are mlp, simple_cnn, sim"
    ):
        build_model("simple_cn", num_classes=10)


def test_an_mlp_has_an_activation_after_every_layer_but_the_last() -> None:
    kinds = [type(m).__name__ for m in mlp(6, 3, hidden=(5, 4)).modules() if not list(m.children())]
    assert kinds == ["Flatten", "Linear", "ReLU", "Linear", "ReLU", "Linear"]


def test_the_two_simple_cnns_differ_in_their_batch_norm() -> None:
    with_norm = [
        any(isinstance(m, nn.BatchNorm2d) for m in build_model(name, 2).modules()) for name in sorted(MODELS)
    ]
    assert dict(zip(sorted(MODELS), with_norm, strict=True)) == {
        "mlp": False,
        "simple_cnn": False,
        "simple_cnn_bn": True,
    }
