from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from actograph.models.grid import predicted_grid, window_length, window_of

small = st.integers(1, 4)


@given(n=st.integers(1, 40), k=st.integers(1, 7), s=small, p=st.integers(0, 3), d=small)
def test_window_formula_equals_the_grid_of_a_real_convolution(n: int, k: int, s: int, p: int, d: int) -> None:
    assume(n + 2 * p >= d * (k - 1) + 1)
    conv = nn.Conv1d(1, 1, k, stride=s, padding=p, dilation=d, device="meta")
    assert conv(torch.empty(1, 1, n, device="meta")).shape[-1] == window_length(n, k, s, p, d)


def test_the_formula_of_dilation_one_is_the_textbook_one() -> None:
    assert [window_length(n, k=5, s=2, p=2) for n in (28, 27, 5)] == [
        (n + 4 - 5) // 2 + 1 for n in (28, 27, 5)
    ]


@given(n=st.integers(4, 30), k=st.integers(2, 4), s=small, ceil_mode=st.booleans(), p=st.integers(0, 1))
def test_pool_formula_equals_the_grid_of_a_real_pool(n: int, k: int, s: int, ceil_mode: bool, p: int) -> None:
    for pool in (nn.MaxPool2d(k, s, p, ceil_mode=ceil_mode), nn.AvgPool2d(k, s, p, ceil_mode=ceil_mode)):
        real = pool(torch.empty(1, 1, n, n + 1, device="meta")).shape[-2:]
        assert predicted_grid(pool, (n, n + 1)) == tuple(real)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 4, 3, padding="same"),
        nn.Conv2d(2, 4, (3, 5), padding="valid", stride=(1, 2)),
        nn.Conv2d(2, 4, 3, padding=(1, 0), padding_mode="circular"),
        nn.ConvTranspose2d(2, 4, 3, stride=2, padding=1, output_padding=1, dilation=2),
        nn.MaxPool2d(3),
        nn.AdaptiveAvgPool2d((3, None)),
        nn.AdaptiveMaxPool2d(2),
    ],
    ids=repr,
)
def test_prediction_equals_the_real_grid(layer: nn.Module) -> None:
    assert predicted_grid(layer, (11, 14)) == tuple(layer(torch.rand(1, 2, 11, 14)).shape[-2:])


def test_a_layer_without_a_grid_has_no_prediction_and_no_window() -> None:
    assert predicted_grid(nn.ReLU(), (3, 3)) is None
    assert window_of(nn.Linear(2, 2)) is None


def test_inputs_per_window_count_one_group_of_channels() -> None:
    first = window_of(nn.Conv2d(1, 8, 5))
    assert first is not None
    assert (first.inputs, first.filters) == (25, 8)
    depthwise = window_of(nn.Conv2d(32, 32, 3, groups=32))
    assert depthwise is not None
    assert (depthwise.inputs, depthwise.filters) == (9, 1)
