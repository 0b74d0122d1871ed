from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from actograph.data.loaders import Loaders
from actograph.errors import UsageError
from actograph.study.setup import Setup, imported
from tests.study.helpers import small_data, small_model, small_setup

MODEL_FILE = """
from torch import nn

def network(num_classes, input_size):
    channels, height, width = input_size
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes))

not_a_function = 3
"""


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seeds": 1}, "seeds is 1; an interval needs at least 2"),
        ({"epochs": 0}, "epochs is 0; give at least 1"),
        ({"lr": -1.0}, "lr is -1.0; give a positive rate"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0; give a share"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Setup(**wrong)  # type: ignore[arg-type]


def test_a_seed_gives_the_same_weights_and_batches_again() -> None:
    setup = small_setup()
    first, again, other = (setup.build(seed, setup.open(seed)) for seed in (1, 1, 2))
    weights = [next(model.parameters()) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    xs = [next(iter(setup.open(seed).train))[0] for seed in (1, 1, 2)]
    assert torch.equal(xs[0], xs[1])
    assert not torch.equal(xs[0], xs[2])


def test_a_network_of_the_users_own_is_built_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my_network.py"
    path.write_text(MODEL_FILE)
    setup = replace(small_setup(), model=f"{path}:network")
    setup.check()
    assert isinstance(setup.build(0, setup.open()), nn.Sequential)
    with pytest.raises(UsageError, match=r"act cannot be set in .*my_network\.py:network"):
        setup.build(0, setup.open(), act="gelu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.py:network", "nowhere.py does not exist; give FILE.py:FUNCTION, or a model's name: mlp"),
        ("no.such.module:network", "'no.such.module' cannot be imported"),
        ("torch.nn:network", "torch.nn has no function 'network'"),
    ],
)
def test_a_network_that_is_not_there_is_named(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        imported(name)


def test_functions_are_told_by_their_import_path() -> None:
    setup = replace(small_setup(), model=small_model)
    told = setup.to_json()
    assert told["data"] == "tests.study.helpers:small_data"
    assert told["model"] == "tests.study.helpers:small_model"
    assert "seeds" not in told


def wide_model(num_classes: int, input_size: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(5, num_classes))


def no_model(num_classes: int, input_size: tuple[int, ...]) -> nn.Module:
    return "a network"  # type: ignore[return-value]


def nan_model(num_classes: int, input_size: tuple[int, ...]) -> nn.Module:
    model = small_model(num_classes, input_size)
    next(model.parameters()).data.fill_(torch.nan)
    return model


def unlabelled(batch_size: int, seed: int) -> Loaders:
    return replace(small_data(batch_size, seed), num_classes=None)


def without_valid(batch_size: int, seed: int) -> Loaders:
    return replace(small_data(batch_size, seed), valid=None)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"model": wide_model}, r"cannot be run on .*small_data, batches of shape \(10, 1, 8, 8\)"),
        ({"model": no_model}, "returned a str, not a torch.nn.Module"),
        ({"model": nan_model}, "the loss of a first batch is nan"),
        ({"data": unlabelled}, "the data must say num_classes and input_size"),
        ({"data": without_valid}, "a study measures on validation data"),
        ({"model": "simple_cn"}, "no model is called 'simple_cn'"),
        ({"device": "quantum"}, "device 'quantum' cannot be used here"),
    ],
)
def test_network_and_data_that_do_not_go_together_are_told(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(small_setup(), **wrong).check()  # type: ignore[arg-type]
