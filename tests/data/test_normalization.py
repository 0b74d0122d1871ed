from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from actograph.data import Normalization
from actograph.data.normalization import measure_normalization
from actograph.errors import UsageError


@pytest.mark.parametrize(
    "x",
    [
        torch.randint(256, (50, 3, 4, 5), generator=torch.Generator().manual_seed(0)).to(torch.uint8),
        torch.randn(50, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 9 + 1000,
        torch.randn(50, 3, generator=torch.Generator().manual_seed(0)).double(),
    ],
    ids=["bytes", "float32", "float64 features"],
)
def test_what_was_measured_makes_mean_0_and_std_1_and_leaves_the_data(x: Tensor) -> None:
    before = x.clone()
    y = measure_normalization(x).apply(x)
    assert (y.dtype, y.shape) == (torch.float32, x.shape)
    channels = y.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(channels.mean(1), torch.zeros(3).double(), atol=1e-5, rtol=0)
    torch.testing.assert_close(channels.std(1, correction=0), torch.ones(3).double(), atol=1e-5, rtol=0)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "x",
    [
        torch.full((7, 1, 3, 3), 0.1),
        torch.full((12_345, 1, 1, 1), 3, dtype=torch.uint8),  # of so many the mean is not quite 3 / 255
    ],
)
def test_a_channel_that_never_changes_is_only_shifted(x: Tensor) -> None:
    assert measure_normalization(x).std == (1.0,)
    assert measure_normalization(x).apply(x).abs().max() < 1e-8


def test_json_and_back_is_the_same_to_the_last_bit() -> None:
    one = Normalization((0.1 + 0.2, -1e-9), (1 / 3, 7.0), 1.0)
    assert Normalization.from_json(json.loads(json.dumps(one.to_json()))) == one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": None}, "has mean None; give a list of numbers"),
        ({"mean": ["0"]}, r"has mean \['0'\]"),
        ({"std": [math.nan]}, r"has std \[nan\]"),
        ({"std": [0.0]}, r"std \(0.0,\); give one of each, std above 0"),
        ({"std": [1.0, 1.0]}, r"has mean \(0.5,\) and std \(1.0, 1.0\)"),
        ({"mean": [], "std": []}, r"has mean \(\)"),
        ({"white": 0}, "has white 0; give a number above 0"),
        ({"white": True}, "has white True"),
    ],
)
def test_json_that_cannot_be_used_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Normalization.from_json({"mean": [0.5], "std": [0.2], "white": 255} | change)
