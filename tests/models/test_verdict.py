from __future__ import annotations

from dataclasses import replace

import pytest
from torch import Tensor, nn

from actograph.models import layer_table, simple_cnn
from actograph.models.shapes import LayerShape, Window
from actograph.models.verdict import describe


def conv(name: str, *, grid: int, inputs: int, filters: int, kernel: int = 3) -> LayerShape:
    return LayerShape(
        name=name,
        kind="Conv2d",
        input_shape=None,
        output_shape=None,
        parameters=inputs * filters,
        macs=grid * grid * inputs * filters,
        activation_bytes=0,
        input_grid=(2 * grid, 2 * grid),
        grid=(grid, grid),
        predicted_grid=(grid, grid),
        window=Window((kernel, kernel), (2, 2), inputs, filters),
    )


def say(model: nn.Module, side: int, channels: int = 1) -> str:
    """Return the sentences, with the multiplication sign as x."""
    return layer_table(model, (channels, side, side)).verdict.replace("\N{MULTIPLICATION SIGN}", "x")


def test_halving_the_grid_and_doubling_the_filters_is_called_level() -> None:
    assert (
        "Multiply-accumulates stay level from block2.conv to block4.conv (73,728 each): each step divides the "
        "positions by 4 (8x8 to 4x4 to 2x2) and multiplies the work at each by 4."
    ) in say(simple_cnn(10), 32)


def test_what_breaks_the_level_is_said_with_its_factors() -> None:
    text = say(simple_cnn(10), 28)
    assert (
        "From block2.conv to block3.conv they rise 1.31 times: the step divides the positions by 3.06 "
        "(7x7 to 4x4) and multiplies the work at each by 4"
    ) in text
    assert "From block4.conv to block5.conv they fall 12.8 times" in text
    assert "filters 64 to 10" in text


def test_filters_that_do_not_double_are_not_called_level() -> None:
    text = say(simple_cnn(10, channels=(16, 16, 16)), 32)
    assert "stay level between no two successive convolutions" in text
    assert "From block2.conv to block3.conv they fall 4 times" in text
    assert "and keeps the work at each" in text


def test_same_grid_and_same_filters_are_level_for_that_reason() -> None:
    model = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))
    assert (
        "stay level from 0 to 2 (9,216 each): the grid and the work at each position stay the same."
        in say(model, 8, channels=4)
    )


@pytest.mark.parametrize(
    ("kernel", "says"),
    [
        (3, "8 numbers of the 9 inputs in each window, 1.1 to 1: it can hardly learn more than it is given"),
        (5, "8 numbers of the 25 inputs in each window, 3.1 to 1: it has to learn what to keep"),
    ],
)
def test_the_first_window_is_compared_with_its_filters(kernel: int, says: str) -> None:
    assert says in say(simple_cnn(10, first_kernel=kernel), 28)


def test_the_wider_kernel_it_proposes_would_be_enough() -> None:
    assert "a first kernel of 5 would see 25" in say(simple_cnn(10, first_kernel=3), 28)
    assert "a first kernel of 7 would see 147" in say(nn.Conv2d(3, 64, 3, padding=1), 32, channels=3)


def test_patches_that_do_not_overlap_are_not_blamed_for_keeping_everything() -> None:
    assert "window" not in say(nn.Conv2d(3, 192, 8, stride=8), 32, channels=3)


@pytest.mark.parametrize(("side", "is_idle"), [(28, True), (32, True), (33, False), (64, False)])
def test_the_pool_does_nothing_up_to_32_pixels(side: int, is_idle: bool) -> None:
    assert (
        "pool does nothing at this input size: its grid is 1x1 already." in say(simple_cnn(10), side)
    ) is is_idle


def test_a_deep_network_is_summed_up() -> None:
    filters = [8, 16, 8, 16, 8, 16, 8, 16, 8, 24, 8, 24]
    rows = [conv(str(n), grid=8, inputs=9, filters=count) for n, count in enumerate(filters)]
    sentences = list(describe(rows))
    assert sum("they rise" in s or "they fall" in s for s in sentences) == 4
    assert "7 further steps change them at most 2 times." in sentences


def test_many_level_stretches_are_summed_up_too() -> None:
    rows = [conv(str(n), grid=8, inputs=9, filters=2 ** (n // 2 + 1)) for n in range(12)]
    sentences = list(describe(rows))
    assert sum("stay level from" in s for s in sentences) == 4
    assert any(s.startswith("2 shorter level stretches") for s in sentences)


def test_a_network_without_convolutions_is_told_its_heaviest_layer_only() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 2))
    assert say(model, 8) == "The heaviest layer is 1 with 97% of 264 multiply-accumulates."


class Residual(nn.Module):
    def __init__(self, channels: int, filters: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, filters, 3, stride=2, padding=1)
        self.second = nn.Conv2d(filters, filters, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, filters, 1, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x)) + self.shortcut(x)
        return y


def test_a_shortcut_is_no_step_of_the_main_path() -> None:
    text = say(nn.Sequential(Residual(8, 16), Residual(16, 32)), 32, channels=8)
    assert "From 0.first to 0.second they rise 2 times" in text
    assert "From 0.second to 1.first they fall 2 times" in text
    assert "shortcut" not in text


def test_a_convolution_after_a_concatenation_is_on_the_main_path() -> None:
    rows = [conv("a", grid=8, inputs=9, filters=8), conv("b", grid=8, inputs=999, filters=8)]
    rows = [
        replace(row, input_shape=(1, n, 16, 16), output_shape=(1, 8, 8, 8)) for n, row in enumerate(rows, 5)
    ]
    assert any("From a to b they rise 111 times" in sentence for sentence in describe(rows))
