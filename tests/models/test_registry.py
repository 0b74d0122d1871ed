from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn

from actograph.errors import UsageError
from actograph.models import (
    MODELS,
    ModelConfig,
    Network,
    build_for_images,
    build_model,
    mlp,
    model_config,
    rebuild_model,
    resnet,
    simple_cnn,
)


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("size", [(1, 28, 28), (3, 32, 32), (3, 20, 13)])
def test_every_model_classifies_images_of_the_size_it_was_built_for(
    name: str, size: tuple[int, int, int]
) -> None:
    assert build_for_images(name, 4, size)(torch.rand(2, *size)).shape == (2, 4)


@pytest.mark.parametrize(
    "model",
    [
        simple_cnn(4),
        simple_cnn(3, 2, channels=(4, 8), first_kernel=7, norm="batch", act="gelu", kernel_size=5),
        simple_cnn(3, act=nn.LeakyReLU),
        resnet(5, 3, channels=[4, 6], blocks=2, act="silu"),
        mlp(12, 3, hidden=(7,), act=nn.Tanh),
        mlp(12, 3, hidden=()),
        build_model("simple_cnn_bn", num_classes=3),
        build_for_images("resnet", 3, (3, 8, 8), width=0.25),
    ],
    ids=lambda model: model.config.name,
)
def test_a_model_can_be_rebuilt_from_json_and_takes_its_weights(model: Network) -> None:
    state = torch.get_rng_state()
    config = model_config(model)
    assert torch.equal(torch.get_rng_state(), state)
    again = rebuild_model(ModelConfig.from_json(json.loads(json.dumps(config.to_json()))))
    again.load_state_dict(model.state_dict())
    assert repr(again) == repr(model)
    x = torch.rand(2, 12) if config.name == "mlp" else torch.rand(2, config.options["in_channels"], 9, 9)  # type: ignore[arg-type]
    assert torch.equal(again.eval()(x), model.eval()(x))


def test_a_copy_and_a_pickle_keep_the_config() -> None:
    model = resnet(3)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert model_config(again) == model_config(model) == model.config


def head_replaced(model: Network) -> nn.Module:
    model[-1] = nn.Linear(64, 7)
    return model


def act_replaced(model: Network) -> nn.Module:
    model.stem.act = nn.GELU()  # type: ignore[union-attr]
    return model


def weight_added(model: Network) -> nn.Module:
    model.register_buffer("temperature", torch.ones(()))
    return model


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (head_replaced, "actograph.models.network:Network"),
        (act_replaced, "actograph.models.network:Network"),
        (weight_added, "actograph.models.network:Network"),
        (lambda model: model[:3], "actograph.models.network:Network"),
        (nn.Sequential, "torch.nn.modules.container:Sequential"),
        (lambda _: simple_cnn(3, act=partial(nn.LeakyReLU, 0.2)), "actograph.models.network:Network"),
    ],
)
def test_a_model_that_is_not_as_built_says_that_its_class_is_needed(
    change: Callable[[Network], nn.Module], name: str
) -> None:
    config = model_config(change(resnet(3)))
    assert config == ModelConfig(name)
    assert not config.is_built_in
    with pytest.raises(UsageError, match=f"a network of {name} cannot be built from its name: it is none"):
        rebuild_model(config)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: build_model("simple_cn", num_classes=10),
            r"'simple_cn' \(did you mean 'simple_cnn'\?\); the names are mlp, resnet, simple_cnn, simple_cnn_bn",
        ),
        (
            lambda: build_for_images("alexnet", 10, (1, 8, 8)),
            "no model is called 'alexnet' .*; the names are",
        ),
        (
            lambda: build_model("mlp", num_classes=3),
            "mlp: missing .* 'in_features'; its options are in_features, num",
        ),
        (
            lambda: build_for_images("mlp", 3, (1, 8, 8), norm="batch"),
            "mlp: got an unexpected keyword argument 'norm'",
        ),
        (lambda: build_for_images("mlp", 3, (1, 8, 8), width=0), "width is 0; give a factor above 0"),
        (lambda: build_for_images("mlp", 3, (1, 8, 8), width=float("nan")), "width is nan"),
        (lambda: ModelConfig.from_json({"name": 3, "options": {}}), "a model has name 3"),
        (lambda: ModelConfig.from_json({"name": "mlp"}), "options None; give a string and a dictionary"),
    ],
)
def test_what_cannot_be_built_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()


@pytest.mark.parametrize(
    ("name", "width", "option", "sizes"),
    [
        ("simple_cnn", 2, "channels", [16, 32, 64, 128]),
        ("simple_cnn_bn", 1, "channels", [8, 16, 32, 64]),
        ("resnet", 0.5, "channels", [8, 16, 32]),
        ("resnet", 0.01, "channels", [1, 1, 1]),
        ("mlp", 1.5, "hidden", [192, 192]),
    ],
)
def test_width_multiplies_every_layer_but_the_last(
    name: str, width: float, option: str, sizes: list[int]
) -> None:
    assert model_config(build_for_images(name, 10, (1, 9, 9), width=width)).options[option] == sizes


@pytest.mark.parametrize(("name", "norm"), [("simple_cnn", None), ("simple_cnn_bn", "batch")])
def test_the_two_simple_cnns_differ_in_their_batch_norm(name: str, norm: str | None) -> None:
    config = model_config(build_model(name, num_classes=2))
    assert (config.name, config.options["norm"]) == ("simple_cnn", norm)
